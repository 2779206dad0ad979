"""Embeddings of converted nets against the same nets in PyTorch: relative 1e-4, float32."""

import numpy as np
import pytest

from nets.weights.layout import arrays_of, tensors_of
from tests.nets.tiny_nets import UNITS, embed, images, numbers, relative, shapes_of, small_spec

torch = pytest.importorskip("torch")
nets = pytest.importorskip("tests.nets.torch_nets")

WIDTHS = (8, 16, 32, 64)


def _filled(module):
    """A module with numbers in every tensor, ready to embed."""
    state = module.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(numbers(name, tensor.shape)))
    module.load_state_dict(state)
    return module.eval()


def _module(lineage, block, pixels):
    if lineage == "arcface_torch":
        return nets.IResNet(UNITS, WIDTHS, pixels * pixels, 24)
    if lineage == "insightface_pytorch":
        return nets.Backbone(UNITS, WIDTHS, pixels * pixels, 24, False, block == "se")
    if lineage == "cvlface":
        return nets.Backbone(UNITS, WIDTHS, pixels * pixels, 24, True, block == "se")
    if lineage == "insightface_pytorch_mbf":
        return nets.MobileFaceNet(UNITS[1:], pixels, 24, by=8)
    if lineage == "arcface_torch_mbf":
        return nets.Mbf((1,) + UNITS[1:], 2, pixels, 24, by=8)
    return nets.Mbf((2,) + UNITS[1:], 4, pixels, 24, by=8)


def _torch_embeddings(net, images_NHWC):
    with torch.no_grad():
        return net(torch.from_numpy(images_NHWC.transpose(0, 3, 1, 2).astype(np.float32))).numpy()


def _convert(module, spec):
    tensors = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    arrays, left_out = arrays_of(tensors, spec, shapes_of(spec), "test")
    assert all(name.endswith("num_batches_tracked") for name in left_out)
    return arrays


@pytest.mark.parametrize(
    "lineage, block",
    [
        ("arcface_torch", "ir"),
        ("insightface_pytorch", "ir"),
        ("insightface_pytorch", "se"),
        ("cvlface", "ir"),
        ("cvlface", "se"),
        ("insightface_pytorch_mbf", "ir"),
        ("arcface_torch_mbf", "ir"),
        ("arcface_torch_mbf_large", "ir"),
    ],
)
def test_embeddings_equal_pytorchs(monkeypatch, lineage, block):
    spec = small_spec(monkeypatch, lineage, block)
    module = _filled(_module(lineage, block, spec.image_size[0] // 16))
    arrays = _convert(module, spec)
    expected = _torch_embeddings(module, images(spec))
    assert relative(embed(spec, arrays, images(spec)), expected) < 1e-4
    back = tensors_of(arrays, spec)
    for name, tensor in module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert np.array_equal(back[name], tensor.numpy()), name


def test_embeddings_equal_pytorchs_when_units_are_bottlenecks(monkeypatch):
    spec = small_spec(monkeypatch, "cvlface", "se", depth=152)
    wide = tuple(4 * width for width in WIDTHS)
    module = _filled(nets.Backbone(UNITS, wide, 4, 24, True, True, bottleneck=True))
    expected = _torch_embeddings(module, images(spec))
    assert relative(embed(spec, _convert(module, spec), images(spec)), expected) < 1e-4


@pytest.mark.parametrize("block", ["ir", "se"])
def test_embeddings_equal_mxnets_arithmetic(monkeypatch, block):
    spec = small_spec(monkeypatch, "insightface_mxnet", block)
    shapes = shapes_of(spec)
    tensors = tensors_of({name: numbers(name, shape) for name, shape in shapes.items()}, spec)
    tensors["fc1_gamma"] = numbers("any", (24,))  # fix_gamma: read as 1, whatever is stored
    net = nets.MXNetNet(
        {name: torch.from_numpy(array) for name, array in tensors.items()}, UNITS, block == "se"
    )
    arrays, _ = arrays_of(tensors, spec, shapes, "test")
    expected = _torch_embeddings(net, images(spec))
    assert relative(embed(spec, arrays, images(spec)), expected) < 1e-4


@pytest.mark.parametrize(
    "lineage, block, kind, eps",
    [
        ("insightface_tf", "ir", "batch", 2e-5),
        ("insightface_tf", "se", "batch", 2e-5),
        ("insightface_tf_wide", "ir", "batch", 2e-5),
        ("insightface_tf_wide", "se", "batch", 2e-5),
        ("insightface_tf_gn", "ir", "group", 1e-5),
        ("insightface_tf_gn", "se", "group", 1e-5),
        ("insightface_tf_renorm", "ir", "renorm", 1e-3),
    ],
)
def test_embeddings_equal_the_originals_arithmetic(monkeypatch, lineage, block, kind, eps):
    spec = small_spec(monkeypatch, lineage, block)
    arrays = {name: numbers(name, shape) for name, shape in shapes_of(spec).items()}
    net = nets.TensorFlowNet(
        {name: torch.from_numpy(array) for name, array in arrays.items()},
        UNITS,
        kind,
        block == "se",
        eps,
    )
    expected = _torch_embeddings(net, images(spec))
    assert relative(embed(spec, arrays, images(spec)), expected) < 1e-4
