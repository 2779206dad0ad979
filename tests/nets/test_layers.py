"""Layers against NumPy, on the smallest shapes that can fail."""

import dataclasses

import numpy as np
import pytest

from nets.layers import (
    Kernel,
    conv,
    convolve,
    dense,
    dropout,
    flatten,
    initializer,
    norm,
    prelu,
    squeeze_excite,
    subsample,
)
from nets.lineages import LINEAGES
from runtime.tf1 import tf
from runtime.variables import decayed_variables
from tests.nets.tiny_nets import context_of

NAME = "arcface_torch"
X = np.random.RandomState(3).standard_normal((4, 5, 6, 8)).astype(np.float32) * 2 + 1


def _run(build, feed=X, assign=None):
    """The outputs of build(x), with the variables in `assign` set by the end of their names."""
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None] + list(feed.shape[1:]))
        outputs = build(x)
        session.run(tf.global_variables_initializer())
        for variable in tf.global_variables():
            for ending, value in (assign or {}).items():
                if variable.op.name.endswith(ending):
                    session.run(variable.initializer, {variable.initializer.inputs[1]: value})
        return session.run(outputs, {x: feed})


@pytest.mark.parametrize("size, stride, pad", [(3, 1, 1), (3, 2, 1), (1, 2, 0), (7, 2, 3)])
def test_conv_pads_both_sides_alike(size, stride, pad):
    kernel = np.random.RandomState(0).standard_normal((size, size, 8, 3)).astype(np.float32)
    y = _run(
        lambda x: conv(x, 3, Kernel(size, stride), context_of(NAME, True), "c"),
        assign={"W_conv2d": kernel},
    )
    padded = np.pad(X, [(0, 0), (pad, pad), (pad, pad), (0, 0)], "constant")
    rows = (padded.shape[1] - size) // stride + 1
    expected = [
        np.einsum("nhwc,hwcf->nf", padded[:, i : i + size, :size], kernel)
        for i in range(0, rows * stride, stride)
    ]
    np.testing.assert_allclose(y[:, :, 0], np.stack(expected, 1), atol=1e-3)


def test_grouped_conv_equals_convolutions_of_each_group():
    kernel = np.random.RandomState(0).standard_normal((3, 3, 2, 12)).astype(np.float32)

    def both(x):
        grouped = conv(x, 12, Kernel(3, groups=4), context_of(NAME, True), "c")
        parts = [
            tf.nn.conv2d(x[..., 2 * g : 2 * g + 2], kernel[..., 3 * g : 3 * g + 3], 1, "SAME")
            for g in range(4)
        ]
        return grouped, tf.concat(parts, 3), tf.gradients(grouped, x)[0]

    grouped, expected, gradient = _run(both, assign={"W_conv2d": kernel})
    np.testing.assert_allclose(grouped, expected, atol=1e-4)
    assert gradient.shape == X.shape


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16, tf.float16])
def test_subsample_keeps_every_other_pixel_and_hands_its_gradient_back(dtype):
    def build(x):
        x = tf.cast(x, dtype)
        y = subsample(x, 2)
        return [tf.cast(t, tf.float32) for t in (x, y, tf.gradients(y, x)[0])]

    x, y, gradient = _run(build)
    assert np.array_equal(y, x[:, ::2, ::2])
    expected = np.zeros_like(X)
    expected[:, ::2, ::2] = 1
    assert np.array_equal(gradient, expected)


def test_batch_norm_follows_the_biased_or_unbiased_variance_as_the_lineage_does(monkeypatch):
    count = X.size // 8
    for unbiased, scale in ((True, count / (count - 1.0)), (False, 1.0)):
        row = dataclasses.replace(LINEAGES[NAME], unbiased=unbiased)
        monkeypatch.setitem(LINEAGES, NAME, row)

        def build(x):
            y = norm(x, context_of(NAME, True), "bn")
            with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
                moving = [v.read_value() for v in tf.global_variables() if "moving" in v.op.name]
            return [y] + moving

        y, mean, variance = _run(build)
        flat = X.reshape(-1, 8)
        np.testing.assert_allclose(mean, 0.1 * flat.mean(0), rtol=1e-4)
        np.testing.assert_allclose(variance, 0.9 + 0.1 * scale * flat.var(0), rtol=1e-5)
        expected = (X - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
        np.testing.assert_allclose(y, expected, atol=1e-4)


def test_norm_adds_updates_only_when_training():
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [None, 4, 4, 3])
        for kind in ("batch", "renorm", "group"):
            norm(x, context_of(NAME, False), kind, kind)
        assert not tf.get_collection(tf.GraphKeys.UPDATE_OPS)


