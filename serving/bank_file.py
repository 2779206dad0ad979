"""The bank's SQLite file: its tables, its connections, and its errors in sentences."""

import contextlib
import sqlite3
from typing import Iterator

APPLICATION_ID = 0x46424E4B  # "FBNK", in SQLite's header
LOCK_SECONDS = 30  # how long a writer waits for another one

SCHEMA = """
CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE person (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    created TEXT NOT NULL
);
CREATE TABLE sample (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id INTEGER NOT NULL REFERENCES person (id) ON DELETE CASCADE,
    embedding BLOB NOT NULL,
    source_digest TEXT NOT NULL,
    quality REAL,
    created TEXT NOT NULL,
    UNIQUE (person_id, source_digest)
);
CREATE TABLE ledger (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time TEXT NOT NULL,
    action TEXT NOT NULL,
    person_id INTEGER,
    samples INTEGER NOT NULL
);
CREATE TABLE calibration (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    name TEXT NOT NULL,
    genuine BLOB NOT NULL,
    impostor BLOB NOT NULL,
    created TEXT NOT NULL
);
"""


class BankError(ValueError):
    """A bank that cannot be read or written now: damaged, locked, unreadable."""


def connect(path: str) -> sqlite3.Connection:
    """A connection without Python's implicit transactions; deleted content becomes zeros."""
    connection = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    # A write-ahead log would keep erased pages until its checkpoint; the rollback journal is
    # deleted at the end of each transaction.
    connection.execute("PRAGMA journal_mode = DELETE")
    return connection


@contextlib.contextmanager
def sentences(path: str) -> Iterator[None]:
    """SQLite's errors as what the user can do about them."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "full" in text:
            raise OSError(28, "No space left on device", path) from None
        if "locked" in text:
            raise BankError(
                f"{path} is being written by another process for {LOCK_SECONDS} s; try again."
            ) from None
        if "no such table" in text:
            raise BankError(f"{path} is not a face bank or is damaged; restore a copy.") from None
        raise BankError(f"{path} cannot be read or written ({text}).") from None
    except sqlite3.DatabaseError as error:
        raise BankError(
            f"{path} is not a face bank or is damaged ({error}); restore a copy."
        ) from None


def setting(connection: sqlite3.Connection, key: str) -> str:
    """A value of the table `setting`."""
    row = connection.execute("SELECT value FROM setting WHERE key = ?", (key,)).fetchone()
    if row is None:
        raise sqlite3.DatabaseError(f"no setting {key}")
    return row[0]
