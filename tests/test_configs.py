"""Each file in configs/ is a run that could start: parsed, checked, and opened by its command."""

import glob
import os
import re

import pytest

from losses.face_losses import find_loss
from runtime.flags import parse_flags
from training.config import TrainConfig
from training.graph import schedule

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PATHS = sorted(glob.glob(os.path.join(ROOT, "configs", "*.yaml")))


def parsed(path):
    """The config of a file; configs/own.yaml is for data that the command line names."""
    return parse_flags(TrainConfig, ["--tfrecords_file_path", "faces", "--config", path])


@pytest.mark.parametrize("path", PATHS, ids=os.path.basename)
def test_a_config_is_a_run_that_could_start(path):
    config = parsed(path)
    assert config.net_spec().row.name == config.lineage
    find_loss(config.loss, config.margin, config.scale)
    images, batch_size = 490623, config.batch_size
    total = schedule.steps_of(config.epoch, images, batch_size, "ep", "epoch")
    for flag in ("warmup", "ckpt_interval", "validate_interval"):
        schedule.steps_of(getattr(config, flag), images, batch_size, "step", flag, total)
    changes = schedule.boundaries(config.lr_steps, images, batch_size, total)
    assert config.schedule != "piecewise" or len(config.lr_factors) == len(changes) + 1
    assert config.augmentation().flip == 0.5


@pytest.mark.parametrize("path", PATHS, ids=os.path.basename)
def test_a_config_opens_with_its_command(path):
    first = head(path)[0]
    assert first.startswith("# python3 train_nets")
    assert f"--config configs/{os.path.basename(path)}" in first


def head(path):
    with open(path, encoding="utf-8") as stream:
        return stream.readlines()[:12]


@pytest.mark.parametrize("path", PATHS, ids=os.path.basename)
def test_the_rate_of_a_config_changes_within_its_run(path):
    """On as many images as its head says, at its own batch."""
    said = re.search(r"([0-9,]+) images of", "".join(head(path)))
    config = parsed(path)
    if said is None or config.schedule not in ("piecewise", "multistep"):
        return
    images = int(said.group(1).replace(",", ""))
    total = schedule.steps_of(config.epoch, images, config.batch_size, "ep", "epoch")
    changes = schedule.boundaries(config.lr_steps, images, config.batch_size)
    assert changes[-1] < total or "never left" in "".join(head(path)), (changes, total)


@pytest.mark.parametrize("name, devices", [("8p", 8), ("32p", 32)])
def test_a_config_for_many_devices_shares_its_batch_among_them(name, devices):
    paths = [path for path in PATHS if path.endswith(f"_{name}.yaml")]
    assert paths
    for path in paths:
        command, batch = head(path)[0], parsed(path).batch_size
        each = int(re.search(r"--num_devices (\d+)", command).group(1))
        hosts = re.search(r"--worker_hosts (\S+)", command)
        assert each * (len(hosts.group(1).split(",")) if hosts else 1) == devices
        assert batch % devices == 0


@pytest.mark.parametrize("images", [300, 6000, 500000])
def test_the_config_for_own_faces_validates_and_saves_ten_times_at_any_size(images):
    config = parsed(os.path.join(ROOT, "configs", "own.yaml"))
    total = schedule.steps_of(config.epoch, images, config.batch_size, "ep", "epoch")
    for flag in ("validate_interval", "ckpt_interval"):
        interval = schedule.steps_of(
            getattr(config, flag), images, config.batch_size, flag=flag, total_steps=total
        )
        assert 9 <= total // interval <= 10
