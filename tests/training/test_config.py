"""The configuration of a run: what derives from it, and what a resumed run may change."""

import dataclasses

import pytest

from nets.lineages import NetSpec
from runtime.flags import build
from training.config import MultiDeviceConfig, TrainConfig, adopt_net, check_resumable


def config_of(config_class=TrainConfig, **flags):
    return build(config_class, dict(tfrecords_file_path="shards", **flags))


def resume(before, now):
    saved = dataclasses.asdict(config_of(**before))
    check_resumable(config_of(**now), saved, "run/ckpt")


@pytest.mark.parametrize(
    "flags", [dict(lr=0.2), dict(batch_size=64), dict(loss="cosface"), dict(seed=1), dict(ema=0.9)]
)
def test_a_resumed_run_keeps_what_changes_its_numbers(flags):
    (name,) = flags
    with pytest.raises(ValueError, match=f"run/ckpt was trained with --{name} "):
        resume({}, flags)


@pytest.mark.parametrize(
    "flags",
    [
        dict(device="gpu"),
        dict(validate_interval="5"),
        dict(output_path="elsewhere"),
        dict(peak_tflops=10.0),
        dict(npu_option=("deterministic=1",)),
    ],
)
def test_a_resumed_run_may_change_what_does_not(flags):
    resume({}, flags)


@pytest.mark.parametrize("schedule", ["piecewise", "constant"])
def test_a_run_may_become_longer_where_its_rate_does_not_depend_on_its_length(schedule):
    resume(dict(epoch="1", schedule=schedule), dict(epoch="2", schedule=schedule))


@pytest.mark.parametrize(
    "flags", [dict(schedule="cosine"), dict(lr_steps=("0.5run",)), dict(warmup="0.1run")]
)
def test_a_run_may_not_become_longer_where_it_does(flags):
    with pytest.raises(ValueError, match="--epoch 1, but this run"):
        resume(dict(epoch="1", **flags), dict(epoch="2", **flags))


def test_a_flag_that_had_another_name_is_still_compared():
    saved = dataclasses.asdict(config_of())
    saved["beyond"] = saved.pop("past_pi")
    check_resumable(config_of(), saved, "run/ckpt")
    with pytest.raises(ValueError, match="--past_pi line"):
        check_resumable(config_of(past_pi="none"), saved, "run/ckpt")


def test_finetuning_takes_the_network_where_its_flags_have_their_defaults():
    spec = NetSpec(lineage="cvlface", net_depth=50, embedding_size=256)
    found = adopt_net(config_of(width=0.5), spec)
    assert (found.lineage, found.net_depth, found.embedding_size) == ("cvlface", 50, 256)
    assert found.width == 0.5


def test_a_directory_is_below_the_output_unless_it_has_a_flag():
    config = config_of(output_path="run", ckpt_path="elsewhere")
    assert (config.directory("ckpt"), config.directory("logs")) == ("elsewhere", "run/logs")


def test_single_probabilities_change_the_recipe():
    found = config_of(augment="flip", augment_jpeg=0.25).augmentation()
    assert (found.flip, found.jpeg, found.crop) == (0.5, 0.25, 0.0)


def test_an_image_size_of_one_number_is_refused():
    with pytest.raises(ValueError, match="--image_size 112 is not a height and a width"):
        config_of(image_size=(112,))


def test_one_device_has_the_cluster_of_the_defaults():
    assert config_of().cluster == config_of(MultiDeviceConfig, num_devices=1).cluster
