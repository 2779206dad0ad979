"""MindSpore's checkpoint has its names and layouts."""

import numpy as np
import pytest

from export.mindspore_files import parameters, read_checkpoint, write_checkpoint


def test_names_are_those_of_mindspores_iresnet(networks):
    names = set(parameters(networks("arcface_torch")))
    assert {"conv1.weight", "bn1.gamma", "prelu.w", "fc.weight", "fc.bias"} <= names
    assert {"layer1.0.downsample.1.moving_mean", "features.moving_variance"} <= names


def test_checkpoint_holds_what_was_written(networks, tmp_path):
    network = networks("arcface_torch")
    write_checkpoint(str(tmp_path / "m.ckpt"), network)
    found, expected = read_checkpoint(str(tmp_path / "m.ckpt")), parameters(network)
    assert list(found) == list(expected)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_convolutions_are_oihw_and_dense_weights_outputs_first(networks):
    found = parameters(networks("arcface_torch"))
    assert found["conv1.weight"].shape == (8, 3, 3, 3)
    assert found["fc.weight"].shape == (24, 256)


def test_another_lineage_is_refused(networks):
    with pytest.raises(ValueError, match="which insightface_tf is not"):
        parameters(networks("insightface_tf"))
