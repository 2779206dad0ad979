"""from inference import Embedder: importing it loads no runtime."""

import subprocess
import sys

import pytest

import inference
from tests.test_architecture import ROOT


def test_importing_the_class_loads_no_runtime():
    code = (
        "import sys; from inference import Embedder; "
        "names = ('tensorflow', 'torch', 'matplotlib', 'onnx', 'onnxruntime', 'openvino'); "
        "assert not [name for name in names if name in sys.modules]"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Embed'"):
        inference.Embed  # noqa: B018


def test_every_public_name_is_the_embedders_module():
    for name in inference.__all__:
        assert getattr(inference, name).__module__.startswith("inference.")
