"""The bank's file: what goes in comes out, a kill leaves it whole, erasing leaves no byte."""

import multiprocessing
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys

import numpy as np
import pytest

from serving.face_bank import FaceBank, ModelContract, NewSample
from serving.index import Index
from serving.unit_vectors import unit

WIDTH = 24
CONTRACT = ModelContract("a" * 64, WIDTH, "RGB, 112x112", True)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def samples(name, count, seed=0):
    rows = np.random.RandomState(seed).randn(count, WIDTH).astype(np.float32)
    return [NewSample(name, row, f"{name}-{seed}-{i}", 0.5) for i, row in enumerate(rows)]


@pytest.fixture
def bank(tmp_path):
    return FaceBank.create(str(tmp_path / "bank.db"), CONTRACT)


def bytes_beside(bank):
    """{file: content} of everything in the bank's directory."""
    directory = os.path.dirname(bank.path)
    found = {}
    for name in os.listdir(directory):
        with open(os.path.join(directory, name), "rb") as stream:
            found[name] = stream.read()
    return found


def test_embeddings_come_back_as_unit_vectors(bank):
    given = samples("Anna", 3)
    assert bank.add(given) == 3
    rows = np.stack([row for _, _, row in bank.embeddings()])
    np.testing.assert_array_equal(rows, unit([sample.embedding_D for sample in given]))


def test_the_same_photo_is_added_once(bank):
    assert bank.add(samples("Anna", 2)) == 2
    assert bank.add(samples("Anna", 3)) == 1
    assert bank.counts() == (1, 3)


def test_composed_and_decomposed_spellings_are_one_name(bank):
    bank.add(samples("Zoe\u0308", 1))
    assert bank.person("Zo\u00eb").samples == 1


def test_file_is_readable_by_its_owner_only(bank):
    bank.add(samples("Anna", 1))
    Index(bank)
    for path in (bank.path, bank.cache_path):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_bank_of_another_model_is_refused_with_the_command_to_rebuild(bank):
    for change in (dict(digest="b" * 64), dict(flip=False), dict(preprocessing="BGR")):
        with pytest.raises(ValueError, match="facebank.py enrol"):
            FaceBank(bank.path, CONTRACT._replace(**change))


def test_nothing_is_added_where_one_sample_is_refused(bank):
    with pytest.raises(ValueError, match="slashes"):
        bank.add(samples("Anna", 1) + samples("a/b", 1))
    with pytest.raises(ValueError, match="not finite"):
        bank.add(samples("Anna", 1) + [NewSample("Ben", np.full(WIDTH, np.nan), "x")])
    assert bank.counts() == (0, 0)


@pytest.mark.parametrize("content", [b"text", b"SQLite format 3\0" + b"\xff" * 5000])
def test_file_that_is_no_bank_is_refused(tmp_path, content):
    path = tmp_path / "bank.db"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a face bank|damaged"):
        FaceBank(str(path))


def test_sqlite_file_of_another_program_is_refused(tmp_path):
    path = str(tmp_path / "other.db")
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")
    with pytest.raises(ValueError, match="not a face bank"):
        FaceBank(path)


