"""Checkpoints and their records; the original's checkpoints, which have none."""

import os

import numpy as np
import pytest

from checkpoint.format import find_checkpoints, read_record, write_record
from checkpoint.reader import restore, spec_of, variable_arrays
from checkpoint.writer import save_arrays
from nets.lineages import NetSpec
from nets.weights.name_maps import canonical
from runtime.tf1 import tf
from tests.nets.tiny_nets import numbers, shapes_of, shrink, small_spec

SPEC = NetSpec("insightface_tf", 18, "se", 0.125, 24, (32, 32))
TINY = {"a/W": [64, 64]}


def write(prefix, shapes, spec=None):
    """A checkpoint of numbers under any names, with a record where a spec is given."""
    arrays = {name: numbers(canonical(name), shape) for name, shape in shapes.items()}
    save_arrays(str(prefix), arrays, {"step": 0, "net": spec.to_json() if spec else {}})
    if spec is None:
        os.remove(f"{prefix}.json")
    return str(prefix)


def respelled(shapes):
    """The names as TensorLayer 1.8 and later wrote them."""
    spelled = {}
    for name, shape in shapes.items():
        name = name.replace("prelu_layer/alphas", "PReLULayer/alpha")
        if name.endswith(("/W_conv2d", "/W")):
            name = name.rsplit("/", 1)[0] + "/kernel"
        spelled[name.replace("E_DenseLayer/b", "E_DenseLayer/bias")] = shape
    return spelled


def test_record_comes_back(tmp_path):
    prefix = str(tmp_path / "InsightFace_iter_7.ckpt")
    write_record(prefix, {"step": 7, "net": SPEC.to_json()})
    assert read_record(prefix)["step"] == 7
    assert spec_of(prefix) == SPEC


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"step": 1}', '{"net": {"lineage": "arcface_torch", "x": 1}}']
)
def test_a_broken_record_is_refused_in_a_sentence(tmp_path, text):
    (tmp_path / "a.ckpt.json").write_text(text)
    with pytest.raises(ValueError, match="^[^\n]*$"):
        spec_of(str(tmp_path / "a.ckpt"))


def test_a_prefix_or_directory_without_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no checkpoint"):
        find_checkpoints(str(tmp_path))
    with pytest.raises(ValueError, match="names no checkpoint"):
        find_checkpoints(str(tmp_path / "x.ckpt"))


@pytest.mark.parametrize(
    "lineage, block, depth, spell",
    [
        ("insightface_tf", "ir", 50, dict),
        ("insightface_tf", "se", 50, respelled),
        ("insightface_tf_wide", "ir", 100, dict),
        ("insightface_tf_gn", "se", 50, dict),
        ("insightface_tf_vgg", "ir", 16, dict),
        ("insightface_tf_resnet", "se", 50, dict),
    ],
)
def test_the_originals_checkpoints_say_their_lineage_by_their_names(
    tmp_path, monkeypatch, lineage, block, depth, spell
):
    shrink(monkeypatch, lineage, depth)
    side = 112 if lineage.endswith(("vgg", "resnet")) else 32
    spec = NetSpec(lineage, depth, block, 0.125, 24, (side, side))
    shapes = spell(shapes_of(spec))
    shapes["arcface_loss/embedding_weights"] = [24, 5]
    assert spec_of(write(tmp_path / "a.ckpt", shapes)) == spec


def test_renorm_is_recognised_by_what_its_training_kept(tmp_path, monkeypatch):
    spec = small_spec(monkeypatch, "insightface_tf_renorm")
    shapes = shapes_of(spec)
    shapes["resnet_v1_50/bn0/renorm_mean"] = [8]
    assert spec_of(write(tmp_path / "a.ckpt", shapes)) == spec


def test_another_lineages_checkpoint_without_its_record_is_refused(tmp_path):
    shapes = shapes_of(NetSpec("arcface_torch", 18, "ir", 0.125, 24, (32, 32)))
    with pytest.raises(ValueError, match="json is missing"):
        spec_of(write(tmp_path / "a.ckpt", shapes))


@pytest.mark.parametrize("spell", [dict, respelled])
def test_restore_fills_every_variable_whatever_the_spelling(tmp_path, monkeypatch, spell):
    spec = small_spec(monkeypatch, "insightface_tf", "se")
    shapes = shapes_of(spec)
    prefix = write(tmp_path / "a.ckpt", spell(shapes), spec)
    with tf.Graph().as_default(), tf.Session() as session:
        variables = [tf.get_variable(name, shape) for name, shape in shapes.items()]
        restore(session, prefix, variables)
        for variable, value in zip(variables, session.run(variables)):
            assert np.array_equal(value, numbers(variable.op.name, value.shape))
    arrays = variable_arrays(prefix, list(shapes))
    assert {name: list(array.shape) for name, array in arrays.items()} == shapes


def test_restore_lists_what_does_not_fit_and_names_the_net_that_would(tmp_path):
    prefix = write(tmp_path / "a.ckpt", shapes_of(SPEC))
    other = {"resnet_v1_34/conv1/W_conv2d": [3, 3, 3, 8], "resnet_v1_18/bn0/beta": [9]}
    with tf.Graph().as_default(), tf.Session() as session:
        variables = [tf.get_variable(name, shape) for name, shape in other.items()]
        with pytest.raises(ValueError, match="^[^\n]*$") as error:
            restore(session, prefix, variables)
    assert "1 missing: resnet_v1_34/conv1/W_conv2d" in str(error.value)
    assert "resnet_v1_18/bn0/beta 8 instead of 9" in str(error.value)
    assert "--net_depth 18 --se" in str(error.value)


@pytest.mark.parametrize("ending", [".index", ".data-00000-of-00001"])
def test_a_damaged_checkpoint_is_refused_in_a_sentence(tmp_path, ending):
    prefix = write(tmp_path / "a.ckpt", TINY, SPEC)
    with open(prefix + ending, "r+b") as stream:
        stream.truncate(20)
    with tf.Graph().as_default(), tf.Session() as session:
        with pytest.raises(ValueError, match="^[^\n]*$"):
            restore(session, prefix, [tf.get_variable("a/W", [64, 64])])


def test_an_unwritable_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((ValueError, OSError)):
        write(tmp_path / "file" / "a.ckpt", TINY, SPEC)
