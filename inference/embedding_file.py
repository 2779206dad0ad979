"""An .npy of embeddings that is written batch by batch and resumed after a crash.

N images, D embedding. While it is written, `<output>.partial` holds the rows, `<output>.names` the
names and `<output>.journal` what is done: a line of JSON for the run, then one for each batch with
a checksum of its rows. A killed process loses at most the batch that it was computing.
"""

import contextlib
import json
import os
import zlib
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

HEADER_BYTES = 128  # of the .npy: magic, version, length and a padded dictionary
FAILURES = "_errors.txt"
NAMES = "_names.txt"

Failure = Tuple[str, str]  # (name, reason)


class Progress(NamedTuple):
    """How far the file is."""

    images: int  # of the source, with the unreadable ones
    rows: int  # of the .npy
    names_bytes: int  # of the names file
    failed: Tuple[Failure, ...]  # unreadable images so far


class EmbeddingFile:
    """`with EmbeddingFile(...) as file: file.append(...)`; `finish` gives the file its name.

    identity: what the embeddings depend on; a journal of another identity is refused."""

    def __init__(
        self, path: str, shape: Tuple[int, int], identity: Dict[str, Any], named: bool
    ) -> None:
        check_output(path)
        self.path, self.images, self.dimension = path, shape[0], shape[1]
        header = dict(identity, images=shape[0], dimension=shape[1])
        self.header = json.loads(json.dumps(header))  # as the journal will return it
        self.partial, self.journal_path = f"{path}.partial", f"{path}.journal"
        self.names_path = f"{path}.names" if named else None
        self.progress = Progress(0, 0, 0, ())
        self._rows_ND: Optional[np.memmap] = None
        self._journal: Any = None
        self._names: Any = None

    def __enter__(self) -> "EmbeddingFile":
        found = self._read_journal()
        self._journal = open(self.journal_path, "a", encoding="utf-8")
        self._lock()
        if found is None:
            self._journal.truncate(0)
            self._allocate()
        else:
            self.progress, self._rows_ND, journal_bytes = found
            self._journal.truncate(journal_bytes)
        if self.names_path is not None:
            self._names = open(self.names_path, "ab")
            self._names.truncate(self.progress.names_bytes)
        return self

    def __exit__(self, *reason: Any) -> None:
        for stream in (self._journal, self._names):
            if stream is not None:
                with contextlib.suppress(OSError):  # of a full disk, which was reported already
                    stream.close()
        if self._rows_ND is not None and not self.progress.images:
            self._remove()  # nothing to resume: another command may write the same output
        self._rows_ND = None

    def append(
        self, embeddings_BD: np.ndarray, names: List[str], images: int, failed: List[Failure]
    ) -> None:
        """Stores the rows of the next `images` images of the source."""
        assert self._rows_ND is not None, "append is called inside `with`"
        before = self.progress
        self._rows_ND[before.rows : before.rows + len(embeddings_BD)] = embeddings_BD
        names_bytes = before.names_bytes
        if self._names is not None and names:
            text = "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")
            self._write(self._names, text, self.names_path)
            names_bytes += len(text)
        self.progress = Progress(
            before.images + images,
            before.rows + len(embeddings_BD),
            names_bytes,
            before.failed + tuple(failed),
        )
        line = {
            "images": self.progress.images,
            "rows": self.progress.rows,
            "names_bytes": names_bytes,
            "checksum": _checksum(embeddings_BD),
            "failed": failed,
        }
        self._write(self._journal, json.dumps(line) + "\n", self.journal_path)

    def finish(self) -> int:
        """Gives the files their names; returns the number of rows."""
        assert self._rows_ND is not None, "finish is called inside `with`"
        rows, dimension = self.progress.rows, self.dimension
        self._rows_ND.flush()
        self._rows_ND = None
        if not rows:
            self._remove()
            raise ValueError(
                f"{self.path} is not written: none of {self.images} images could be read; the "
                f"first one: {self.progress.failed[0][1]}"
            )
        with open(self.partial, "r+b") as stream:
            stream.write(npy_header(rows, dimension))
            stream.truncate(HEADER_BYTES + 4 * rows * dimension)
            os.fsync(stream.fileno())
        stem = self.path[: -len(".npy")]
        _write_failures(f"{stem}{FAILURES}", self.progress.failed)
        if self.names_path is not None:
            os.replace(self.names_path, f"{stem}{NAMES}")
        os.replace(self.partial, self.path)
        os.remove(self.journal_path)
        return rows

    def _remove(self) -> None:
        for path in (self.partial, self.names_path, self.journal_path):
            if path is not None:
                with contextlib.suppress(OSError):
                    os.remove(path)

    def _allocate(self) -> None:
        """Reserves the whole file, so that a full disk ends the run before the work."""
        size = HEADER_BYTES + 4 * self.images * self.dimension
        try:
            with open(self.partial, "wb") as stream:
                stream.write(npy_header(self.images, self.dimension))
                stream.flush()
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(stream.fileno(), 0, size)
                else:
                    stream.truncate(size)
        except OSError as error:
            self._remove()
            raise OSError(error.errno, f"{error.strerror} ({size:,} bytes)", self.path) from None
        self._rows_ND = self._map()
        text = json.dumps(self.header, sort_keys=True) + "\n"
        self._write(self._journal, text, self.journal_path)

    def _map(self) -> np.memmap:
        shape = (self.images, self.dimension)
        return np.memmap(self.partial, np.float32, mode="r+", offset=HEADER_BYTES, shape=shape)

    def _read_journal(self) -> Optional[Tuple[Progress, np.memmap, int]]:
        """(progress, rows, bytes of the journal) up to the last batch that is whole on disk."""
        if not (os.path.exists(self.journal_path) and os.path.exists(self.partial)):
            return None
        lines = list(_whole_lines(self.journal_path))
        if not lines:
            return None
        header, at = lines[0]
        changed = [name for name in self.header if header.get(name) != self.header[name]]
        if changed:
            raise ValueError(
                f"{self.journal_path} belongs to an unfinished run with another "
                f"{', '.join(changed)}; repeat that command, or remove the journal to start again."
            )
        if os.path.getsize(self.partial) != HEADER_BYTES + 4 * self.images * self.dimension:
            return None
        rows_ND, progress = self._map(), Progress(0, 0, 0, ())
        for line, end in lines[1:]:
            part_BD = rows_ND[progress.rows : line["rows"]]
            if _checksum(part_BD) != line["checksum"]:
                break  # the power failed before the rows reached the disk
            failed = progress.failed + tuple((name, why) for name, why in line["failed"])
            progress = Progress(line["images"], line["rows"], line["names_bytes"], failed)
            at = end
        return progress, rows_ND, at

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"{self.path} is being written by another process; wait for it, or pass another "
                "--output."
            ) from None

    @staticmethod
    def _write(stream: Any, content: Any, path: Optional[str]) -> None:
        """Hands the content to the system, where it survives the death of this process."""
        try:
            stream.write(content)
            stream.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None


def check_output(path: str) -> None:
    """Refuses an output that cannot be written, before the work."""
    if not path.endswith(".npy"):
        raise ValueError(f"--output {path} must end in .npy.")
    if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        raise ValueError(f"--output {path} is in no directory; create it first.")


def npy_header(rows: int, columns: int) -> bytes:
    """The head of an .npy of float32 [rows, columns]; its length is the same for any size."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}"
    text = text.ljust(HEADER_BYTES - 11) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin1")


def _checksum(rows_BD: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(rows_BD, np.float32).tobytes())


def _whole_lines(path: str) -> Iterator[Tuple[Dict[str, Any], int]]:
    """(JSON object, end of its line) of each line; the last one may be cut off."""
    at = 0
    with open(path, "rb") as stream:
        for line in stream:
            at += len(line)
            try:
                content = json.loads(line.decode("utf-8"))
            except ValueError:
                return
            if not line.endswith(b"\n") or not isinstance(content, dict):
                return
            yield content, at


def _write_failures(path: str, failed: Tuple[Failure, ...]) -> None:
    """One line a failure, name and reason; a list that an earlier run left is removed."""
    if not failed:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
        return
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.writelines(f"{name}\t{reason}\n" for name, reason in failed)
