"""FAISS finds what the exact product finds."""

import importlib.util

import numpy as np
import pytest

from serving import index as index_module
from serving.face_bank import FaceBank, ModelContract, NewSample
from serving.faiss_search import FaissRows, check_faiss
from serving.index import FAISS, Index
from serving.unit_vectors import unit

WIDTH, PEOPLE, EACH = 16, 250, 4
CHOOSER = np.random.RandomState(0)
CENTRES = CHOOSER.randn(PEOPLE, WIDTH)
ROWS = unit(np.repeat(CENTRES, EACH, axis=0) + 0.2 * CHOOSER.randn(PEOPLE * EACH, WIDTH))
QUERIES = unit(CENTRES[:20] + 0.2 * CHOOSER.randn(20, WIDTH))
START = np.arange(0, PEOPLE * EACH, EACH)
EXACT_SCORES = (QUERIES @ ROWS.T).reshape(20, PEOPLE, EACH).max(axis=2)

needs_faiss = pytest.mark.skipif(
    importlib.util.find_spec("faiss") is None, reason="needs faiss-cpu"
)


@needs_faiss
def test_all_lists_give_the_exact_scores():
    scores_BP = FaissRows(ROWS, searched=10**6).person_scores(QUERIES, START)
    found = scores_BP > -np.inf
    assert found.sum(axis=1).min() >= 20
    np.testing.assert_allclose(scores_BP[found], EXACT_SCORES[found], atol=1e-5)
    np.testing.assert_array_equal(scores_BP.argmax(axis=1), EXACT_SCORES.argmax(axis=1))


@needs_faiss
def test_the_default_lists_find_the_same_first_person():
    scores_BP = FaissRows(ROWS).person_scores(QUERIES, START)
    np.testing.assert_array_equal(scores_BP.argmax(axis=1), EXACT_SCORES.argmax(axis=1))


@needs_faiss
def test_index_with_faiss_answers_as_the_exact_one(tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "FEWEST_FOR_FAISS", 100)
    bank = FaceBank.create(str(tmp_path / "b.db"), ModelContract("a" * 64, WIDTH, "RGB", False))
    samples = [NewSample(f"p{i // EACH:03}", row, str(i)) for i, row in enumerate(ROWS)]
    bank.add(samples[:-EACH])
    exact, approximate = Index(bank), Index(bank, search=FAISS)
    bank.add(samples[-EACH:])  # in memory, beside the lists
    bank.erase("p003")
    queries = np.concatenate([QUERIES, ROWS[-1:]])
    for wanted, found in zip(exact.top(queries, 3), approximate.top(queries, 3)):
        assert [match.name for match in found[:1]] == [match.name for match in wanted[:1]]
        assert found[0].cosine == pytest.approx(wanted[0].cosine, abs=1e-5)
        assert "p003" not in [match.name for match in found]


@needs_faiss
def test_mean_template_is_refused(tmp_path):
    bank = FaceBank.create(str(tmp_path / "b.db"), ModelContract("a" * 64, WIDTH, "RGB", False))
    with pytest.raises(ValueError, match="omit --template mean"):
        Index(bank, "mean", FAISS)


def test_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install faiss-cpu"):
        check_faiss()
