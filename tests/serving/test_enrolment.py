"""A directory of photos -> samples: each once, unusable ones reported, similar people named."""

import os

import pytest

from serving.enrolment import enrol_directory, photos_of
from serving.face_bank import FaceBank
from serving.recognizer import Recognizer
from serving.thresholds import Threshold
from tests.serving.tiny_models import face, photo, write_model, write_people


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    return Recognizer(write_model(tmp_path_factory.mktemp("model") / "model.onnx"), "none")


@pytest.fixture
def bank(recognizer, tmp_path):
    return FaceBank.create(str(tmp_path / "bank.db"), recognizer.contract)


def test_each_photo_is_added_once(bank, recognizer, tmp_path):
    people = write_people(tmp_path / "people", {"Anna": 1, "李明": 3})
    report = enrol_directory(bank, recognizer, people)
    assert (report.added, report.known, report.people) == (4, 0, 2)
    report = enrol_directory(bank, recognizer, people)
    assert (report.added, report.known) == (0, 4) and bank.counts() == (2, 4)


def test_unusable_photos_are_reported_and_the_others_taken(bank, recognizer, tmp_path):
    people = write_people(tmp_path / "people", {"Anna": 1})
    contents = {"text.jpg": b"text", "empty.png": b"", "two.jpg": photo([1, 2])}
    contents["moving.gif"] = b"GIF89a" + bytes(40)
    for name, content in contents.items():
        (tmp_path / "people" / "Anna" / name).write_bytes(content)
    report = enrol_directory(bank, recognizer, people)
    found = {os.path.basename(path): why for path, why in report.unusable}
    assert report.added == 2 and set(found) == set(contents)
    reasons = {
        "text.jpg": "neither",
        "empty.png": "empty",
        "moving.gif": "GIF",
        "two.jpg": "detector",
    }
    assert all(word in found[name] for name, word in reasons.items())


def test_photo_that_cannot_be_opened_is_reported(bank, recognizer, tmp_path):
    people = write_people(tmp_path / "people", {"Anna": 1}, shots=1)
    os.symlink("nowhere", str(tmp_path / "people" / "Anna" / "link.jpg"))
    report = enrol_directory(bank, recognizer, people)
    assert report.added == 1 and report.unusable[0][1].startswith("cannot be read")


def test_two_names_of_one_person_are_reported(bank, recognizer, tmp_path):
    people = write_people(tmp_path / "people", {"Anna": 1, "Ben": 30, "Hannah": 1})
    threshold = Threshold(0.95, None, None, None)
    report = enrol_directory(bank, recognizer, people, threshold)
    assert [pair[:2] for pair in report.similar] == [("Anna", "Hannah")]


def test_progress_counts_every_photo(bank, recognizer, tmp_path):
    people = write_people(tmp_path / "people", {"Anna": 1})
    (tmp_path / "people" / "Anna" / "bad.jpg").write_bytes(b"text")
    counted = []
    enrol_directory(bank, recognizer, people, progress=counted.append)
    assert sum(counted) == 3


def test_name_is_checked_before_anything_is_embedded(tmp_path):
    (tmp_path / "a\nb").mkdir()
    with pytest.raises(ValueError, match="line breaks"):
        photos_of(str(tmp_path))


def test_hidden_directories_and_loose_files_are_no_people(tmp_path):
    write_people(tmp_path, {"Anna": 1}, shots=1)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "loose.jpg").write_bytes(face(2))
    assert [name for name, _ in photos_of(str(tmp_path))] == ["Anna"]


@pytest.mark.parametrize("folder, words", [("none", "is not a directory"), ("", "holds no <name>")])
def test_directory_without_people_is_refused(tmp_path, folder, words):
    with pytest.raises(ValueError, match=words):
        photos_of(str(tmp_path / folder))
