"""What a training on an Ascend NPU refuses, and which values it changes."""

import json

import pytest

from runtime.device import strategy
from runtime.flags import build
from runtime.npu.training_limits import adapt, profile_options
from training.config import MultiDeviceConfig


def config_of(**settings):
    values = dict(tfrecords_file_path="unused", batch_size=8, device="npu")
    return build(MultiDeviceConfig, dict(values, **settings))


def test_validation_takes_the_shape_that_training_compiles():
    assert adapt(config_of(eval_batch_size=64), 2).eval_batch_size == 2  # and their mirrors: 4
    assert adapt(config_of(precision="fp16"), 1).precision == "fp32"


@pytest.mark.parametrize("batch, cards", [(8, 3), (6, 2), (7, 1)])
def test_a_batch_that_cards_cannot_share_evenly_is_refused(batch, cards):
    with pytest.raises(ValueError, match=f"pass a multiple of {2 * cards}"):
        adapt(config_of(batch_size=batch), cards)


@pytest.mark.parametrize(
    "flag, value", [("precision", "bf16"), ("recompute", True), ("ema", 0.9), ("accumulate", 2)]
)
def test_a_flag_that_the_device_cannot_follow_is_refused(flag, value):
    with pytest.raises(ValueError, match=f"--{flag} {value} cannot be used with --device npu"):
        adapt(config_of(**{flag: value}), 1)


def test_another_device_logs_which_flags_have_no_effect(caplog):
    caplog.set_level("INFO")
    config = config_of(device="cpu", hccl_timeout=600, npu_option=("deterministic=1",))
    assert strategy("cpu").adapt(config, 1) is config
    assert "--hccl_timeout, --npu_option is for --device npu and has" in caplog.text


def test_a_profile_is_the_adapters(tmp_path):
    config = adapt(config_of(profile="2:3", output_path=str(tmp_path)), 1)
    assert config.profiling_mode is True and str(tmp_path) in config.profiling_options


def test_the_card_is_told_where_to_write(tmp_path):
    said = profile_options(str(tmp_path / "new"))
    assert said["profiling_mode"] is True and (tmp_path / "new").is_dir()
    assert json.loads(said["profiling_options"])["output"] == str(tmp_path / "new")