@pytest.mark.parametrize("lineage", ["arcface_torch", "insightface_tf"])
def test_synchronised_norm_equals_plain_when_there_is_one_rank(lineage):
    def build(x):
        outputs = []
        for ranks in (None, tf.identity):
            rules = context_of(lineage, True, mean_over_ranks=ranks)
            with tf.variable_scope("bn", reuse=tf.AUTO_REUSE):
                y = norm(x, rules, "bn")
            weights = tf.cast(tf.range(8), tf.float32)
            updates = tf.get_collection_ref(tf.GraphKeys.UPDATE_OPS)
            outputs.append([y, tf.gradients(y * y * weights, x)[0]] + updates[:])
            del updates[:]
        return outputs

    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, X.shape)
        both, moved = build(x), []
        for outputs in both:
            tf.set_random_seed(1)
            session.run(tf.global_variables_initializer())
            ran = session.run(outputs, {x: X})
            statistics = [v for v in tf.global_variables() if "moving" in v.op.name]
            gamma = session.run([v for v in tf.global_variables() if "gamma" in v.op.name])[0]
            moved.append(session.run(statistics) + [ran[0] / gamma])
        for plain, synchronised in zip(*moved):
            np.testing.assert_allclose(plain, synchronised, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(*session.run([both[0][1], both[1][1]], {x: X}), atol=1e-4)


def test_group_norm_normalises_within_groups_of_an_image():
    y = _run(
        lambda x: norm(x, context_of(NAME, True), "gn", "group")
    )  # 8 channels: 8 groups of one
    np.testing.assert_allclose(y.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((1, 2)), 1, atol=1e-3)


def test_renorm_equals_batch_norm_in_its_first_step_and_then_leans_on_what_it_saw():
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None, 5, 6, 8])
        y = norm(x, context_of(NAME, True), "rn", "renorm")
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        session.run(tf.global_variables_initializer())
        flat = X.reshape(-1, 8)
        first = session.run([y, updates], {x: X})[0]
        deviation = np.sqrt(flat.var(0) + 1e-5)
        np.testing.assert_allclose(first, (X - flat.mean(0)) / deviation, atol=1e-4)
        second = session.run(y, {x: 1.5 * X + 0.25})  # r and d inside their bounds undo the batch
    mixed = 0.1 * flat.mean(0) + 0.9 * (1.5 * flat.mean(0) + 0.25)
    mixed_deviation = 0.1 * deviation + 0.9 * np.sqrt(2.25 * flat.var(0) + 1e-5)
    np.testing.assert_allclose(second, (1.5 * X + 0.25 - mixed) / mixed_deviation, atol=1e-3)


def test_prelu_and_its_gradient_equal_the_definition():
    alphas = np.linspace(-0.5, 1.5, 8).astype(np.float32)

    def build(x):
        y = prelu(x, context_of(NAME, True), "p")
        with tf.variable_scope(tf.get_variable_scope(), reuse=True):
            plain = prelu(x, context_of(NAME, False), "p")
        sources = [x, tf.trainable_variables()[0]]
        return [y, plain] + tf.gradients(y * y, sources) + tf.gradients(plain * plain, sources)

    y, plain, dx, dalpha, plain_dx, plain_dalpha = _run(build, assign={"alphas": alphas})
    np.testing.assert_allclose(y, np.where(X > 0, X, alphas * X), atol=1e-6)
    np.testing.assert_allclose(y, plain, atol=1e-6)
    np.testing.assert_allclose(dx, plain_dx, atol=1e-5)
    np.testing.assert_allclose(dalpha, plain_dalpha, rtol=1e-4)


def test_squeeze_excite_multiplies_channels_by_a_gate_below_one():
    y = _run(lambda x: squeeze_excite(x, context_of("insightface_mxnet", True)))
    ratio = y / X
    np.testing.assert_allclose(ratio, ratio[:, :1, :1] * np.ones_like(X), rtol=1e-3)
    assert (ratio > 0).all() and (ratio < 1).all()


def test_dropout_repeats_itself_for_the_same_seed():
    def build(x):
        seeds = ([1, 2], [1, 2], [1, 3])
        options = [{"dropout_rate": 0.4, "dropout_seed": tf.constant(seed)} for seed in seeds]
        return [dropout(x, context_of(NAME, True, **chosen)) for chosen in options]

    one, same, other = _run(build)
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    kept = one != 0
    assert 0.45 < kept.mean() < 0.75
    np.testing.assert_allclose(one[kept], X[kept] / 0.6, rtol=1e-5)


