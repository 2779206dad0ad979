"""Writes files whole or not at all, and reads the first line of an error."""

import contextlib
import hashlib
import io
import json
import os
import re
import tokenize
from typing import TYPE_CHECKING, Any, Dict, Iterator, Mapping

if TYPE_CHECKING:
    import numpy as np

# What NumPy raises at a header that no array has; a nested one is a MemoryError on Python 3.7.
UNREADABLE_NPY = (
    ValueError,
    EOFError,
    OverflowError,
    SyntaxError,
    MemoryError,
    tokenize.TokenError,
)


@contextlib.contextmanager
def atomic_write(
    path: str, mode: str = "w", durable: bool = False, **options: Any
) -> Iterator[Any]:
    """A stream that replaces `path` when the block ends; after an error `path` is as before.

    durable: fsync the file and its directory, so that the content also survives a power failure. An
    OSError without a file name, as a full disk gives, gets the path."""
    partial = f"{path}.{os.getpid()}.part"
    if "b" not in mode:
        options.setdefault("encoding", "utf-8")
    try:
        with open(partial, mode, **options) as stream:
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(partial, path)
        if durable:
            sync_directory(os.path.dirname(path))
    except OSError as error:
        _remove(partial)
        if error.errno is None or error.filename not in (None, partial):
            raise
        raise OSError(error.errno, error.strerror, path) from None
    except BaseException:
        _remove(partial)
        raise


def write_npz(path: str, arrays: Mapping[str, Any]) -> None:
    """Writes {name: array} as an .npz, whole or not at all.

    The archive is made in memory: a ZipFile whose stream fails on a full disk prints a traceback
    when Python 3.7 collects it."""
    import numpy as np  # flags are checked before NumPy is known to be installed

    archive = io.BytesIO()
    np.savez(archive, **arrays)
    with atomic_write(path, "wb") as stream:
        stream.write(archive.getbuffer())


def read_npy(path: str, mapped: bool = False) -> "np.ndarray":
    """The array of an .npy file, or a ValueError; mapped: read from disk where it is used. Nothing
    is unpickled."""
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except UNREADABLE_NPY:
        raise ValueError(f"{path} is not a whole .npy of numbers that fits the memory.") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f"{path} is an .npz archive; pass an .npy of one array.")
    return array


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.remove(path)


def sync_directory(directory: str) -> None:
    """Makes renames in a directory durable; does nothing where directories cannot be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory or ".", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_file(path: str) -> None:
    """Makes the content of a file that another writer closed durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(*paths: str) -> str:
    """SHA-256 over the contents of files, one after the other, in hexadecimal digits."""
    sha = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):  # noqa: B023
                sha.update(block)
    return sha.hexdigest()


def read_json_object(path: str) -> Dict[str, Any]:
    """The object of a JSON file that may be missing or damaged: then it is {}."""
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def first_line(error: BaseException) -> str:
    """The first line of an error's text that carries information.

    TensorFlow 2.21 puts the heading "Graph execution error:" first, then the node's stack trace,
    and the cause after a line "Node: '<name>'"."""
    text = str(error)
    node = _NODE.search(text)
    lines = [line.strip() for line in text[node.end() if node else 0 :].splitlines()]
    lines = [line for line in lines if line and line not in HEADINGS]
    return lines[0] if lines else type(error).__name__


HEADINGS = ("Graph execution error:",)
_NODE = re.compile(r"^Node: .*$", re.MULTILINE)
