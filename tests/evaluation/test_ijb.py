"""The template protocols against loops over images, media and pairs."""

import itertools

import numpy as np
import pytest

from evaluation import ijb, ijb_metadata
from tests.evaluation import tiny_ijb


@pytest.fixture
def release(tmp_path):
    return tiny_ijb.write(tmp_path / "IJBC")


def slow_templates(said, plain_ND, mirrored_ND, mode):
    """The mean of each medium, the sum of each template's media, to length 1: in words."""
    rows = []
    for template in range(tiny_ijb.TEMPLATES):
        total = 0.0
        for medium in sorted(set(said["media_N"][said["template_N"] == template])):
            members = np.flatnonzero((said["template_N"] == template) & (said["media_N"] == medium))
            parts = []
            for i in members:
                part = plain_ND[i].astype(float) + (mirrored_ND[i] if mode.flip else 0.0)
                if not mode.norm:
                    part = part / np.sqrt((part**2).sum())
                parts.append(part * (said["scores_N"][i] if mode.detector else 1.0))
            total = total + np.mean(parts, axis=0)
        rows.append(total / np.sqrt((total**2).sum()))
    return np.array(rows)


def fast_templates(release, modes, batch=7):
    images = ijb_metadata.read_images(release, "IJBC")
    plain_ND, mirrored_ND = tiny_ijb.embeddings()
    templates = ijb.Templates(
        images.template_N, images.weight_N, images.scores_N, len(images.template_ids), modes
    )
    for start in range(0, len(plain_ND), batch):
        templates.add(plain_ND[start : start + batch], mirrored_ND[start : start + batch])
    return images, templates


@pytest.mark.parametrize("mode", ijb.ALL_MODES, ids=ijb.mode_name)
def test_templates_are_sums_of_means_of_media(release, mode):
    _, templates = fast_templates(release, [mode])
    expected = slow_templates(tiny_ijb.lists(), *tiny_ijb.embeddings(), mode=mode)
    np.testing.assert_allclose(templates.unit(mode), expected, atol=2e-6)


def test_pair_scores_are_dot_products(release):
    images, templates = fast_templates(release, [ijb.Mode(True, True, True)])
    first_P, second_P, _ = ijb_metadata.read_pair_list(release, "IJBC", images)
    unit_MD = templates.unit(templates.modes[0])
    shuffled = np.random.RandomState(0).permutation(len(first_P))
    scores_P = ijb.pair_scores(unit_MD, first_P[shuffled], second_P[shuffled])
    expected = [float(unit_MD[first_P[i]] @ unit_MD[second_P[i]]) for i in shuffled]
    np.testing.assert_allclose(scores_P, expected, atol=1e-6)


def slow_tar(scores_P, issame_P, target):
    """The highest TAR of any threshold whose FAR does not exceed the target."""
    best = 0.0
    for limit in sorted(set(scores_P)) + [np.inf]:
        if np.mean(scores_P[~issame_P] >= limit) <= target + 1e-12:
            best = max(best, np.mean(scores_P[issame_P] >= limit))
    return best


def test_verification_figures_are_those_of_trying_every_threshold():
    random = np.random.RandomState(2)
    issame_P = random.rand(300) < 0.3
    scores_P = np.round(random.randn(300) + 1.5 * issame_P, 1).astype(np.float32)  # with ties
    figures = ijb.verification_figures(scores_P, issame_P, targets=(0.001, 0.01, 0.05, 0.2))
    assert sorted(figures["tar_at_far"]) == [0.01, 0.05, 0.2]
    for target, tar in figures["tar_at_far"].items():
        assert abs(tar - slow_tar(scores_P, issame_P, target)) < 1e-12
    wins = [
        float(g > i) + 0.5 * (g == i)
        for g, i in itertools.product(scores_P[issame_P], scores_P[~issame_P])
    ]
    assert abs(figures["auc"] - np.mean(wins)) < 1e-9
    assert 0.1 < figures["eer"] < 0.4


def test_curve_ends_where_everything_is_accepted():
    random = np.random.RandomState(3)
    issame_P = np.arange(50) % 2 == 0
    far, tar = ijb.curve(random.randn(50).astype(np.float32), issame_P)
    assert (far[-1], tar[-1]) == (1.0, 1.0)
    assert (np.diff(far) > 0).all() and (np.diff(tar) >= 0).all()


def slow_identification(unit_MD, gallery, probes):
    """Ranks and scores, probe by probe."""
    ranks, mates, impostors = [], [], []
    for template, subject in zip(*probes):
        scores = {g: float(unit_MD[template] @ unit_MD[g]) for g in gallery[0]}
        own = [scores[g] for g, s in zip(*gallery) if s == subject]
        others = [scores[g] for g, s in zip(*gallery) if s != subject]
        ranks.append(sum(other > max(own) for other in others))
        mates.append(max(own))
        impostors += others
    return np.array(ranks), np.array(mates), np.sort(impostors)[::-1]


def test_identification_of_both_galleries_as_one(release):
    images, templates = fast_templates(release, [ijb.Mode(True, False, True)])
    unit_MD = templates.unit(templates.modes[0])
    first, second, probes = ijb_metadata.read_galleries(release, "IJBC", images)
    figures = ijb.identification_figures(unit_MD, (first, second), probes)
    together = tuple(np.concatenate(column) for column in zip(first, second))
    ranks, mates, impostors = slow_identification(unit_MD, together, probes)
    assert figures["ranks"] == {rank: np.mean(ranks < rank) for rank in (1, 5, 10)}
    for target, tpir in figures["tpir_at_fpir"].items():
        limit = impostors[int(np.ceil(len(mates) * target)) - 1]
        assert tpir == np.mean(mates > limit)


def test_open_set_counts_the_other_gallerys_subjects_as_non_mated_probes():
    unit_MD = np.eye(4, dtype=np.float32)
    unit_MD[2] = [0.8, 0.6, 0.0, 0.0]  # a probe of subject 0, near gallery template 0
    probes = (np.array([2] + [3] * 100), np.array([0] + [9] * 100))
    galleries = [(np.array([0]), np.array([0])), (np.array([1]), np.array([1]))]
    figures = ijb.identification_figures(unit_MD, galleries, probes)
    assert figures["open_set_tpir_at_fpir"] == {0.01: 1.0, 0.1: 1.0}


def test_embeddings_of_another_number_of_images_are_refused(release):
    images = ijb_metadata.read_images(release, "IJBC")
    templates = ijb.Templates(
        images.template_N, images.weight_N, images.scores_N, 12, [ijb.Mode(True, True, False)]
    )
    templates.add(np.ones((40, 3), np.float32))
    with pytest.raises(ValueError, match="40 embeddings for the 41 images"):
        templates.unit(templates.modes[0])
    with pytest.raises(ValueError, match="more embeddings than the 41 images"):
        templates.add(np.ones((2, 3), np.float32))
