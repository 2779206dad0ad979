"""How every script ends: its exit code, and one sentence instead of a traceback where it can help.

0: done. 2: a mistake of the user, in one sentence. 1: a defect of this program, with a traceback.
128 + signal: stopped by that signal, as a shell reports it: 130 on Ctrl-C, 143 on SIGTERM.

A ValueError raised by this repository's own lines is a user's mistake (see CONTRIBUTING.md); the
same error raised inside a library is a defect of ours, and keeps its traceback.
"""

import errno
import logging
import os
import platform
import signal
import sys
import traceback
from typing import Callable, NoReturn, Optional, Sequence

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
USER_MISTAKE = 2
# What `make venv` installs, by the name that is imported.
REQUIRED = ("tensorflow", "numpy", "cv2", "tqdm", "yaml")


def run(main: Callable[..., Optional[int]], argv: Optional[Sequence[str]] = None) -> NoReturn:
    """Calls main(argv) and ends the process with its exit code, or 2 for a user's mistake."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        code = main(argv)
        sys.stdout.flush()  # here, so that a closed pipe is found here
    except ImportError as error:
        if not is_missing_requirement(error):
            raise
        code = complain(missing_requirement(error))
    except ValueError as error:
        if not _ours(error):
            raise
        code = complain(str(error))
    except OSError as error:
        if error.errno is None and error.filename is None:
            raise
        code = _closed_pipe() if error.errno == errno.EPIPE else complain(_file_error(error))
    except KeyboardInterrupt:
        code = interrupted()
    sys.exit(code)


def complain(sentence: str) -> int:
    """Prints one sentence on standard error and returns the exit code of a user's mistake."""
    print(f"error: {sentence}", file=sys.stderr)
    return USER_MISTAKE


def stopped_by(signum: int) -> int:
    """The exit code of a script that a signal stopped."""
    return 128 + int(signum)


def interrupted() -> int:
    """Prints the one line of a Ctrl-C and returns its exit code."""
    print("interrupted.", file=sys.stderr)
    return stopped_by(signal.SIGINT)


def is_missing_requirement(error: BaseException) -> bool:
    """Whether an import failed because the environment is not the one of `make venv`."""
    name = (getattr(error, "name", None) or "").split(".")[0]
    return isinstance(error, ImportError) and name in REQUIRED


def missing_requirement(error: ImportError) -> str:
    """The sentence about a missing package."""
    return (
        f"{(error.name or '').split('.')[0]} is not installed for {sys.executable} (Python "
        f"{platform.python_version()}): run `make venv` once, then `source .venv/bin/activate` or "
        "call .venv/bin/python."
    )


def report_uncaught(kind: type, error: BaseException, trace: object) -> None:
    """sys.excepthook of our scripts: one line for Ctrl-C or a missing package during the imports,
    where `run` is not reached yet; a traceback for the rest."""
    if isinstance(error, KeyboardInterrupt):
        interrupted()
    elif isinstance(error, ImportError) and is_missing_requirement(error):
        complain(missing_requirement(error))
    else:
        sys.__excepthook__(kind, error, trace)  # type: ignore[arg-type]


def _closed_pipe() -> int:
    """The reader of our output has ended, as in `| head`; nothing more can be printed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
    return stopped_by(getattr(signal, "SIGPIPE", 13))


def _file_error(error: OSError) -> str:
    """The path and the reason; a write error of a full disk has no path."""
    where = "a file could not be written or read" if error.filename is None else error.filename
    return f"{where}: {error.strerror}."


def _ours(error: BaseException) -> bool:
    """Whether a line of this repository raised the error, and not a library that it called."""
    raised_in = os.path.abspath(traceback.extract_tb(error.__traceback__)[-1].filename)
    inside = raised_in[len(ROOT) :]  # ROOT is in site-packages where the project is installed
    return raised_in.startswith(ROOT + os.sep) and "site-packages" not in inside
