"""The face bank: people and the embeddings of their samples, in one SQLite file.

The file is pinned to one model. Every change is one transaction, so that a process that is killed
leaves the bank as it was before. Embeddings are unit vectors, float32. N samples, D embedding.
"""

import contextlib
import datetime
import json
import os
import sqlite3
import uuid
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from serving.bank_file import APPLICATION_ID, SCHEMA, connect, sentences, setting
from serving.erasure import erase_cache
from serving.person_names import checked_name
from serving.unit_vectors import is_unit, stacked, unit

FORMAT = 1
CACHE_ENDING = ".index"


class ModelContract(NamedTuple):
    """What the embeddings of a bank depend on."""

    digest: str  # SHA-256 of the model's file
    embedding_size: int  # D
    preprocessing: str  # channel order, scale and input size, as the model describes them
    flip: bool  # whether the mirrored image's embedding is added


class Person(NamedTuple):
    """A person of the bank."""

    id: int  # never used again after the person is removed
    name: str  # unique within the bank
    samples: int  # how many embeddings
    created: str  # UTC, ISO 8601


class Sample(NamedTuple):
    """One embedding of a person, without its numbers."""

    id: int
    source_digest: str  # SHA-256 of the photo's file
    quality: Optional[float]  # 0 to 1, None where unknown
    created: str  # UTC, ISO 8601


class NewSample(NamedTuple):
    """An embedding to be added."""

    name: str  # of the person
    embedding_D: np.ndarray  # float32, any length but 0
    source_digest: str  # SHA-256 of the photo's file
    quality: Optional[float] = None  # 0 to 1, None where unknown


