"""Layouts of tensors in other projects against NumPy, and the error that lists what differs."""

import numpy as np
import pytest

from nets.lineages import NetSpec
from nets.weights.layout import (
    arrays_of,
    describe,
    differences,
    feature_map,
    tensors_of,
    to_ours,
    to_theirs,
)
from nets.weights.name_maps import their_name
from tests.nets.tiny_nets import numbers, shapes_of

SPEC = NetSpec("arcface_torch", 18, "ir", 0.125, 24, (32, 48))


@pytest.fixture(scope="module")
def shapes():
    return shapes_of(SPEC)


def test_the_feature_map_is_a_sixteenth_rounded_up():
    assert feature_map(SPEC) == (2, 3)
    assert feature_map(NetSpec(image_size=(112, 96))) == (7, 6)
    assert feature_map(NetSpec(image_size=(100, 112))) == (7, 7)


def test_a_convolution_is_oihw_there_and_hwio_here():
    theirs = np.arange(5 * 4 * 3 * 2, dtype=np.float32).reshape(5, 4, 3, 2)
    ours = to_ours(theirs, "net/conv1/W_conv2d", [3, 2, 4, 5], SPEC)
    assert ours[1, 0, 3, 4] == theirs[4, 3, 1, 0]
    assert np.array_equal(to_theirs(ours, "net/conv1/W_conv2d", SPEC), theirs)


def test_a_depthwise_convolution_is_c1hw_there_and_hwc1_here():
    theirs = np.arange(5 * 3 * 2, dtype=np.float32).reshape(5, 1, 3, 2)
    ours = to_ours(theirs, "net/conv1/W_conv2d", [3, 2, 5, 1], SPEC)
    assert ours[2, 1, 4, 0] == theirs[4, 0, 2, 1]
    assert np.array_equal(to_theirs(ours, "net/conv1/W_conv2d", SPEC), theirs)


def test_the_first_dense_layer_reads_chw_there_and_hwc_here():
    height, width, channels, size = 2, 3, 4, 5
    theirs = np.arange(size * channels * height * width, dtype=np.float32).reshape(size, -1)
    ours = to_ours(theirs, "net/E_DenseLayer/W", [height * width * channels, size], SPEC)
    row, column, channel = 1, 2, 3
    there = theirs[4, channel * height * width + row * width + column]
    assert ours[(row * width + column) * channels + channel, 4] == there
    assert np.array_equal(to_theirs(ours, "net/E_DenseLayer/W", SPEC), theirs)


def test_mxnets_last_gamma_counts_as_one():
    spec = NetSpec("insightface_mxnet", 18)
    found = to_ours(np.full(3, 7.0), "net/E_BN2/gamma", [3], spec)
    assert np.array_equal(found, np.ones(3))


def test_there_and_back_again_is_the_same(shapes):
    arrays = {name: numbers(name, shape) for name, shape in shapes.items()}
    found, skipped = arrays_of(tensors_of(arrays, SPEC), SPEC, shapes, "a.npz")
    assert not skipped and found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


def test_counters_and_class_weights_are_skipped(shapes):
    arrays = {name: numbers(name, shape) for name, shape in shapes.items()}
    extra = {"bn1.num_batches_tracked": np.zeros(()), "head.weight": np.zeros((9, 24))}
    tensors = dict(tensors_of(arrays, SPEC), **extra)
    assert arrays_of(tensors, SPEC, shapes, "a.npz")[1] == list(extra)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda tensors: tensors.pop("fc.bias"), "1 missing: fc.bias"),
        (lambda tensors: tensors.update(odd=np.zeros(2)), "1 extra: odd"),
        (lambda tensors: tensors.update({"fc.bias": np.zeros(2)}), "fc.bias 2 instead of 24"),
    ],
)
def test_what_does_not_fit_is_listed(shapes, change, message):
    arrays = {name: numbers(name, shape) for name, shape in shapes.items()}
    tensors = tensors_of(arrays, SPEC)
    change(tensors)
    with pytest.raises(ValueError, match=message):
        arrays_of(tensors, SPEC, shapes, "a.npz")


def test_the_error_names_the_net_that_would_fit(shapes):
    arrays = {name: numbers(name, shape) for name, shape in shapes.items()}
    other = NetSpec("arcface_torch", 34, "ir", 0.125, 24, (32, 48))
    with pytest.raises(ValueError, match="fit --lineage arcface_torch --net_depth 18 --width 0.12"):
        arrays_of(tensors_of(arrays, SPEC), other, shapes_of(other), "a.npz")


def test_differences_list_ten_of_each_kind():
    missing = {f"v{number:02}": (1,) for number in range(12)}
    assert differences(missing, missing) == ""
    listed = differences(missing, {})
    assert listed.startswith("12 missing: v00") and listed.endswith("v09, ...")


def test_a_spec_is_described_by_the_flags_that_select_it():
    assert describe(NetSpec()) == "--lineage arcface_torch --net_depth 100"
    spec = NetSpec("insightface_tf", 18, "se", 0.5, 128, (112, 96))
    expected = "--lineage insightface_tf --net_depth 18 --se --width 0.5 --embedding_size 128"
    assert describe(spec) == expected + " --image_size 112,96"
    assert describe(NetSpec("arcface_torch_mbf")) == "--lineage arcface_torch_mbf"


def test_names_that_we_write_ourselves_keep_their_layout():
    spec = NetSpec("insightface_tf", 18)
    value = numbers("a", [3, 3, 4, 5])
    assert their_name("net/conv1/W_conv2d", spec) == "net/conv1/W_conv2d"
    assert np.array_equal(to_theirs(value, "net/conv1/W_conv2d", spec), value)
