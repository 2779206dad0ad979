"""Connections to the bank's file, and SQLite's errors as sentences."""

import contextlib
import sqlite3

import pytest

from serving.bank_file import SCHEMA, BankError, connect, sentences, setting


@pytest.fixture
def connection(tmp_path):
    with contextlib.closing(connect(str(tmp_path / "bank.db"))) as connection:
        connection.executescript(SCHEMA)
        yield connection


def test_deleted_content_is_overwritten(connection):
    assert connection.execute("PRAGMA secure_delete").fetchone() == (1,)


def test_samples_go_with_their_person(connection):
    connection.execute("INSERT INTO person VALUES (1, 'Anna', '')")
    connection.execute("INSERT INTO sample VALUES (1, 1, x'00', 'digest', NULL, '')")
    connection.execute("DELETE FROM person")
    assert connection.execute("SELECT COUNT(*) FROM sample").fetchone() == (0,)


def test_setting_that_is_missing_means_damage(connection):
    with pytest.raises(BankError, match="is damaged"), sentences("bank.db"):
        setting(connection, "format")


@pytest.mark.parametrize(
    "text, error, words",
    [
        ("database or disk is full", OSError, "No space left"),
        ("database is locked", BankError, "another process"),
        ("no such table: person", BankError, "not a face bank"),
        ("disk I/O error", BankError, "cannot be read or written"),
    ],
)
def test_error_of_sqlite_is_a_sentence(text, error, words):
    with pytest.raises(error, match=words), sentences("bank.db"):
        raise sqlite3.OperationalError(text)
