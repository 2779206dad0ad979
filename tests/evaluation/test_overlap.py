"""Overlapping identities in simulated embeddings, where the truth is known."""

import numpy as np
import pytest

from evaluation.overlap import (
    accuracy_without,
    find_overlaps,
    identity_means,
    nearest_classes,
)

CLASSES, WIDTH, IDENTITIES = 1500, 64, 200


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def simulated(seen=(), doubled=(), seed=0, images=2, centres=1):
    """(centres [K, S, D], embeddings [N, D], identity [N]): `seen` identities are near the class of
    their number, `doubled` ones near that class and the next."""
    random = np.random.RandomState(seed)
    centres_KSD = random.normal(size=(CLASSES, centres, WIDTH))
    truth_ID = unit(random.normal(size=(IDENTITIES, WIDTH)))
    for identity in seen:
        truth_ID[identity] = unit(centres_KSD[identity, -1])
    for identity in doubled:
        centres_KSD[identity + 1] = centres_KSD[identity] + 0.1 * random.normal(size=WIDTH)
        truth_ID[identity] = unit(centres_KSD[identity, 0])
    identity_N = np.repeat(np.arange(IDENTITIES), images)
    noise_ND = 0.08 * random.normal(size=(len(identity_N), WIDTH))
    return centres_KSD, 5 * (truth_ID[identity_N] + noise_ND), identity_N


def overlaps(centres_KSD, embedded_ND, identity_N, cosine=None):
    means_ID = identity_means(embedded_ND, identity_N)
    return find_overlaps(means_ID, centres_KSD, identity_N, cosine)


def test_every_seen_identity_is_found_with_its_class():
    seen = (3, 50, 120, 199)
    found = overlaps(*simulated(seen))
    assert sorted(one.identity for one in found) == list(seen)
    assert all(one.label == one.identity and one.image == 2 * one.identity for one in found)


def test_unseen_identities_are_not_flagged_more_often_than_stated():
    flagged = sum(len(overlaps(*simulated(seed=seed))) for seed in range(10))
    assert flagged <= 8  # half a flag of a set on average


def test_a_person_of_two_classes_is_found():
    found = overlaps(*simulated(doubled=(10,)))
    assert [one.identity for one in found] == [10] and found[0].gap > 0.3


def test_any_sub_centre_of_a_class_counts():
    found = overlaps(*simulated(seen=(7,), centres=3))
    assert [(one.identity, one.label) for one in found] == [(7, 7)]


def test_a_cosine_flags_by_itself():
    centres_KSD, embedded_ND, identity_N = simulated(seen=(3,))
    assert len(overlaps(centres_KSD, embedded_ND, identity_N, 0.6)) == 1
    assert len(overlaps(centres_KSD, embedded_ND, identity_N, -0.9)) == IDENTITIES


def test_few_classes_need_a_cosine():
    centres_KSD, embedded_ND, identity_N = simulated()
    with pytest.raises(ValueError, match="has 5 identities, and 12 are needed"):
        overlaps(centres_KSD[:5], embedded_ND, identity_N)


def test_nearest_classes_are_those_of_a_sort():
    centres_KSD, embedded_ND, identity_N = simulated(centres=2)
    means_ID = identity_means(embedded_ND, identity_N)[:7]
    label_IJ, cosine_IJ = nearest_classes(means_ID, centres_KSD, 4)
    for mean_D, labels, cosines in zip(means_ID, label_IJ, cosine_IJ):
        all_K = (unit(centres_KSD) @ mean_D).max(axis=1)
        assert labels.tolist() == np.argsort(-all_K)[:4].tolist()
        np.testing.assert_allclose(cosines, np.sort(all_K)[::-1][:4], atol=1e-6)


def test_identity_means_are_of_normalised_embeddings():
    embedded_ND = np.array([[3.0, 0.0], [0.0, 2.0], [0.0, 1.0]])
    means_ID = identity_means(embedded_ND, np.array([1, 0, 1]))
    np.testing.assert_allclose(means_ID, [[0, 1], [0.5**0.5, 0.5**0.5]], atol=1e-6)


def test_accuracy_without_is_of_the_pairs_that_have_no_overlap():
    issame_P = np.arange(40) % 2 == 0
    identity_N = np.repeat(np.arange(40), 2)
    distances_P = np.where(issame_P, 1.0, 2.0)
    distances_P[:4] = distances_P[:4][::-1]  # four wrong pairs
    found = overlaps(*simulated(seen=(0, 1, 2, 3)))
    result = accuracy_without(distances_P, issame_P, identity_N, found)
    assert (result.pairs, result.removed) == (40, 4)
    assert result.accuracy_without == 1.0 > result.accuracy


def test_too_few_pairs_have_no_accuracy():
    issame_P = np.arange(12) % 2 == 0
    found = overlaps(*simulated(seen=tuple(range(6))))
    distances_P = np.where(issame_P, 1.0, 2.0)
    result = accuracy_without(distances_P, issame_P, np.repeat(np.arange(12), 2), found)
    assert result.removed == 6 and result.accuracy_without is None
