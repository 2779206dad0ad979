"""A run survives a full disk: what cannot be written is a warning, and training continues."""

import contextlib
import errno
import logging
from typing import Iterator

from runtime.files import first_line
from runtime.tf1 import tf

# What TensorFlow reports of a write: its own text holds the system's, as "No space left on device".
ERRORS = (OSError, tf.errors.OpError)


@contextlib.contextmanager
def continue_on_write_error(path: str) -> Iterator[None]:
    """Logs an error of the file system in the block as a warning that names the path. Only for
    blocks that do nothing but write: an error of a training step is an OpError, too."""
    try:
        yield
    except ERRORS as error:
        logging.warning(
            "%s could not be written (%s); training continues without it.", path, reason(error)
        )


def reason(error: BaseException) -> str:
    """The cause of a failed write: `No space left on device` where that is it."""
    return getattr(error, "strerror", None) or first_line(error)


def is_full(error: OSError) -> bool:
    """Whether a write failed for want of room, which may be there later."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
