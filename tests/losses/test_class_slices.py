"""The head in slices over ranks against the head of one, and against NumPy: same numbers."""

import numpy as np
import pytest

from losses import class_slices, partial_fc
from losses.class_centres import ONE_PART, HeadParts
from losses.face_losses import LOSSES
from runtime.distributed.collectives import Collectives
from runtime.distributed.ranks import Ranks, prepared
from runtime.tf1 import tf
from runtime.variables import stored
from tests.losses.test_class_centres import numpy_head
from tests.losses.tiny_heads import head_of
from training.graph.gradients import clip_gradients
from training.graph.optimizer import Reach, apply_gradients, decay_loss

IMAGES, SIZE, IDENTITIES, STEPS = 6, 5, 11, 5
LABELS_BN = np.array([[3, 0, -1, 10, 3, 7], [2, 3, 4, -1, 6, 8], [0, 0, 0, 10, 10, 5]])
RATE, MOMENTUM, DECAY = 2e-6, 0.9, 5e-4  # a first centre is 0.02 long, its gradient some 2,000


def embedded(turn):
    """Of lengths that AdaFace and MagFace tell apart, and inside the range where they differ."""
    return np.random.RandomState(turn).normal(0, 9, (IMAGES, SIZE)).astype(np.float32)


def parts_of(count, rank):
    if count == 1:
        return ONE_PART
    collectives = Collectives(rank, count)
    return HeadParts(collectives.maximum, collectives.sum, rank, count)


def trained(count, identities=IDENTITIES, kind="momentum", clip_norm=None, **options):
    """STEPS steps of `count` parts -> {heads: [a part's scalars, ...] of each step; slopes: of the
    embeddings at each step, summed over parts; first, last: name -> value of each variable}."""
    ranks = Ranks(per_host=count)
    with tf.Graph().as_default(), tf.Session(config=prepared(tf.ConfigProto(), ranks)) as session:
        embeddings_ND = tf.placeholder(tf.float32, [IMAGES, SIZE])
        labels_N, step = tf.placeholder(tf.int64, [IMAGES]), tf.placeholder(tf.int64, [])
        shown, slopes, moves = [], [], []
        for rank in range(count):
            with tf.variable_scope(ranks.scope(rank)), tf.device(ranks.device(rank)):
                parts = parts_of(count, rank)
                head = head_of(
                    embeddings_ND, labels_N, identities, step=step, parts=parts, **options
                )
                slope_ND, gradient = tf.gradients(head.loss, [embeddings_ND, head.centres])
                other = tf.ones([2]), None  # a gradient of the backbone
                bounded = clip_gradients(
                    [other], [(gradient, head.centres)], clip_norm, total=parts.total
                )
                with tf.control_dependencies(list(head[:3]) + [slope_ND]):
                    decay = decay_loss([head.centres], DECAY, parts.total)
                with tf.control_dependencies([decay]):
                    norm = tf.identity(bounded.norm)
                    moves.append(
                        apply_gradients(
                            bounded.pairs[1:],
                            RATE * (5e5 if kind == "lars" else 1.0),
                            kind,
                            MOMENTUM,
                            DECAY,
                            reach=Reach(total=parts.total),
                        )
                    )
            shown.append(list(head[:3]) + [norm, decay])
            slopes.append(slope_ND)
        moves += tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        session.run(tf.global_variables_initializer())
        found = {"first": whole_variables(session), "heads": [], "slopes": []}
        for turn in range(STEPS):
            fed = {embeddings_ND: embedded(turn), labels_N: LABELS_BN[turn % 3], step: turn}
            values, slope_PND, _ = session.run([shown, slopes, moves], fed)
            found["heads"].append(values)
            found["slopes"].append(np.sum(slope_PND, axis=0))
        found["last"] = whole_variables(session)
        return found


def whole_variables(session):
    """{name in a checkpoint: value}, slices put together; copies must be alike."""
    whole = {}
    for variable in tf.global_variables():
        name, shape, spec = stored(variable)
        value = session.run(variable)
        if spec:
            first = int(spec.split()[len(shape)].split(",")[0])
            whole.setdefault(name, np.full(shape, np.nan, np.float32))
            whole[name][first : first + len(value)] = value
        elif name in whole:
            np.testing.assert_array_equal(value, whole[name])
        else:
            whole[name] = value
    return whole


