"""The head: loss and gradients against float64 NumPy, sampled and whole, and what it refuses."""

import numpy as np
import pytest

from losses import centre_cosines, class_centres
from losses.face_losses import LOSSES
from runtime.tf1 import tf
from runtime.variables import decayed_variables
from tests.losses.tiny_heads import head_of

IMAGES, SIZE, IDENTITIES = 6, 5, 11
LABELS_N = np.array([3, 0, -1, 10, 3, 7])


def embedded(images=IMAGES):
    return np.random.RandomState(1).normal(0, 2, (images, SIZE)).astype(np.float32)


def built(labels_N=LABELS_N, embeddings_ND=None, identities=IDENTITIES, **options):
    """(head, its embeddings' tensor) in the default graph."""
    embeddings_ND = embedded(len(labels_N)) if embeddings_ND is None else embeddings_ND
    embeddings_ND = tf.constant(embeddings_ND)
    return head_of(embeddings_ND, tf.constant(labels_N), identities, **options), embeddings_ND


def started(session):
    session.run(tf.global_variables_initializer())


def numpy_head(embeddings_ND, centres_KD, labels_N, margin=0.5, scale=64.0):
    """(loss, slope of the embeddings, slope of the centres) of ArcFace in float64; no angle
    here is past pi - margin."""
    embeddings_ND, centres_KD = np.float64(embeddings_ND), np.float64(centres_KD)
    long_N1 = np.linalg.norm(embeddings_ND, axis=1, keepdims=True)
    long_K1 = np.linalg.norm(centres_KD, axis=1, keepdims=True)
    units_ND, units_KD = embeddings_ND / long_N1, centres_KD / long_K1
    cosine_NK = units_ND @ units_KD.T
    rows = np.flatnonzero(labels_N >= 0)
    at = rows, labels_N[rows]
    logits_NK, bend_NK = cosine_NK.copy(), np.ones_like(cosine_NK)
    theta = np.arccos(cosine_NK[at])
    assert (theta < np.pi - margin).all()
    logits_NK[at], bend_NK[at] = np.cos(theta + margin), np.sin(theta + margin) / np.sin(theta)
    logits_NK *= scale
    shares_NK = np.exp(logits_NK - logits_NK.max(1, keepdims=True))
    shares_NK /= shares_NK.sum(1, keepdims=True)
    loss = -np.log(shares_NK[at]).mean()
    slope_NK = shares_NK.copy()
    slope_NK[at] -= 1.0
    slope_NK *= scale * bend_NK * (labels_N >= 0)[:, None] / len(rows)
    pull_ND, pull_KD = slope_NK @ units_KD, slope_NK.T @ units_ND
    pull_ND -= units_ND * (pull_ND * units_ND).sum(1, keepdims=True)
    pull_KD -= units_KD * (pull_KD * units_KD).sum(1, keepdims=True)
    return loss, pull_ND / long_N1, pull_KD / long_K1


def evaluated(**options):
    """[loss, slope of the embeddings, IndexedSlices of the centres, the centres] in numbers."""
    with tf.Graph().as_default(), tf.Session() as session:
        head, embeddings_ND = built(**options)
        slope_ND, gradient = tf.gradients(head.loss, [embeddings_ND, head.centres])
        started(session)
        return session.run([head.loss, slope_ND, gradient, head.centres])


