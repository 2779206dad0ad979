"""What the REST API does: names, "unknown", confirmations; without HTTP."""

import cv2
import numpy as np
import pytest

from faces.photo import PhotoError, read_photo
from serving.face_bank import FaceBank
from serving.index import Index
from serving.recognizer import Recognizer
from serving.service import RequestError, Service
from serving.thresholds import Calibration, Threshold
from tests.serving.tiny_models import face, write_model

PAIRS = Calibration("lfw.bin", np.array([0.9, 0.95], "f4"), np.array([0.1, 0.2, 0.3], "f4"))


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    return Recognizer(write_model(tmp_path_factory.mktemp("model") / "model.onnx"), "none")


@pytest.fixture
def service(recognizer, tmp_path):
    bank = FaceBank.create(str(tmp_path / "bank.db"), recognizer.contract)
    return Service(Index(bank), recognizer, Threshold(0.9, 0.0, 1.0, "lfw.bin"), PAIRS)


@pytest.fixture
def anna(service):
    return service.enrol("Anna", [face(1, 0), face(1, 1)], confirm=True)["person"]


def test_embed_equals_the_model(service, recognizer):
    expected = recognizer.embed_crops(read_photo(face(1))[None])[0]
    np.testing.assert_allclose(service.embed(face(1))["embedding"], expected, atol=1e-5)


def test_identify_names_the_person_of_the_photo(service, anna):
    answer = service.identify(face(1, 0))
    assert answer["name"] == "Anna" and answer["known"]
    assert answer["candidates"][0]["cosine"] == pytest.approx(1, abs=1e-4)


def test_identify_answers_unknown(service, anna):
    answer = service.identify(face(40, 0))
    assert answer["name"] == "unknown" and answer["person_id"] is None
    assert answer["candidates"][0]["name"] == "Anna"


def test_identify_in_an_empty_bank_answers_unknown(service):
    answer = service.identify(face(1))
    assert answer["name"] == "unknown" and answer["candidates"] == []


def test_verify_compares_two_photos(service):
    answer = service.verify(face(1), face(1))
    assert answer["same"] and answer["squared_l2"] == pytest.approx(0, abs=1e-3)
    assert not service.verify(face(1), face(30))["same"]


def test_verify_names_the_photo_that_cannot_be_used(service):
    with pytest.raises(PhotoError, match="the second photo is empty"):
        service.verify(face(1), b"")


def test_photo_that_resembles_another_person_needs_a_confirmation(service, anna):
    with pytest.raises(RequestError, match="resembles Anna") as error:
        service.enrol("Ben", [face(1, 0)])
    assert (error.value.status, error.value.code) == (409, "similar_person")


def test_second_person_of_a_name_needs_a_confirmation(service, anna):
    with pytest.raises(RequestError) as error:
        service.enrol("Anna", [face(30, 0)])
    assert (error.value.status, error.value.code) == (409, "different_person")
    assert service.enrol("Anna", [face(30, 0)], confirm=True)["added"] == 1


@pytest.mark.parametrize("name", ["a/b", "..", "a\nb", "x" * 300, ""])
def test_bad_name_is_refused(service, name):
    with pytest.raises(RequestError) as error:
        service.enrol(name, [face(1)])
    assert (error.value.status, error.value.code) == (400, "bad_name")


def test_samples_are_added_and_removed(service, anna):
    assert service.add_sample(anna["id"], face(1, 2), confirm=True)["added"] == 1
    samples = service.samples(anna["id"])["samples"]
    assert service.remove_sample(anna["id"], samples[0]["id"]) == {"removed": samples[0]["id"]}
    assert len(service.samples(anna["id"])["samples"]) == len(samples) - 1 == 2


def test_erased_person_is_not_found(service, anna):
    service.erase(anna["id"])
    assert service.persons() == {"persons": []}
    with pytest.raises(RequestError, match="no person"):
        service.erase(anna["id"])


def test_health_counts_people_and_names_the_model(service, anna):
    health = service.health()
    assert (health["people"], health["samples"], health["detector"]) == (1, 2, False)
    assert health["model"]["embedding_size"] == 24


def test_calibration_is_a_histogram_of_both_kinds_of_pairs(service):
    answer = service.calibration()
    assert answer["name"] == "lfw.bin"
    assert sum(answer["histogram"]["genuine"]) == pytest.approx(1)
    assert sum(answer["histogram"]["impostor"]) == pytest.approx(1)


def test_detect_without_a_detector_is_refused(service):
    photo = cv2.imencode(".png", np.zeros((50, 60, 3), np.uint8))[1].tobytes()
    with pytest.raises(PhotoError, match="no detector"):
        service.detect(photo)