def assert_same(one, other):
    for value in one["heads"], other["heads"]:
        for step in value:  # every part says the same
            assert all(part == step[0] for part in step)
    for step, (values, others) in enumerate(zip(one["heads"], other["heads"])):
        np.testing.assert_allclose(others[0], values[0], rtol=1e-5, err_msg=f"step {step}")
    for step, (slope_ND, others_ND) in enumerate(zip(one["slopes"], other["slopes"])):
        room = (1e-5 if step else 1e-6) * abs(slope_ND).max()
        np.testing.assert_allclose(others_ND, slope_ND, 0, room, err_msg=f"step {step}")
    assert one["last"].keys() == other["last"].keys()
    for name, value in one["first"].items():
        np.testing.assert_array_equal(other["first"][name], value, name)
    for name, value in one["last"].items():
        room = 1e-5 * max(abs(value).max(), 1e-3)
        np.testing.assert_allclose(other["last"][name], value, rtol=1e-5, atol=room, err_msg=name)


def test_two_uneven_parts_follow_numpy():
    found = trained(2)
    centres_KD = np.float64(found["first"]["class_centres"])
    speed_KD = np.zeros_like(centres_KD)
    for turn in range(STEPS):
        labels_N = LABELS_BN[turn % 3]
        loss, slope_ND, slope_KD = numpy_head(embedded(turn), centres_KD, labels_N)
        assert found["heads"][turn][1][0] == pytest.approx(loss, rel=1e-5)
        np.testing.assert_allclose(found["slopes"][turn], slope_ND, rtol=1e-4, atol=1e-6)
        speed_KD = MOMENTUM * speed_KD + slope_KD + DECAY * centres_KD
        centres_KD -= RATE * speed_KD
    room = 1e-5 * abs(centres_KD).max()
    last_KD = found["last"]["class_centres"]
    np.testing.assert_allclose(last_KD, centres_KD, rtol=1e-5, atol=room)


@pytest.mark.parametrize("name", LOSSES)
def test_three_parts_of_every_loss_make_the_steps_of_one(name):
    options = {"loss": name, "sub_centers": 2, "interclass_filtering_threshold": 0.7}
    assert_same(trained(1, **options), trained(3, **options))


def test_parts_are_clipped_and_trusted_by_the_norms_of_all():
    """LARS and clipping measure the centres: a part's own norm would be another."""
    options = {"kind": "lars", "clip_norm": 50.0}
    one = trained(1, **options)
    assert one["heads"][0][0][3] > 50.0
    assert_same(one, trained(3, **options))


def test_first_rows_are_the_same_wherever_a_slice_begins(monkeypatch):
    monkeypatch.setattr(class_slices, "FIRST_ROWS", 4)
    with tf.Graph().as_default(), tf.Session() as session:
        whole_KD = class_slices.first_rows(7)([11, 3])
        parts = [
            class_slices.first_rows(7, first)([rows, 3]) for first, rows in [(0, 3), (3, 3), (6, 5)]
        ]
        other_KD = class_slices.first_rows(8)([11, 3])
        whole_KD, parts, other_KD = session.run([whole_KD, parts, other_KD])
    np.testing.assert_array_equal(np.concatenate(parts), whole_KD)
    assert len(np.unique(whole_KD)) == 33 and not np.isin(other_KD, whole_KD).any()
    assert 0.005 < whole_KD.std() < 0.02


def test_both_tensorflows_start_from_the_same_centres():
    with tf.Graph().as_default(), tf.Session() as session:
        first_KD = session.run(class_slices.first_rows(0)([2, 3]))
    recorded = [[0.00684504, -0.01148896, 0.01700682], [-0.00499646, 0.00488486, -0.0263177]]
    np.testing.assert_allclose(first_KD, recorded, rtol=1e-6)


def test_a_caller_may_draw_itself():
    options = {"identities": 43, "sample_rate": 0.4}
    groups = partial_fc.drawn_groups(43, 0.4, IMAGES)
    with tf.Graph().as_default(), tf.Session() as session:
        labels_N = tf.constant(LABELS_BN[0])
        losses = []
        for drawn in (None, partial_fc.draw(labels_N, groups, seed=0, step=3)):
            if drawn is not None:
                drawn = [tf.cast(one, tf.int32) for one in drawn]
            with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
                head = head_of(tf.constant(embedded(0)), labels_N, step=3, drawn=drawn, **options)
            losses.append(head.loss)
        session.run(tf.global_variables_initializer())
        inside, outside = session.run(losses)
    assert inside == outside


def test_the_same_is_drawn_for_any_number_of_parts():
    options = {"identities": 43, "sample_rate": 0.6, "draw_groups": 4}
    one = trained(1, **options)
    for count in (2, 4):
        assert_same(one, trained(count, **options))


def test_more_ranks_than_identities_are_refused():
    parts = HeadParts(tf.identity, tf.identity, 0, 5)
    with tf.Graph().as_default(), pytest.raises(ValueError, match="4 identities cannot be shared"):
        head_of(tf.zeros([2, 3]), tf.constant([0, 1]), 4, parts=parts)
