"""A directory that appears whole or not at all: written beside its place, then renamed.

A process that is killed leaves `<target>.incomplete`, which no reader takes for a data set, and
which the next run goes on with or clears.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil

from data.formats.manifest import FILE, UNFINISHED, read_manifest

LOCK = "lock"
SUFFIX = ".incomplete"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_done(target, known):
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
def work_directory(target, needed):
    """The directory to write into; becomes `target` when the `with` ends well.

    needed: bytes that will be written at most. An error leaves nothing behind; Ctrl-C and a kill
    leave what the next run may go on with."""
    work = target + SUFFIX
    os.makedirs(work, exist_ok=True)
    if os.listdir(work) and not os.path.exists(os.path.join(work, LOCK)):
        raise ValueError(f"{work} is in the way and was not made here; remove or rename it.")
    _check_space(work, needed)
    with open(os.path.join(work, LOCK), "w") as lock:
        try:
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
            os.rename(work, target)
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


def read_state(work):
    """What an earlier, interrupted run noted in the work directory; {} if nothing."""
    try:
        with open(os.path.join(work, UNFINISHED), encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return {}


def write_state(work, state):
    """Notes how far this run has come, whole or not at all."""
    path = os.path.join(work, UNFINISHED)
    with open(path + SUFFIX, "w", encoding="utf-8") as stream:
        json.dump(state, stream)
    os.replace(path + SUFFIX, path)


def clear(work):
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
