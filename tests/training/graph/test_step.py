"""A step's arithmetic, on the smallest net: what each flag of training does to the weights."""

import dataclasses

import numpy as np
import pytest

from losses.face_losses import LOSSES
from runtime.flags import build
from runtime.session import session_config
from runtime.tf1 import TF2, tf
from training.config import TrainConfig
from training.graph import gradients
from training.graph.finetune import start_from
from training.graph.settings import step_settings
from training.graph.step import build_step
from training.plan import make_plan


def config_of(small, output, **settings):
    values = dict(
        tfrecords_file_path=small.shards,
        output_path=str(output),
        image_size=(small.size, small.size),
        net_depth=10,
        width=0.125,
        embedding_size=16,
        batch_size=8,
        eval_batch_size=2,
        lr=0.05,
        weight_decay=0.0,
        schedule="constant",
    )
    return build(TrainConfig, dict(values, **settings))


class Run:
    """The graph of a config with one fixed batch, in a session."""

    def __init__(self, config):
        self.config, self.plan = config, make_plan(config)
        noise = np.random.RandomState(0)
        size = tuple(config.image_size)
        images = noise.randint(0, 256, (config.batch_size,) + size + (3,)).astype(np.uint8)
        labels = np.arange(config.batch_size, dtype=np.int64) % self.plan.identities
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.set_random_seed(config.seed)
            part = config.batch_size // config.accumulate
            dataset = tf.data.Dataset.from_tensor_slices((images, labels)).repeat()
            batches = dataset.batch(part, drop_remainder=True)
            batches = tf.data.make_initializable_iterator(batches)
            self.element = batches.get_next()
            plan = self.plan
            settings = step_settings(config, plan.identities, plan.rates, plan.frozen_steps)
            self.step = build_step(settings, [self.element])
            device = session_config(config.device, xla=config.xla)
            self.session = tf.Session(config=device)
            self.session.run(batches.initializer)
            self.session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
            self.variables = tf.global_variables()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.session.close()

    def steps(self, count, *names):
        """Makes steps; the named scalars of each."""
        wanted, found = [self.step.scalars[name] for name in names], []
        for _ in range(count):
            for part in self.step.accumulate:
                self.session.run(part)
            found.append(self.session.run([self.step.train] + wanted)[1:])
        return found

    def values(self):
        found = self.session.run(self.variables)
        return {variable.op.name: value for variable, value in zip(self.variables, found)}


@pytest.fixture
def run(small, tmp_path):
    """run(**settings) -> a Run, closed after the test."""
    made = []

    def make(**settings):
        made.append(Run(config_of(small, tmp_path, **settings)))
        return made[-1]

    yield make
    for each in made:
        each.__exit__()


def trained(values):
    """The weights alone: no slots, counters or moving statistics."""
    tail = ("Momentum", "moving_mean", "moving_variance", "ExponentialMovingAverage")
    names = [name for name in values if not name.endswith(tail)]
    return {name: values[name] for name in names if name.split("/")[0] not in ("global_step",)}


def distance(before, after, names):
    return np.sqrt(sum(np.sum((after[name] - before[name]) ** 2.0) for name in names))


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_loss_falls_on_a_batch_that_it_sees_again(run, loss):
    found = run(loss=loss, lr=0.02).steps(8, "inference_loss")
    first, last = found[0][0], found[-1][0]
    assert np.isfinite(found).all() and last < first


def test_the_step_is_counted_once(run):
    run_ = run()
    run_.steps(3)
    assert run_.values()["global_step"] == 3


def test_clipping_bounds_the_first_step_by_rate_times_norm(run):
    run_ = run(clip_norm=0.01, lr=0.5)
    before = run_.values()
    (norm,) = run_.steps(1, "gradient_norm")[0]
    after = run_.values()
    assert norm > 0.01
    moved = distance(before, after, trained(before))
    assert moved == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_clipping_the_backbone_alone_leaves_the_head_free(run):
    plain, clipped = run(), run(clip_norm=1e-6, clip="backbone")
    before = plain.values()
    plain.steps(1)
    clipped.steps(1)
    free, bound = plain.values(), clipped.values()
    np.testing.assert_allclose(bound["class_centres"], free["class_centres"], rtol=1e-5, atol=1e-7)
    backbone = [name for name in trained(before) if name != "class_centres"]
    assert distance(before, bound, backbone) <= 0.05 * 1e-6 * 1.001