class FaceBank:
    """A bank's file. Any number of processes may read while one writes."""

    def __init__(self, path: str, contract: Optional[ModelContract] = None) -> None:
        """Opens a bank; with a contract, refuses a bank of another model."""
        self.path = path
        if not os.path.isfile(path):
            raise ValueError(f"{path} is not a face bank: no such file; enrol people to create it.")
        with self._read() as connection:
            self._check_format(connection)
            self.contract = self._stored_contract(connection)
            self.identifier = json.loads(setting(connection, "identifier"))
        if contract is not None:
            self._check_contract(contract)

    @classmethod
    def create(cls, path: str, contract: ModelContract) -> "FaceBank":
        """A new, empty bank that only its owner can read (mode 0600)."""
        directory = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(directory):
            raise ValueError(f"{path}: {directory} is not a directory; create it first.")
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            raise ValueError(f"{path} is there already; give another --bank.") from None
        try:
            with sentences(path), contextlib.closing(connect(path)) as connection:
                script = f"BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION_ID};"
                connection.executescript(script + SCHEMA)
                settings = {
                    "format": FORMAT,
                    "generation": 0,
                    "contract": contract._asdict(),
                    "identifier": uuid.uuid4().hex,
                }
                connection.executemany(
                    "INSERT INTO setting VALUES (?, ?)",
                    [(key, json.dumps(value)) for key, value in settings.items()],
                )
                connection.execute("COMMIT")
        except BaseException:
            os.remove(path)
            raise
        return cls(path, contract)

    @classmethod
    def open_or_create(cls, path: str, contract: ModelContract) -> "FaceBank":
        """The bank at `path`; where there is none (or an unfinished one), a new one."""
        with contextlib.suppress(OSError):
            if os.path.getsize(path) == 0 and not os.path.exists(path + "-journal"):
                os.remove(path)  # a process was killed before the first transaction
        return cls(path, contract) if os.path.exists(path) else cls.create(path, contract)

    @property
    def cache_path(self) -> str:
        """Where serving/index.py keeps the matrix of all embeddings."""
        return self.path + CACHE_ENDING

    def generation(self) -> int:
        """A number that grows with each change of people or samples."""
        with self._read() as connection:
            return int(setting(connection, "generation"))

    def persons(self) -> List[Person]:
        """Everyone, by name."""
        with self._read() as connection:
            rows = connection.execute(
                "SELECT person.id, name, COUNT(sample.id), person.created FROM person "
                "LEFT JOIN sample ON sample.person_id = person.id GROUP BY person.id ORDER BY name"
            )
            return [Person(*row) for row in rows]

    def person(self, name: str) -> Optional[Person]:
        """The person of that name, or None."""
        with self._read() as connection:
            return _person(connection, "name", checked_name(name))

    def person_by_id(self, person_id: int) -> Optional[Person]:
        """The person of that id, or None."""
        with self._read() as connection:
            return _person(connection, "person.id", person_id)

    def samples(self, person_id: int) -> List[Sample]:
        """A person's samples, oldest first."""
        with self._read() as connection:
            rows = connection.execute(
                "SELECT id, source_digest, quality, created FROM sample WHERE person_id = ? "
                "ORDER BY id",
                (person_id,),
            )
            return [Sample(*row) for row in rows]

    def counts(self) -> Tuple[int, int]:
        """(people, samples)."""
        with self._read() as connection:
            query = "SELECT (SELECT COUNT(*) FROM person), (SELECT COUNT(*) FROM sample)"
            return connection.execute(query).fetchone()

    def add(self, samples: Sequence[NewSample]) -> int:
        """Adds samples in one transaction and returns how many are new.

        People who are not in the bank are created; a photo that its person has already is
        not added twice."""
        names = [checked_name(sample.name) for sample in samples]
        units_ND = unit(stacked([s.embedding_D for s in samples]), self.contract.embedding_size)
        now, added = _now(), 0
        with self._write() as connection:
            for name in dict.fromkeys(names):
                connection.execute(
                    "INSERT OR IGNORE INTO person (name, created) VALUES (?, ?)", (name, now)
                )
            ids = {name: _person(connection, "name", name).id for name in dict.fromkeys(names)}
            rows = {name: [] for name in ids}  # type: Dict[str, List[Tuple[Any, ...]]]
            for name, unit_D, sample in zip(names, units_ND, samples):
                blob = unit_D.tobytes()
                row = (ids[name], blob, sample.source_digest, sample.quality, now)
                rows[name].append(row)
            for name in ids:
                done = connection.executemany(
                    "INSERT OR IGNORE INTO sample (person_id, embedding, source_digest, quality, "
                    "created) VALUES (?, ?, ?, ?, ?)",
                    rows[name],
                ).rowcount
                if done > 0:
                    _log(connection, "enrol", ids[name], done)
                    added += done
        return added

    def has_source(self, name: str, source_digest: str) -> bool:
        """Whether a person has a sample of that photo already."""
        with self._read() as connection:
            query = "SELECT 1 FROM sample JOIN person ON person.id = person_id WHERE name = ? "
            row = connection.execute(query + "AND source_digest = ?", (name, source_digest))
            return row.fetchone() is not None

    def remove(self, name: str) -> Person:
        """Takes a person and all samples out of the bank and its cache."""
        person = self._known(name)
        erase_cache(self.cache_path)
        with self._write() as connection:
            connection.execute("DELETE FROM person WHERE id = ?", (person.id,))
            _log(connection, "remove", person.id, person.samples)
        return person

    def remove_sample(self, person_id: int, sample_id: int) -> bool:
        """Takes one sample out of the bank; a person without samples is removed too."""
        with self._write() as connection:
            done = connection.execute(
                "DELETE FROM sample WHERE id = ? AND person_id = ?", (sample_id, person_id)
            )
            if done.rowcount:
                _log(connection, "remove sample", person_id, 1)
                connection.execute(
                    "DELETE FROM person WHERE id = ? AND id NOT IN (SELECT person_id FROM sample)",
                    (person_id,),
                )
        return bool(done.rowcount)

    def erase(self, name: str) -> Person:
        """Removes a person so that no byte of name or embeddings is left in the bank's files.

        Deleted content is overwritten with zeros, the file is rebuilt without free pages, and the
        cached matrix is overwritten and deleted. The ledger keeps id, time and sample count."""
        person = self._known(name)
        erase_cache(self.cache_path)
        with self._write() as connection:
            connection.execute("DELETE FROM person WHERE id = ?", (person.id,))
            _log(connection, "erase", person.id, person.samples)
        self.compact()
        erase_cache(self.cache_path)  # another process may have written it in between
        return person

    def compact(self) -> None:
        """Rebuilds the file: shifted rows leave copies in unused space, VACUUM does not."""
        with sentences(self.path), contextlib.closing(connect(self.path)) as connection:
            connection.execute("VACUUM")

    def ledger(self) -> List[Dict[str, Any]]:
        """Every enrolment and removal, without names and embeddings."""
        with self._read() as connection:
            rows = connection.execute(
                "SELECT time, action, person_id, samples FROM ledger ORDER BY id"
            )
            return [dict(zip(("time", "action", "person_id", "samples"), row)) for row in rows]

    def embeddings(self, after: int = 0) -> Iterator[Tuple[int, int, np.ndarray]]:
        """Yields (sample id, person id, float32 [D]) of samples with a larger id, by person."""
        with self._read() as connection:
            yield from self.rows(connection, after)

    def rows(
        self, connection: sqlite3.Connection, after: int = 0
    ) -> Iterator[Tuple[int, int, np.ndarray]]:
        """As embeddings(), on a connection of the caller (see snapshot)."""
        width = self.contract.embedding_size
        for sample_id, person_id, blob in connection.execute(
            "SELECT id, person_id, embedding FROM sample WHERE id > ? ORDER BY person_id, id",
            (after,),
        ):
            if len(blob) != 4 * width:
                raise ValueError(f"{self.path}: sample {sample_id} is damaged; restore a copy.")
            yield sample_id, person_id, np.frombuffer(blob, "<f4")

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Tuple[sqlite3.Connection, int]]:
        """(connection, generation): what is read within the block is of one moment."""
        with self._read() as connection:
            connection.execute("BEGIN")
            yield connection, int(setting(connection, "generation"))
            connection.execute("COMMIT")

    def set_calibration(self, name: str, genuine: np.ndarray, impostor: np.ndarray) -> None:
        """Keeps the cosines of a verification set's pairs, from which thresholds are taken."""
        blobs = [np.sort(np.asarray(part, "<f4")).tobytes() for part in (genuine, impostor)]
        with self._write(grows=False) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO calibration VALUES (1, ?, ?, ?, ?)",
                [name] + blobs + [_now()],
            )

    def calibration(self) -> Optional[Tuple[str, np.ndarray, np.ndarray]]:
        """(name of the set, genuine cosines, impostor cosines), both rising, or None."""
        with self._read() as connection:
            query = "SELECT name, genuine, impostor FROM calibration"
            row = connection.execute(query).fetchone()
        return row and (row[0],) + tuple(np.frombuffer(blob, "<f4") for blob in row[1:])

    def check(self) -> List[str]:
        """What is wrong with the bank, a sentence each; empty for a sound one."""
        faults = []
        with self._read() as connection:
            for (line,) in connection.execute("PRAGMA integrity_check"):
                if line != "ok":
                    faults.append(f"{self.path}: {line}.")
            if faults:
                return faults
            for sample_id, _, blob in connection.execute(
                "SELECT id, person_id, embedding FROM sample"
            ):
                if not is_unit(blob, self.contract.embedding_size):
                    faults.append(f"{self.path}: sample {sample_id} is not a unit vector.")
            orphans = connection.execute("PRAGMA foreign_key_check").fetchall()
            faults += [f"{self.path}: a sample belongs to no person."] * bool(orphans)
        mode = os.stat(self.path).st_mode & 0o077
        if mode:
            faults.append(f"{self.path} can be read by other users; run chmod 600 {self.path}.")
        return faults

    def _known(self, name):
        person = self.person(name)
        if person is None:
            raise ValueError(f"{self.path} holds nobody named {name!r}; see facebank.py list.")
        return person

    @contextlib.contextmanager
    def _read(self):
        with sentences(self.path), contextlib.closing(connect(self.path)) as connection:
            yield connection

    @contextlib.contextmanager
    def _write(self, grows=True):
        with sentences(self.path), contextlib.closing(connect(self.path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                if grows:
                    connection.execute(
                        "UPDATE setting SET value = CAST(value AS INTEGER) + 1 "
                        "WHERE key = 'generation'"
                    )
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _check_format(self, connection):
        found = connection.execute("PRAGMA application_id").fetchone()[0]
        if found != APPLICATION_ID:
            raise ValueError(f"{self.path} is not a face bank; give the --bank that enrol created.")
        version = int(setting(connection, "format"))
        if version != FORMAT:
            raise ValueError(
                f"{self.path} has format {version}, but this code reads {FORMAT}; update it."
            )

    def _stored_contract(self, connection):
        try:
            return ModelContract(**json.loads(setting(connection, "contract")))
        except (TypeError, ValueError):
            raise ValueError(f"{self.path} does not describe its model; restore a copy.") from None

    def _check_contract(self, contract):
        if contract == self.contract:
            return
        what = {
            "digest": "other weights",
            "embedding_size": "another embedding dimension",
            "preprocessing": "other preprocessing",
            "flip": "another --flip",
        }
        differs = [
            what[key]
            for key in ModelContract._fields
            if getattr(contract, key) != getattr(self.contract, key)
        ]
        raise ValueError(
            f"{self.path} was built with {' and '.join(differs)} "
            f"(model {self.contract.digest[:12]}, not {contract.digest[:12]}); embeddings of two "
            "models cannot be compared. Build a new bank from the photos: python facebank.py enrol "
            "--bank NEW.db --model MODEL --images DIR."
        )


def _person(connection, column, value):
    row = connection.execute(
        f"SELECT person.id, name, COUNT(sample.id), person.created FROM person LEFT JOIN sample "
        f"ON sample.person_id = person.id WHERE {column} = ? GROUP BY person.id",
        (value,),
    ).fetchone()
    return row and Person(*row)


def _log(connection, action, person_id, samples):
    connection.execute(
        "INSERT INTO ledger (time, action, person_id, samples) VALUES (?, ?, ?, ?)",
        (_now(), action, person_id, samples),
    )


def _now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
