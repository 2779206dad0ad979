"""A name, "unknown", and the numbers behind the answer."""

import numpy as np
import pytest

from serving.face_bank import FaceBank, ModelContract, NewSample
from serving.identification import UNKNOWN, identify
from serving.index import Index
from serving.thresholds import Threshold

THRESHOLD = Threshold(0.8, 0.01, 0.9, "lfw.bin")


@pytest.fixture
def bank(tmp_path):
    return FaceBank.create(str(tmp_path / "bank.db"), ModelContract("a" * 64, 3, "RGB", False))


def answer_of(bank, *query, threshold=THRESHOLD):
    return identify(Index(bank), np.array([query], np.float32), threshold)[0]


@pytest.fixture
def people(bank):
    bank.add([NewSample("Anna", np.eye(3)[0], "a"), NewSample("Ben", np.eye(3)[1], "b")])
    return bank


def test_most_similar_person_above_the_threshold_is_the_answer(people):
    answer = answer_of(people, 0.9, 0.1, 0.0)
    assert answer.name == "Anna" and [match.name for match in answer.candidates] == ["Anna", "Ben"]


def test_person_below_the_threshold_is_unknown_and_a_candidate(people):
    answer = answer_of(people, 0.5, 0.4, 0.6)
    assert answer.name == UNKNOWN and answer.person is None
    assert answer.sentence().startswith("unknown (most similar: Anna, cosine 0.570")


def test_margin_is_the_lead_over_the_second_person(people):
    assert answer_of(people, 0.8, 0.6, 0.0).margin == pytest.approx(0.2, abs=1e-6)


def test_single_person_has_no_margin(bank):
    bank.add([NewSample("Anna", np.eye(3)[0], "a")])
    assert answer_of(bank, 1, 0, 0).margin is None


def test_empty_bank_answers_unknown(bank):
    answer = answer_of(bank, 1, 0, 0)
    assert answer.name == UNKNOWN and answer.sentence() == "unknown (the bank is empty)"


def test_sentence_has_far_and_the_fpir_of_this_bank(people):
    assert "FAR 0.01, FPIR 0.02" in answer_of(people, 1, 0, 0).sentence()


def test_sentence_without_a_calibration_has_no_far(people):
    answer = answer_of(people, 1, 0, 0, threshold=Threshold(0.8, None, None, None))
    assert "FAR" not in answer.sentence()


def test_dictionary_has_the_fields_of_the_api(people):
    found = answer_of(people, 1, 0, 0).to_dict()
    assert found["known"] and found["name"] == "Anna" and found["person_id"] == 1
    assert found["candidates"][1]["squared_l2"] == pytest.approx(2)
    assert found["threshold"]["fpir"] == pytest.approx(1 - 0.99**2)
