"""The values of a graph come from the flags of the same names."""

import pytest

from runtime.flags import build
from training.config import MultiDeviceConfig
from training.graph.settings import step_settings


def settings_of(**flags):
    config = build(MultiDeviceConfig, dict(tfrecords_file_path="unused", **flags))
    return step_settings(config, identities=11, frozen_steps=3)


@pytest.mark.parametrize(
    "part, flags",
    [
        ("backbone", dict(dropout=0.25, precision="bf16", recompute=True, ema=0.9)),
        ("backbone", dict(sync_batch_norm=True)),
        ("head", dict(loss="cosface", margin=(0.3,), scale=32.0, sample_rate=0.5, sub_centers=2)),
        ("head", dict(past_pi="none", margin_gradient="straight_through", draw_groups=4, seed=7)),
        ("update", dict(optimizer="lars", momentum=0.8, weight_decay=0.1, clip_norm=2.0)),
        ("update", dict(clip="backbone", wire="bf16", backbone_lr_factor=0.5, layer_lr_decay=0.9)),
    ],
)
def test_each_part_has_the_values_of_its_flags(part, flags):
    found = getattr(settings_of(**flags), part)
    assert {name: getattr(found, name) for name in flags} == flags


def test_identities_and_frozen_steps_are_those_of_the_plan():
    found = settings_of()
    assert (found.head.identities, found.update.frozen_steps) == (11, 3)


def test_without_rates_the_learning_rate_is_constant():
    rates = settings_of(lr=0.25).rates
    assert (rates.schedule, rates.peak_rate) == ("constant", 0.25)


@pytest.mark.parametrize("precision, scaled", [("fp32", False), ("bf16", False), ("fp16", True)])
def test_only_half_precision_scales_the_loss(precision, scaled):
    assert settings_of(precision=precision).update.loss_scaling is scaled
