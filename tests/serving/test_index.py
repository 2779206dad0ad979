"""Search: the same people and scores as a plain product over everything, however it is stored."""

import numpy as np
import pytest

from serving import index as index_module
from serving.face_bank import FaceBank, ModelContract, NewSample
from serving.index import Index
from serving.unit_vectors import unit

WIDTH, PEOPLE, EACH = 17, 30, 3
CONTRACT = ModelContract("a" * 64, WIDTH, "RGB", False)
ROWS = np.random.RandomState(0).randn(PEOPLE * EACH, WIDTH).astype(np.float32)
ALL = range(PEOPLE * EACH)
QUERIES = np.random.RandomState(1).randn(4, WIDTH).astype(np.float32)


def batch(first, last):
    return [NewSample(f"p{i % PEOPLE:02}", ROWS[i], str(i)) for i in range(first, last)]


@pytest.fixture
def bank(tmp_path):
    return FaceBank.create(str(tmp_path / "bank.db"), CONTRACT)


def expected(template, kept=ALL):
    """For each query [(name, cosine)], best first."""
    names = [f"p{i % PEOPLE:02}" for i in kept]
    rows = unit(ROWS[list(kept)])
    people = sorted(set(names))
    groups = [rows[[name == person for name in names]] for person in people]
    if template == "mean":
        groups = [unit(group.mean(axis=0)) for group in groups]
    scores = [[float((group @ query).max()) for group in groups] for query in unit(QUERIES)]
    return [sorted(zip(people, row), key=lambda pair: -pair[1]) for row in scores]


def compare(index, template, kept=ALL):
    for matches, wanted in zip(index.top(QUERIES, 6), expected(template, kept)):
        assert [match.name for match in matches] == [name for name, _ in wanted[:6]]
        np.testing.assert_allclose(
            [match.cosine for match in matches], [score for _, score in wanted[:6]], atol=1e-5
        )


@pytest.mark.parametrize("template", index_module.TEMPLATES)
def test_top_equals_a_plain_search(bank, template):
    bank.add(batch(0, PEOPLE * EACH))
    compare(Index(bank, template), template)


@pytest.mark.parametrize("template", index_module.TEMPLATES)
def test_samples_added_later_are_found_without_a_new_file(bank, template):
    bank.add(batch(0, 40))
    index = Index(bank, template)
    with open(bank.cache_path, "rb") as stream:
        before = stream.read()
    bank.add(batch(40, PEOPLE * EACH))
    compare(index, template)
    with open(bank.cache_path, "rb") as stream:
        assert stream.read() == before


def test_many_later_samples_are_written_to_the_file(bank, monkeypatch):
    monkeypatch.setattr(index_module, "TAIL", 10)
    bank.add(batch(0, 40))
    index = Index(bank)
    bank.add(batch(40, PEOPLE * EACH))
    index.refresh()
    assert len(index._tail.sample_N) == 0
    compare(index, "best")


def test_removed_people_are_not_found(bank):
    bank.add(batch(0, PEOPLE * EACH))
    index = Index(bank)
    bank.remove("p03")
    compare(index, "best", [i for i in range(PEOPLE * EACH) if i % PEOPLE != 3])


@pytest.mark.parametrize("damage", ["cut", "garbage", "of another bank"])
def test_damaged_cache_is_built_again(bank, tmp_path, damage):
    bank.add(batch(0, PEOPLE * EACH))
    Index(bank)
    if damage == "of another bank":
        other = FaceBank.create(str(tmp_path / "other.db"), CONTRACT)
        other.add([sample._replace(embedding_D=-sample.embedding_D) for sample in batch(0, 90)])
        Index(other)
        content = open(other.cache_path, "rb").read()
    else:
        content = open(bank.cache_path, "rb").read()
        content = content[:-100] if damage == "cut" else b"\xff" * len(content)
    with open(bank.cache_path, "wb") as stream:
        stream.write(content)
    compare(Index(bank), "best")


def test_single_query_scores_as_in_a_batch(bank):
    bank.add(batch(0, PEOPLE * EACH))
    index = Index(bank)
    together = index.top(QUERIES, 3)
    for query, matches in zip(QUERIES, together):
        (alone,) = index.top(query, 3)
        assert [match.name for match in alone] == [match.name for match in matches]


def test_empty_bank_answers_nobody(bank):
    assert Index(bank).top(QUERIES[:1]) == [[]]


def test_unknown_template_is_refused(bank):
    with pytest.raises(ValueError, match="best, mean"):
        Index(bank, "median")
