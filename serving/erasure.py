"""Overwriting and deleting the cached matrix of a bank, also for who has it mapped."""

import contextlib
import glob
import os


def erase_cache(path: str) -> None:
    """Overwrites the cached matrix with zeros, which processes that map it see too; deletes it."""
    unfinished = [name for name in glob.glob(glob.escape(path) + ".*.part") if _orphaned(name)]
    for name in [path] + unfinished:
        with contextlib.suppress(FileNotFoundError):
            with open(name, "r+b") as stream:
                left = os.fstat(stream.fileno()).st_size
                while left > 0:
                    left -= stream.write(bytes(min(left, 1 << 20)))
                stream.flush()
                os.fsync(stream.fileno())
            os.remove(name)


def _orphaned(part: str) -> bool:
    """Whether the process that was writing `<path>.<pid>.part` (runtime/files.py) is gone."""
    pid = part.split(".")[-2]
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return True
    except PermissionError:
        return False
    return int(pid) == os.getpid()
