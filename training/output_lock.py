"""A lock on a run's directory: two trainings that write the same files would destroy both."""

import contextlib
import logging
import os
from typing import Iterator

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def lock_output_directory(directory: str, host: int = 0) -> Iterator[None]:
    """Holds the lock of a directory, which several hosts of one run share: one lock for each host.
    The kernel releases it with the process, however that ends. A held lock is a ValueError."""
    path = os.path.join(directory, f".lock_host_{host}" if host else ".lock")
    with open(path, "a+", encoding="utf-8") as stream:
        _acquire(stream, directory)
        stream.truncate(0)
        with contextlib.suppress(OSError):  # the number is for people; the lock holds without it
            stream.write(f"{os.getpid()}\n")
            stream.flush()
        yield


def _acquire(stream, directory: str) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        holder = stream.read().strip()
        process = f" (process {holder})" if holder else ""
        raise ValueError(
            f"{directory} is in use by another training{process}; wait until it ends, or pass "
            "another --output_path."
        ) from None
    except OSError as error:  # a file system without locks
        logging.warning(
            "%s cannot be locked (%s); do not start another training there.",
            directory,
            error.strerror,
        )
