"""Each file in configs/ is a run that could start: parsed, checked, and opened by its command."""

import glob
import os

import pytest

from losses.face_losses import find_loss
from runtime.flags import parse_flags
from training import schedule
from training.config import TrainConfig

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PATHS = sorted(glob.glob(os.path.join(ROOT, "configs", "*.yaml")))


@pytest.mark.parametrize("path", PATHS, ids=os.path.basename)
def test_a_config_is_a_run_that_could_start(path):
    config = parse_flags(TrainConfig, ["--config", path])
    assert config.net_spec().row.name == config.lineage
    find_loss(config.loss, config.margin, config.scale)
    images = 490623
    for flag, plain in (("epoch", "ep"), ("warmup", "step"), ("ckpt_interval", "step")):
        schedule.steps_of(getattr(config, flag), images, config.batch_size, plain, flag)
    changes = schedule.boundaries(config.lr_steps, images, config.batch_size)
    assert config.schedule != "piecewise" or len(config.lr_factors) == len(changes) + 1
    assert config.augmentation().flip == 0.5


@pytest.mark.parametrize("path", PATHS, ids=os.path.basename)
def test_a_config_opens_with_its_command(path):
    with open(path, encoding="utf-8") as stream:
        first = stream.readline()
    assert first.startswith("# python3 train_nets")
    assert f"--config configs/{os.path.basename(path)}" in first
