"""Files and directories that are put in place whole, or not at all."""

import contextlib
import os
import shutil
from typing import Iterator

from runtime.files import first_line
from runtime.tf1 import tf


def check_target(path: str, overwrite: bool) -> None:
    """Refuses a target that exists or that cannot be written, before anything is computed."""
    if os.path.exists(path) and not overwrite:
        raise ValueError(f"{path} exists; pass --overwrite, or another --file_name.")
    directory = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{directory} cannot be made ({error.strerror}); pass another --file_name."
        ) from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ValueError(f"{directory} is not writable; pass another --file_name.")


@contextlib.contextmanager
def staged(path: str) -> Iterator[str]:
    """A path with the same name in a directory next to `path`; moved to `path` when the block ends.

    After an error `path` is as before, and nothing else is left."""
    directory, name = os.path.split(os.path.abspath(path))
    partial = os.path.join(directory, f".{name}.{os.getpid()}.part")
    os.makedirs(partial)
    try:
        yield os.path.join(partial, name)
        if os.path.isdir(path):
            shutil.rmtree(path)
        os.replace(os.path.join(partial, name), path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), path) from None
    except tf.errors.OpError as error:
        raise ValueError(f"{path} cannot be written: {first_line(error)}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