def test_check_finds_damage(bank):
    for seed in range(30):
        bank.add(samples("Anna", 10, seed))
    assert bank.check() == []
    with sqlite3.connect(bank.path) as connection:
        connection.execute("UPDATE sample SET embedding = zeroblob(96) WHERE id = 7")
    assert ["sample 7 is not a unit vector" in fault for fault in bank.check()] == [True]
    size = os.path.getsize(bank.path)
    with open(bank.path, "r+b") as stream:
        stream.seek(size // 2)
        stream.write(b"\xab" * 4096)
    try:
        assert bank.check()
    except ValueError as error:
        assert "damaged" in str(error)


def test_check_reports_a_file_that_others_can_read(bank):
    os.chmod(bank.path, 0o644)
    assert "chmod 600" in bank.check()[0]


def test_erase_leaves_no_byte_of_name_or_embeddings(bank):
    people = [f"person {number}" for number in range(40)]
    for seed, name in enumerate(people):
        bank.add(samples(name, 12, seed))
    victim = "Wilhelmina Unmistakable"
    given = samples(victim, 12, 99)
    bank.add(given[:6])
    Index(bank)
    bank.add(given[6:])  # some in the cached matrix, some in the bank only
    index = Index(bank)
    needles = [
        unit(sample.embedding_D)[0].tobytes()[k : k + 16] for sample in given for k in (0, 80)
    ]
    needles += [victim.encode(), victim.encode("utf-16-le"), given[0].source_digest.encode()]
    before = bytes_beside(bank)
    assert all(
        any(needle in part for part in before.values()) for needle in (needles[0], needles[-2 - 1])
    )
    bank.erase(victim)
    after = bytes_beside(bank)
    assert sorted(after) == ["bank.db"]
    assert not [needle for needle in needles if needle in after["bank.db"]]
    top = index.top(given[0].embedding_D, 50)[0]
    assert victim not in [match.name for match in top] and len(top) == 40
    assert not [
        needle for needle in needles for part in bytes_beside(bank).values() if needle in part
    ]
    assert bank.check() == []


def test_erased_rows_of_the_cached_matrix_become_zero_for_who_has_it_mapped(bank):
    bank.add(samples("Anna", 2))
    rows = Index(bank)._base.unit_ND
    assert np.abs(rows).max() > 0
    bank.erase("Anna")
    assert np.abs(rows).max() == 0


def test_erase_deletes_the_unfinished_cache_of_a_killed_process(bank):
    bank.add(samples("Anna", 2))
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    left = f"{bank.cache_path}.{process.pid}.part"
    with open(left, "wb") as stream:
        stream.write(unit(samples("Anna", 1)[0].embedding_D).tobytes())
    bank.erase("Anna")
    assert not os.path.exists(left)


def test_erase_leaves_a_line_in_the_ledger_without_the_name(bank):
    bank.add(samples("Anna", 2))
    person = bank.erase("Anna")
    line = bank.ledger()[-1]
    assert (line["action"], line["person_id"], line["samples"]) == ("erase", person.id, 2)
    assert "Anna" not in str(bank.ledger())


def test_ids_of_removed_people_are_not_used_again(bank):
    bank.add(samples("Anna", 1))
    first = bank.remove("Anna")
    bank.add(samples("Ben", 1))
    assert bank.person("Ben").id > first.id


def test_removing_the_last_sample_removes_the_person(bank):
    bank.add(samples("Anna", 2))
    person = bank.person("Anna")
    for sample in bank.samples(person.id):
        assert bank.remove_sample(person.id, sample.id)
    assert bank.persons() == []


def test_nobody_of_that_name_is_an_error(bank):
    with pytest.raises(ValueError, match="nobody named 'Anna'"):
        bank.remove("Anna")


WRITER = """
import sys
import numpy as np
from serving.face_bank import FaceBank, NewSample
bank = FaceBank(sys.argv[1])
random = np.random.RandomState(int(sys.argv[2]))
print("ready", flush=True)
for number in range(100000):
    rows = random.randn(7, 24).astype(np.float32)
    bank.add([NewSample("p%d" % (number % 9), row, "%s-%d-%d" % (sys.argv[2], number, i))
              for i, row in enumerate(rows)])
    if number % 5 == 4:
        bank.erase("p%d" % (number % 9))
    print(number, flush=True)
"""


def writer(bank, seed):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, bank.path, str(seed)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        universal_newlines=True,
    )


def test_kill_at_any_moment_leaves_a_whole_bank(bank):
    for seed in range(6):
        process = writer(bank, seed)
        for _ in range(2 + 3 * seed):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert bank.check() == []
        people, count = bank.counts()
        assert count % 7 == 0 and all(person.samples for person in bank.persons())
        assert Index(bank).samples == count


def _add_many(path, seed):
    bank = FaceBank(path)
    for number in range(20):
        bank.add(samples(f"writer {seed}", 2, 100 * seed + number))


def test_two_writers_and_a_reader_lose_nothing(bank):
    index = Index(bank)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add_many, args=(bank.path, seed)) for seed in (1, 2)]
    for process in writers:
        process.start()
    while any(process.is_alive() for process in writers):
        index.top(np.ones(WIDTH, np.float32))
    for process in writers:
        process.join()
    assert [process.exitcode for process in writers] == [0, 0]
    assert bank.counts() == (2, 80)
    index.refresh()
    assert index.samples == 80


FULL = """
import resource, signal, sys
import numpy as np
from serving.face_bank import FaceBank, NewSample
bank = FaceBank(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (200000, 200000))
try:
    for number in range(1000):
        bank.add([NewSample("p", row, "%d-%d" % (number, i))
                  for i, row in enumerate(np.random.randn(50, 24).astype(np.float32))])
except (OSError, ValueError) as error:
    print(type(error).__name__, error)
"""


def test_full_disk_is_an_error_and_leaves_the_bank_as_it_was(bank):
    assert resource.RLIMIT_FSIZE is not None
    done = subprocess.run(
        [sys.executable, "-c", FULL, bank.path], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    assert b"Error" in done.stdout and bank.path.encode() in done.stdout
    assert bank.check() == [] and bank.counts()[1] % 50 == 0 and bank.counts()[1] > 0


def test_an_unfinished_creation_is_started_again(tmp_path):
    path = tmp_path / "bank.db"
    path.write_bytes(b"")
    assert FaceBank.open_or_create(str(path), CONTRACT).counts() == (0, 0)
