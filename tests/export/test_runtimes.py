"""What each input form feeds, and which runtimes open a file."""

import numpy as np
import pytest

from export import runtimes
from nets.lineages import NetSpec
from tests.nets.tiny_nets import images

BGR = NetSpec("insightface_tf", image_size=(32, 48))  # (x - 127.5) / 128


def test_uint8_is_the_image():
    images_NHWC = images(BGR)
    assert runtimes.input_of(images_NHWC, BGR, "uint8") is images_NHWC


def test_raw_is_rgb_channels_first():
    images_NHWC = images(BGR)
    expected_NCHW = images_NHWC.transpose(0, 3, 1, 2).astype(np.float32)
    assert np.array_equal(runtimes.input_of(images_NHWC, BGR, "raw"), expected_NCHW)


def test_scaled_has_the_lineages_channel_order_and_scale():
    images_NHWC = images(BGR)
    expected_NCHW = (images_NHWC[..., ::-1].transpose(0, 3, 1, 2) - np.array(127.5)) / 128
    found_NCHW = runtimes.input_of(images_NHWC, BGR, "scaled")
    assert found_NCHW.dtype == np.float32
    assert np.allclose(found_NCHW, expected_NCHW, rtol=1e-6, atol=1e-6)


def test_a_missing_module_is_none_or_a_sentence_with_what_to_install():
    assert runtimes.optional("no_such_module") is None
    with pytest.raises(ValueError, match="int8 needs no_such_module; pip install some-package"):
        runtimes.required("no_such_module", "some-package", "int8")


def test_onnx_files_open_in_every_installed_runtime_and_not_before_they_are_called():
    found = runtimes.open_onnx("no such file")
    installed = [name for name in ("onnxruntime", "openvino") if runtimes.optional(name)]
    assert list(found) == installed
