import json

import numpy as np
import pytest

from inference.preprocessing import (
    Preprocessing,
    from_flags,
    from_insightface_manifest,
    from_metadata,
    from_node_names,
    to_input,
)
from tests.inference.tiny_models import IMAGES, MEAN, METADATA, SCALE

RGB = IMAGES[:2]


def test_scale_and_mean_are_those_of_the_graph():
    found = to_input(RGB, Preprocessing("RGB", (127.5,), 128.0, ""), False, "float32")
    expected = (RGB.astype(np.float32) - np.float32(127.5)) / np.float32(128)
    np.testing.assert_array_equal(found, expected)


def test_bgr_reverses_the_channels():
    found = to_input(RGB, Preprocessing("BGR", (0.0,), 1.0, ""), True, "float32")
    np.testing.assert_array_equal(found, RGB[..., ::-1].transpose(0, 3, 1, 2))


def test_each_channel_has_its_mean():
    found = to_input(RGB, Preprocessing("RGB", (1.0, 2.0, 3.0), 1.0, ""), True, "float32")
    np.testing.assert_array_equal(found[:, 2], RGB[..., 2].astype(np.float32) - 3)


@pytest.mark.parametrize("channels_first", [True, False])
def test_the_input_is_contiguous(channels_first):
    preprocessing = Preprocessing("BGR", (0.0,), 1.0, "")
    assert to_input(RGB[:, :, ::-1], preprocessing, channels_first, "uint8").flags.c_contiguous


def test_scaled_metadata_leaves_the_scaling_to_the_caller():
    assert from_metadata(METADATA)[:3] == ("BGR", (MEAN,), SCALE)


@pytest.mark.parametrize("form", ["raw", "uint8"])
def test_other_input_forms_take_rgb_as_it_is(form):
    assert from_metadata(METADATA._replace(input_form=form)).is_identity


@pytest.mark.parametrize(
    "names, mean, scale",
    [
        (["Sub_0", "Mul_1", "Conv"], 0.0, 1.0),
        (["_minusscalar0", "_mulscalar0"], 0.0, 1.0),
        (["Sub_0", "Conv"], 127.5, 127.5),
        (["/Sub", "/Mul"], 127.5, 127.5),
        (["Conv"] * 8 + ["Sub", "Mul"], 127.5, 127.5),
    ],
)
def test_a_foreign_file_follows_insightface(names, mean, scale):
    assert from_node_names(names)[:3] == ("RGB", (mean,), scale)


def test_no_flags_are_no_preprocessing():
    assert from_flags(None, (), None) is None


def test_a_flag_that_is_missing_is_insightfaces():
    assert from_flags("BGR", (), None)[:3] == ("BGR", (127.5,), 127.5)


@pytest.mark.parametrize(
    "flags, message",
    [
        (("GRB", (), None), "--pixels GRB is not known"),
        ((None, (1.0, 2.0), None), "--mean has 2 values"),
        ((None, (), 0.0), "--scale 0.0 is out of range"),
    ],
)
def test_wrong_flags_are_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        from_flags(*flags)


def _manifest(directory, preprocessing):
    task = {"file": "a.onnx", "preprocessing": preprocessing}
    content = {"manifest_version": 2, "tasks": {"recognition": task}}
    (directory / "manifest.json").write_text(json.dumps(content))
    return from_insightface_manifest(str(directory / "a.onnx"))


def test_insightfaces_manifest_gives_mean_and_std(tmp_path):
    assert _manifest(tmp_path, {"mean": 127.5, "std": 128.0})[:3] == ("RGB", (127.5,), 128.0)


def test_insightfaces_manifest_says_that_the_model_scales(tmp_path):
    assert _manifest(tmp_path, "embedded").is_identity


def test_a_manifest_of_another_file_is_ignored(tmp_path):
    _manifest(tmp_path, "embedded")
    assert from_insightface_manifest(str(tmp_path / "b.onnx")) is None
