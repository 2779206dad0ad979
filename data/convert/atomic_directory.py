"""A directory that appears whole or not at all: written under another name, then renamed.

A process that is killed leaves `<target>.incomplete`, which no reader takes for a data set, and
which the next run resumes or clears.
"""

import contextlib
import errno
import json
import os
import shutil
from typing import Any, Dict, Iterator

from data.formats.manifest import FILE, UNFINISHED, read_manifest
from runtime.files import atomic_write, sync_directory, sync_file

try:
    import fcntl
except ImportError:  # Windows: nothing prevents two conversions into one directory there
    fcntl = None  # type: ignore

LOCK = "lock"
SUFFIX = ".incomplete"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_done(target: str, known: Dict[str, Any]) -> bool:
    """Whether `target` already holds what `known` describes; a ValueError for anything else."""
    if not os.path.exists(target) or (os.path.isdir(target) and not os.listdir(target)):
        return False
    if not os.path.isdir(target):
        raise ValueError(f"{target} is a file; give a directory that does not exist yet.")
    if not os.path.exists(os.path.join(target, FILE)):
        raise ValueError(
            f"{target} is not empty and holds no {FILE}; give a directory that does not exist yet, "
            "or remove that one."
        )
    manifest = read_manifest(target)
    if manifest.conversion != known:
        raise ValueError(
            f"{target} already holds another data set ({manifest.images} images of "
            f"{manifest.source}, or converted with other flags); give another directory, or remove "
            "that one."
        )
    return True


@contextlib.contextmanager
def work_directory(target: str, needed: int) -> Iterator[str]:
    """The directory to write into; becomes `target` when the `with` ends well.

    needed: bytes that will be written at most. An error leaves nothing behind; Ctrl-C and a kill
    leave what the next run may resume."""
    work = target + SUFFIX
    os.makedirs(work, exist_ok=True)
    if os.listdir(work) and not os.path.exists(os.path.join(work, LOCK)):
        raise ValueError(f"{work} is in the way and was not made here; remove or rename it.")
    _check_space(work, needed)
    with open(os.path.join(work, LOCK), "w") as lock:
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"{work} is being written by another process; wait until that has ended."
            ) from None
        try:
            yield work
            for name in os.listdir(work):
                if name in (UNFINISHED, LOCK) or name.endswith(".part.json"):
                    os.remove(os.path.join(work, name))
            _sync_tree(work)
            os.rename(work, target)
            sync_directory(os.path.dirname(target))
        except OSError as error:
            shutil.rmtree(work, ignore_errors=True)
            if error.errno not in NO_ROOM:
                raise
            raise ValueError(
                f"{work}: {os.strerror(error.errno)} while writing; up to {_size(needed)} are "
                "needed. Nothing was left behind: make room and run the same command again."
            ) from None
        except ValueError:
            shutil.rmtree(work, ignore_errors=True)
            raise


def _sync_tree(folder: str) -> None:
    """Makes each file durable before the rename: else a power failure may leave empty shards."""
    for inner, _, names in os.walk(folder):
        for name in names:
            sync_file(os.path.join(inner, name))
        sync_directory(inner)


def read_state(work: str) -> Dict[str, Any]:
    """What an earlier, interrupted run noted in the work directory; {} if nothing."""
    try:
        with open(os.path.join(work, UNFINISHED), encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return {}


def write_state(work: str, state: Dict[str, Any]) -> None:
    """Notes how far this run has come, whole or not at all."""
    with atomic_write(os.path.join(work, UNFINISHED)) as stream:
        json.dump(state, stream)


def clear(work: str) -> None:
    """Removes what an earlier run left, but for the lock."""
    for name in os.listdir(work):
        if name != LOCK:
            os.remove(os.path.join(work, name))


def _check_space(work, needed):
    held = sum(entry.stat().st_size for entry in os.scandir(work))
    free = shutil.disk_usage(work).free
    if free + held < needed:
        if not os.listdir(work):
            os.rmdir(work)
        raise ValueError(
            f"{os.path.dirname(work)} has {_size(free)} free, and up to {_size(needed)} are "
            "needed; make room or choose another disk."
        )


def _size(count):
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