def test_a_batch_in_parts_gives_the_weights_of_a_whole_one(run):
    """A net without batch norm, whose statistics are of a part by their nature."""
    settings = dict(lineage="insightface_tf_vgg", net_depth=16, dropout=0.0, lr=0.001, momentum=0.5)
    whole, parts = run(**settings), run(accumulate=4, **settings)
    expected, found = [each.steps(3, "inference_loss", "accuracy") for each in (whole, parts)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    expected, found = whole.values(), parts.values()
    assert expected.keys() == found.keys()
    for name in trained(expected):
        error = np.linalg.norm(found[name] - expected[name])
        assert error <= 1e-5 * np.linalg.norm(expected[name]) + 1e-7, name


def test_recomputed_activations_give_the_same_weights(run):
    plain, again = run(), run(recompute=True)
    for each in (plain, again):
        each.steps(2)
    expected, found = plain.values(), again.values()
    assert expected.keys() == found.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-4, atol=2e-6, err_msg=name)


def test_recomputation_holds_less_at_a_time(run):
    """By TensorFlow's own trace of what is allocated and let go in a step."""
    peaks = []
    for recompute in (False, True):
        run_ = run(net_depth=18, recompute=recompute, batch_size=128, width=0.25)
        options, trace = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE), tf.RunMetadata()
        run_.steps(1)
        run_.session.run(run_.step.train, options=options, run_metadata=trace)
        changes = sorted(
            (record.alloc_micros, record.alloc_bytes)
            for device in trace.step_stats.dev_stats
            for node in device.node_stats
            for memory in node.memory
            for record in memory.allocation_records
        )
        peaks.append(np.cumsum([size for _, size in changes]).max())
    assert peaks[1] < 0.95 * peaks[0], peaks  # of tiny images much is scratch


def test_an_average_follows_the_weights(run):
    run_ = run(ema=0.9)
    before = run_.values()
    run_.steps(1)
    after = run_.values()
    averages = [name for name in after if name.endswith("ExponentialMovingAverage")]
    assert len(averages) > 20
    for name in averages:
        source = name[: -len("/ExponentialMovingAverage")]
        expected = 0.9 * before[source] + 0.1 * after[source]
        np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_an_average_is_what_is_validated(run):
    images = np.random.RandomState(1).randint(0, 256, (2, 32, 32, 3)).astype(np.uint8)

    def change(ema):
        """How far one step moves the validated embeddings, moving statistics apart."""
        run_ = run(ema=ema)
        feed = {run_.step.images_BHWC: images}
        before = run_.session.run(run_.step.plain_BD, feed)
        run_.steps(1)
        for variable in run_.variables:
            if variable.op.name.endswith(("moving_mean", "moving_variance")):
                start = 0.0 if variable.op.name.endswith("moving_mean") else 1.0
                variable.load(np.full(variable.shape.as_list(), start), run_.session)
        return np.abs(run_.session.run(run_.step.plain_BD, feed) - before).max()

    assert 0.0 < change(ema=0.999) < 0.02 * change(ema=0.0)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_begins_as_full_precision_does(run, precision, monkeypatch):
    monkeypatch.setattr(gradients, "FIRST_SCALE", 1.0)
    full = run().steps(1, "inference_loss", "gradient_norm")[0]
    half = run(precision=precision).steps(1, "inference_loss", "gradient_norm")[0]
    np.testing.assert_allclose(half, full, rtol=0.1)


def test_weights_and_statistics_stay_float32_in_half_precision(run):
    values = run(precision="fp16").values()
    kinds = {value.dtype for name, value in values.items() if not name.startswith("loss_scale")}
    assert kinds <= {np.dtype("float32"), np.dtype("int64")}


def test_an_overflow_skips_the_step_and_halves_the_scale(run, monkeypatch):
    monkeypatch.setattr(gradients, "FIRST_SCALE", 2.0**24)
    run_ = run(precision="fp16", loss="softmax", scale=1000.0)
    before = run_.values()
    run_.steps(1)
    after = run_.values()
    assert after["loss_scale/skipped_steps"] == 1
    assert after["loss_scale/value"] == 2.0**23
    for name in trained(before):
        if not name.startswith("loss_scale"):
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    assert after["global_step"] == 1


def test_a_frozen_backbone_waits_while_the_head_trains(run):
    run_ = run(freeze_backbone="2step")
    start = run_.values()
    run_.steps(2)
    frozen = run_.values()
    backbone = [name for name in trained(start) if name != "class_centres"]
    assert distance(start, frozen, backbone) == 0.0
    assert distance(start, frozen, ["class_centres"]) > 0.0
    run_.steps(1)
    assert distance(frozen, run_.values(), backbone) > 0.0


