"""How every script ends: its answer and 0, or one sentence about the user's mistake and 2.

A ValueError raised by this repository's own lines is a user's mistake (see CONTRIBUTING.md); the
same error raised inside a library is a defect of ours, and keeps its traceback.
"""

import logging
import os
import sys
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
USER_MISTAKE = 2


def run(main, argv=None):
    """Calls main(argv) and leaves the process with its exit code, or 2 for a user's mistake."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        code = main(argv)
    except ValueError as error:
        if not _ours(error):
            raise
        code = complain(str(error))
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        code = complain(f"{where}{error.strerror}.")
    except KeyboardInterrupt:
        code = 130  # as a shell says: ended by signal 2
    sys.exit(code)


def complain(sentence):
    """Says one sentence on standard error and returns the exit code of a user's mistake."""
    print(f"error: {sentence}", file=sys.stderr)
    return USER_MISTAKE


def _ours(error):
    """Whether a line of this repository raised the error, and not a library that it called."""
    raised_in = os.path.abspath(traceback.extract_tb(error.__traceback__)[-1].filename)
    return raised_in.startswith(ROOT + os.sep) and "site-packages" not in raised_in