def test_dropout_does_nothing_when_not_training():
    assert np.array_equal(_run(lambda x: dropout(x, context_of(NAME, False, dropout_rate=0.4))), X)


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_half_precision_stays_near_float32_and_keeps_float32_weights(dtype):
    def build(x):
        outputs = []
        for compute in (tf.float32, dtype):
            rules = context_of(NAME, True, compute_dtype=compute)
            with tf.variable_scope("net", reuse=tf.AUTO_REUSE):
                y = conv(x, 8, Kernel(3, 2), rules, "c")
                outputs.append(tf.cast(prelu(norm(y, rules, "bn"), rules, "p"), tf.float32))
        gradient = tf.gradients(outputs[1], tf.trainable_variables())
        assert all(v.dtype.base_dtype == tf.float32 for v in tf.global_variables())
        return outputs + [tf.add_n([tf.reduce_sum(g) for g in gradient])]

    exact, half, total = _run(build)
    assert np.abs(exact - half).max() < 0.1 and np.isfinite(total)


def test_layers_mark_what_their_lineage_decays():
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [None, 4, 4, 8])
        rules = context_of("insightface_tf", True)
        y = prelu(norm(conv(x, 8, Kernel(3), rules, "c"), rules, "bn"), rules, "p")
        y = squeeze_excite(y, rules)
        norm(dense(y[:, 0, 0], 5, rules, "d"), rules, "last", gamma="frozen")
        names = [variable.op.name for variable in decayed_variables()]
    assert names == ["c/W_conv2d", "bn/gamma", "p/alphas", "d/W"]


@pytest.mark.parametrize("kind", ["xavier", "normal", "fan_out", "truncated_0.02", "torch"])
def test_an_initializer_draws_as_widely_as_its_rule(kind):
    fan_in, fan_out = 50, 200
    widths = {
        "xavier": np.sqrt(2.6 / (fan_in + fan_out)) * TRUNCATED,
        "normal": 0.1,
        "fan_out": np.sqrt(2.0 / fan_out),
        "truncated_0.02": 0.02 * TRUNCATED,
        "torch": 1.0 / np.sqrt(3.0 * fan_in),
    }
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        drawn = session.run(initializer(kind, fan_in, fan_out)([200, 300], tf.float32))
    assert abs(drawn.std() / widths[kind] - 1) < 0.02 and abs(drawn.mean()) < widths[kind] / 50


TRUNCATED = 0.8796  # standard deviation of a normal number that is cut at two of them


def test_an_unknown_initializer_is_refused():
    with pytest.raises(ValueError, match="he_normal is no initializer"):
        initializer("he_normal", 1, 1)


def test_flatten_keeps_channels_fastest():
    assert np.array_equal(_run(flatten), X.reshape(len(X), -1))


def test_conv_adds_its_bias_and_decays_it_where_the_lineage_does():
    offset = np.array([1.5, -2.0, 0.25], np.float32)

    def build(x):
        plain = conv(x, 3, Kernel(1), context_of(NAME, True), "c", bias=True)
        assert "c/b_conv2d" in [v.op.name for v in decayed_variables()]
        return plain

    y = _run(build, assign={"W_conv2d": np.zeros((1, 1, 8, 3), np.float32), "b_conv2d": offset})
    assert np.array_equal(y, np.zeros((4, 5, 6, 1), np.float32) + offset)


def test_dense_is_a_matrix_product_and_a_bias():
    weights = np.random.RandomState(0).standard_normal((8, 3)).astype(np.float32)
    offset = np.array([1, 2, 3], np.float32)
    y = _run(
        lambda x: dense(x[:, 0, 0], 3, context_of(NAME, True), "d"),
        assign={"d/W": weights, "d/b": offset},
    )
    np.testing.assert_allclose(y, X[:, 0, 0] @ weights + offset, rtol=1e-4, atol=1e-4)


def test_norm_of_vectors_equals_that_of_images_of_one_pixel():
    flat, image = _run(
        lambda x: [
            norm(x[:, 0, 0], context_of(NAME, True), "a"),
            norm(x[:, :1, :1], context_of(NAME, True), "b"),
        ]
    )
    np.testing.assert_allclose(flat, image[:, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("gamma, names", [("none", []), ("one", ["beta", "gamma"])])
def test_norm_makes_the_weights_that_its_gamma_needs(gamma, names):
    with tf.Graph().as_default():
        norm(tf.zeros([2, 3]), context_of(NAME, True), "n", gamma=gamma)
        found = sorted(v.op.name for v in tf.global_variables() if "moving" not in v.op.name)
        assert found == [f"n/{name}" for name in names]
        assert [v.op.name for v in tf.trainable_variables()] == [f"n/{n}" for n in names[:1]]


def test_convolve_pads_a_depthwise_kernel_on_both_sides():
    x, k = X[:1], np.random.RandomState(1).standard_normal((3, 3, 8, 1)).astype(np.float32)
    y = _run(lambda x: convolve(x, tf.constant(k), 1, 1, groups=8), x)
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], "constant")
    expected = (padded[:, 1:4, 2:5] * k[None, :, :, :, 0]).sum((1, 2))
    np.testing.assert_allclose(y[:, 1, 2], expected, rtol=1e-4, atol=1e-4)