def test_the_backbone_can_move_slower_than_the_head(run):
    plain, slow = run(), run(backbone_lr_factor=0.1)
    start = plain.values()
    for each in (plain, slow):
        each.steps(1)
    backbone = [name for name in trained(start) if name != "class_centres"]
    whole = distance(start, plain.values(), backbone)
    assert distance(start, slow.values(), backbone) == pytest.approx(0.1 * whole, rel=1e-3)
    head = ["class_centres"]
    assert distance(start, slow.values(), head) == pytest.approx(
        distance(start, plain.values(), head), rel=1e-5
    )


def test_a_loss_that_is_no_number_can_be_skipped(run):
    run_ = run(on_nan="skip")
    with run_.graph.as_default():
        broken = next(v for v in run_.variables if v.op.name.endswith("E_DenseLayer/W"))
        broken.load(np.full(broken.shape.as_list(), np.nan), run_.session)
    before = run_.values()
    (finite,) = run_.steps(1, "finite")[0]
    assert not finite
    after = run_.values()
    np.testing.assert_array_equal(after["class_centres"], before["class_centres"])


def test_finetuning_takes_the_backbone_and_leaves_the_head(small, run, tmp_path):
    source = run(seed=1)
    source.steps(1)
    with source.graph.as_default():
        prefix = tf.train.Saver().save(source.session, str(tmp_path / "a_1.ckpt"))
    target = run(seed=2, num_output=9)
    with target.graph.as_default():
        start_from(target.session, prefix, target.step.backbone)
    expected, found = source.values(), target.values()
    for variable in source.step.backbone:
        name = variable.op.name
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert found["class_centres"].shape == (9, 16)


def test_finetuning_from_another_net_is_refused(small, run, tmp_path):
    source = run()
    with source.graph.as_default():
        only = [v for v in source.variables if v.op.name == "class_centres"]
        prefix = tf.train.Saver(only).save(source.session, str(tmp_path / "b_1.ckpt"))
        with pytest.raises(ValueError, match="has none of this network's"):
            start_from(source.session, prefix, source.step.backbone)


@pytest.mark.skipif(not TF2, reason="XLA is compiled into TensorFlow 2 alone")
def test_xla_gives_the_same_loss(run):
    plain = run().steps(2, "inference_loss")
    np.testing.assert_allclose(run(xla=True).steps(2, "inference_loss"), plain, rtol=1e-3)


@pytest.mark.skipif(TF2, reason="TensorFlow 2 has XLA")
def test_xla_is_refused_on_tensorflow_1():
    with pytest.raises(ValueError, match="--xla needs TensorFlow 2"):
        session_config("cpu", xla=True)


def test_settings_that_a_config_cannot_hold_are_refused(small, tmp_path):
    with pytest.raises(ValueError, match="--precision fp8 is not known"):
        config_of(small, tmp_path, precision="fp8")
    assert dataclasses.asdict(config_of(small, tmp_path))["precision"] == "fp32"


@pytest.mark.parametrize(
    "settings, sentence",
    [
        (dict(accumulate=3), "--batch_size 8 cannot be divided into --accumulate 3 equal parts"),
        (dict(accumulate=2, sample_rate=0.5, batch_size=2), "use one of them"),
        (dict(margin=(9.0,)), "--margin 9.0 is out of range"),
        (dict(lr_steps=("9step", "5step"), schedule="multistep"), "they must increase"),
    ],
)
def test_settings_that_contradict_end_before_a_graph(small, tmp_path, settings, sentence):
    with pytest.raises(ValueError, match=".*") as error:
        make_plan(config_of(small, tmp_path, **settings))
    assert sentence in str(error.value)


def test_five_seeded_steps_give_the_losses_on_record(run, request):
    """The numbers are TensorFlow's on a CPU; another TensorFlow has its own line."""
    found = [loss for (loss,) in run(net_depth=18, lr=1e-5).steps(5, "inference_loss")]
    path = request.config.rootpath / "tests" / "golden" / "losses.txt"
    recorded = dict(line.split(": ") for line in path.read_text().splitlines() if ": " in line)
    expected = [float(word) for word in recorded["2" if TF2 else "1"].split()]
    np.testing.assert_allclose(found, expected, rtol=2e-3)