@pytest.mark.parametrize("block", [4, 4096])
def test_loss_and_gradients_equal_float64_numpy(block, monkeypatch):
    monkeypatch.setattr(centre_cosines, "BLOCK_ROWS", block)
    loss, slope_ND, gradient, centres_KD = evaluated()
    wanted_loss, wanted_ND, wanted_KD = numpy_head(embedded(), centres_KD, LABELS_N)
    assert loss == pytest.approx(wanted_loss, rel=1e-5)
    np.testing.assert_allclose(slope_ND, wanted_ND, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(gradient.indices, np.arange(IDENTITIES))
    scale = abs(wanted_KD).max()
    np.testing.assert_allclose(gradient.values, wanted_KD, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("block", [4, 4096])
def test_sampled_head_is_the_whole_head_over_the_rows_drawn(block, monkeypatch):
    monkeypatch.setattr(centre_cosines, "BLOCK_ROWS", block)
    labels_N = np.array([30, 0, -1, 17, 30, 7])
    loss, slope_ND, gradient, centres_KD = evaluated(
        labels_N=labels_N, identities=40, sample_rate=0.25, step=3
    )
    rows_R = gradient.indices
    assert len(set(rows_R)) == len(rows_R) == 10 and {30, 0, 17, 7} <= set(rows_R)
    places_N = np.array([list(rows_R).index(label) if label >= 0 else -1 for label in labels_N])
    wanted_loss, wanted_ND, wanted_RD = numpy_head(embedded(), centres_KD[rows_R], places_N)
    assert loss == pytest.approx(wanted_loss, rel=1e-5)
    np.testing.assert_allclose(slope_ND, wanted_ND, rtol=1e-5, atol=1e-5)
    scale = abs(wanted_RD).max()
    np.testing.assert_allclose(gradient.values, wanted_RD, rtol=1e-5, atol=1e-5 * scale)


def test_block_of_the_gradient_is_that_part_of_its_values():
    with tf.Graph().as_default(), tf.Session() as session:
        head, _ = built()
        gradient = tf.gradients(head.loss, head.centres)[0]
        part_BD = gradient.block(3, tf.gather(head.centres, gradient.indices[3:7]))
        started(session)
        values_RD, part_BD = session.run([gradient.values, part_BD])
    np.testing.assert_allclose(part_BD, values_RD[3:7], rtol=1e-6)


def test_rows_without_a_class_change_nothing():
    alone = LABELS_N >= 0
    with_them = evaluated()
    without = evaluated(labels_N=LABELS_N[alone], embeddings_ND=embedded()[alone])
    assert with_them[0] == pytest.approx(without[0], rel=1e-6)
    np.testing.assert_allclose(with_them[1][alone], without[1], rtol=1e-4, atol=1e-6)
    assert (with_them[1][~alone] == 0).all()
    loss, slope_ND, gradient, _ = evaluated(labels_N=np.full(IMAGES, -1))
    assert loss == 0 and (slope_ND == 0).all() and (gradient.values == 0).all()


def test_embeddings_of_zeros_have_a_finite_loss_and_no_gradient():
    embeddings_ND = embedded()
    embeddings_ND[1] = 0
    loss, slope_ND, gradient, _ = evaluated(embeddings_ND=embeddings_ND)
    assert np.isfinite(loss) and np.isfinite(slope_ND).all() and np.isfinite(gradient.values).all()
    assert (slope_ND[1] == 0).all()


def test_nearest_of_the_sub_centres_speaks_for_the_identity():
    with tf.Graph().as_default(), tf.Session() as session:
        head, embeddings_ND = built(sub_centers=3, loss="softmax")
        gradient = tf.gradients(head.loss, head.centres)[0]
        started(session)
        loss, gradient, centres_MD = session.run([head.loss, gradient, head.centres])
    units_ND = embedded() / np.linalg.norm(embedded(), axis=1, keepdims=True)
    units_MD = centres_MD / np.linalg.norm(centres_MD, axis=1, keepdims=True)
    cosine_NKS = (units_ND @ units_MD.T).reshape(IMAGES, IDENTITIES, 3)
    logits_NK = 64 * np.float64(cosine_NKS.max(2))
    rows = np.flatnonzero(LABELS_N >= 0)
    each_N = np.log(np.exp(logits_NK).sum(1))[rows] - logits_NK[rows, LABELS_N[rows]]
    assert loss == pytest.approx(each_N.mean(), rel=1e-5)
    nearest = {3 * k + cosine_NKS[n, k].argmax() for n in rows for k in range(IDENTITIES)}
    moved = set(np.flatnonzero(abs(gradient.values).sum(1)))
    assert moved <= nearest


def test_sub_centres_of_a_drawn_identity_are_all_read():
    gradient = evaluated(identities=40, sample_rate=0.25, sub_centers=2)[2]
    rows_R2 = gradient.indices.reshape(-1, 2)
    assert (rows_R2[:, 0] % 2 == 0).all() and (rows_R2[:, 1] == rows_R2[:, 0] + 1).all()


def test_filtered_negatives_count_as_cosine_zero():
    cosine_NK = np.array([[0.9, 0.6, 0.1], [0.5, 0.2, 0.7]], np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        labels_N = tf.constant([0, -1])
        filtered_NK = class_centres._filtered(tf.constant(cosine_NK), labels_N, 0.4)
        filtered_NK = session.run(filtered_NK)
    np.testing.assert_allclose(filtered_NK, [[0.9, 0, 0.1], [0, 0.2, 0]])


def test_accuracy_is_of_the_plain_cosines_and_a_tie_is_not_one():
    score_NK = np.array([[0.5, 0.2, 0.1], [0.5, 0.5, 0.1], [0, 0, 0], [0.1, 0.9, 0.2]], np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        score_NK, one = tf.constant(score_NK), class_centres.ONE_PART
        true_N = class_centres._everywhere(score_NK, tf.constant([0, 1, 2, 1]), one)
        right_N = session.run(class_centres._are_best([score_NK], [true_N], one)[0])
    np.testing.assert_array_equal(right_N, [1, 0, 0, 1])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("sample_rate", [1.0, 0.5])
def test_every_loss_trains(name, sample_rate):
    """Ten steps of plain descent on free embeddings bring the loss down, whatever the options."""
    with tf.Graph().as_default(), tf.Session() as session:
        embeddings_ND = tf.get_variable("embeddings", initializer=embedded() * 10)
        head = head_of(
            embeddings_ND,
            tf.constant(LABELS_N),
            16,
            loss=name,
            sample_rate=sample_rate,
            sub_centers=2,
            interclass_filtering_threshold=0.8,
            step=0,
        )
        slopes = tf.gradients(head.loss, [embeddings_ND, head.centres])
        step = [
            tf.assign_sub(embeddings_ND, 2.0 * slopes[0]),
            tf.scatter_sub(head.centres, slopes[1].indices, 1e-4 * slopes[1].values),
        ] + tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        started(session)
        losses = [session.run([head.loss, step])[0] for _ in range(10)]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_moving_statistics_move_with_the_step():
    with tf.Graph().as_default(), tf.Session() as session:
        built(loss="adaface")
        started(session)
        session.run(tf.get_collection(tf.GraphKeys.UPDATE_OPS))
        mean, deviation = session.run([v for v in tf.global_variables() if "norm_" in v.name])
    lengths_N = np.linalg.norm(embedded(), axis=1)
    assert mean == pytest.approx(0.99 * 20 + 0.01 * lengths_N.mean())
    assert deviation == pytest.approx(0.99 * 100 + 0.01 * lengths_N.std(ddof=1))


def test_centres_decay_and_are_one_matrix_of_k_rows():
    with tf.Graph().as_default():
        head, _ = built()
        assert head.centres.op.name == "class_centres"
        assert head.centres.shape.as_list() == [IDENTITIES, SIZE]
        assert decayed_variables()[0] is head.centres


def test_half_precision_embeddings_meet_a_float32_head():
    with tf.Graph().as_default():
        head = head_of(tf.zeros([2, 3], tf.float16), tf.constant([0, 1]), 4)
        assert head.loss.dtype == head.centres.dtype.base_dtype == tf.float32


@pytest.mark.parametrize(
    "options,said",
    [
        ({"labels_N": np.array([0, 11])}, r"a label is outside \[0, 11\)"),
        ({"labels_N": np.array([0, -2])}, r"a label is outside \[0, 11\)"),
        ({"embeddings_ND": np.full([6, 5], np.nan, np.float32)}, "an embedding is not finite"),
    ],
)
def test_bad_batch_ends_the_step_with_a_sentence(options, said):
    with tf.Graph().as_default(), tf.Session() as session:
        head, _ = built(**options)
        started(session)
        with pytest.raises(tf.errors.InvalidArgumentError, match=said):
            session.run(head.loss)


def test_nan_is_passed_on_to_the_loss_where_the_caller_checks():
    embeddings_ND = embedded()
    embeddings_ND[0, 0] = np.nan
    with tf.Graph().as_default(), tf.Session() as session:
        head, _ = built(embeddings_ND=embeddings_ND, check_finite=False)
        started(session)
        assert np.isnan(session.run(head.loss))


@pytest.mark.parametrize(
    "options,said",
    [
        ({"loss": "cosfase"}, "did you mean cosface"),
        ({"margin": 3.0}, "--margin 3.0 is out of range"),
        ({"scale": -1.0}, "--scale -1.0 is out of range"),
        ({"sample_rate": 0.0}, "--sample_rate 0.0 is out of range"),
        ({"sample_rate": 1.5}, "--sample_rate 1.5 is out of range"),
        ({"sample_rate": 0.2}, "draws 2 of 11 identities"),
        ({"sub_centers": 0}, "--sub_centers 0 is out of range"),
        (
            {"interclass_filtering_threshold": 1.0},
            "--interclass_filtering_threshold 1.0 is out of range",
        ),
    ],
)
def test_option_out_of_range_is_refused_before_the_graph(options, said):
    with tf.Graph().as_default(), pytest.raises(ValueError, match=said):
        built(**options)
