"""What is no number is named, its batch kept, and the run ended or led on."""

import numpy as np
import pytest

from runtime.distributed.ranks import SINGLE
from runtime.tf1 import tf
from runtime.variables import weight
from tests.training.graph.test_step import config_of
from training.graph.gradients import clip_gradients, nonfinite_names
from training.hooks.nonfinite import NonFiniteGuard, NonFinitePolicy

BATCH = {"images": np.ones([2, 3, 3, 3], np.uint8), "labels": np.array([4, 7])}


def names_of(loss, embeddings, slopes):
    with tf.Graph().as_default(), tf.Session() as session:
        pairs = [
            (tf.constant(slope, tf.float32), weight(f"layer{i}/W", [2], tf.zeros_initializer()))
            for i, slope in enumerate(slopes)
        ]
        named = nonfinite_names(
            tf.constant(loss), tf.constant(embeddings), clip_gradients(pairs, [])
        )
        return session.run(named).decode().splitlines()


def test_what_is_no_number_is_named():
    nan, inf = float("nan"), float("inf")
    assert names_of(2.0, [[1.0, -2.0]], [[1.0, 2.0], [3.0, 4.0]]) == []
    assert names_of(2.0, [[1.0, -2.0]], [[1.0, 2.0], [inf, 4.0]]) == ["gradient of layer1/W"]
    assert names_of(nan, [[1.0, inf]], [[nan, 2.0], [3.0, 4.0]]) == [
        "loss",
        "embeddings",
        "gradient of layer0/W",
    ]


def guard(small, tmp_path, **settings):
    config = config_of(small, tmp_path, **settings)
    (tmp_path / "logs").mkdir()
    return NonFiniteGuard(NonFinitePolicy.of(config, SINGLE), lambda step: BATCH)


def values(*names, loss=3.5):
    text = "\n".join(names).encode()
    return {"nonfinite_names": text, "inference_loss": loss, "learning_rate": 0.25}


def test_stop_names_tensor_step_rate_and_file(small, tmp_path):
    watch = guard(small, tmp_path)
    watch.after(6, values(), 0.1)
    bad = values("loss", "gradient of conv1/W", loss=float("nan"))
    with pytest.raises(ValueError) as error:
        watch.after(7, bad, 0.1)
    path = str(tmp_path / "logs" / "nonfinite_step_7.npz")
    said = str(error.value)
    assert said.startswith(
        "step 7: loss and another tensor are not finite (first: gradient of conv1/W) at learning "
        f"rate 0.25, its batch is in {path}; skip such steps with --on_nan skip"
    )
    assert "none, as nothing was saved yet" in said
    kept = np.load(path)
    np.testing.assert_array_equal(kept["labels"], [4, 7])
    assert kept["step"] == 7 and kept["learning_rate"] == 0.25 and kept["images"].sum() == 54


def test_skip_goes_on_until_too_many_come_in_a_row(small, tmp_path, caplog):
    watch = guard(small, tmp_path, on_nan="skip", max_skipped=2)
    bad = values("gradient of conv1/W")
    for step in (1, 2, 4, 5):
        watch.after(step, bad, 0.1)
        watch.after(step, values(), 0.1) if step == 2 else None
    assert "is skipped (4 so far)" in caplog.text
    with pytest.raises(ValueError, match="step 6: .* 3 in a row, more than --max_skipped"):
        watch.after(6, bad, 0.1)


def test_an_overflow_of_scaled_gradients_is_the_scales_to_answer(small, tmp_path, caplog):
    caplog.set_level("INFO")
    watch = guard(small, tmp_path, precision="fp16", max_skipped=1)
    bad = values("gradient of conv1/W")
    watch.after(1, bad, 0.1)
    assert "in fp16; the step is skipped and its scale halved" in caplog.text
    assert not list((tmp_path / "logs").iterdir())
    with pytest.raises(ValueError, match="2 in a row"):
        watch.after(2, bad, 0.1)
    with pytest.raises(ValueError, match="is not finite"):
        guard_of_loss = NonFiniteGuard(watch.policy, lambda step: BATCH)
        guard_of_loss.after(1, values("loss", loss=float("inf")), 0.1)


def test_where_names_cannot_be_had_the_loss_speaks(small, tmp_path):
    config = config_of(small, tmp_path)
    (tmp_path / "logs").mkdir()
    watch = NonFiniteGuard(NonFinitePolicy.of(config, SINGLE), lambda step: BATCH, has_names=False)
    assert "nonfinite_names" not in watch.wants(1)
    watch.after(1, {"inference_loss": 2.0, "learning_rate": 0.1}, 0.1)
    with pytest.raises(ValueError, match="step 2: loss is not finite"):
        watch.after(2, {"inference_loss": float("nan"), "learning_rate": 0.1}, 0.1)
