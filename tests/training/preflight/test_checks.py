"""What is looked at before the first step: faults are found, and a sound run is left as it was."""

import os
import shutil

import cv2
import numpy as np
import pytest

import train_nets
from data.eval_data_reader import write_pairs
from data.formats.tfrecord import example_bytes, parse_example
from nets import L_Resnet_E_IR, build
from nets.build import scale_pixels
from nets.lineages import NetSpec
from runtime.tf1 import tf
from tests.conftest import draw
from tests.data.tiny_shards import write_shard
from tests.test_end_to_end import flags
from tests.training.graph.test_step import config_of, run  # noqa: F401
from training.plan import make_plan
from training.preflight.checks import (
    PreflightRun,
    check_preprocessing_matches,
    chosen_pairs,
    explain_loss,
    preflight,
)
from training.preflight.first_batch import records


def checked(each, first=0):
    preflight(each.session, each.step, each.element, PreflightRun(each.config, each.plan, first))


def test_a_sound_run_is_told_in_one_line_and_left_as_it_was(small, run, caplog):  # noqa: F811
    caplog.set_level("INFO")
    run_ = run(eval_db_path=small.folder, eval_datasets=("lfw", "cfp_fp"))
    before = run_.values()
    checked(run_)
    line = next(line for line in caplog.messages if line.startswith("checked in"))
    assert "8 images of" in line and "20 pairs of lfw, cfp_fp can be evaluated" in line
    assert "the loss starts near" in caplog.text and "WARNING" not in caplog.text
    after = run_.values()
    for name in before:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


def test_embeddings_that_are_the_same_for_all_images_are_refused(run):  # noqa: F811
    run_ = run()
    for variable in run_.variables:
        if variable.op.name.endswith("W_conv2d"):
            variable.load(np.zeros(variable.shape.as_list(), np.float32), run_.session)
    with pytest.raises(ValueError, match="images are the same before the first step: "):
        checked(run_)
    with pytest.raises(ValueError, match="the checkpoint's network ignores its input"):
        checked(run_, first=5)


def test_a_net_that_gives_no_numbers_is_refused(run):  # noqa: F811
    run_ = run()
    broken = next(v for v in run_.variables if v.op.name.endswith("E_DenseLayer/W"))
    broken.load(np.full(broken.shape.as_list(), np.nan), run_.session)
    with pytest.raises(ValueError, match="loss is nan and 8 of 8 embeddings are not finite"):
        checked(run_)


def test_towers_that_see_other_pixels_are_refused():
    images = np.random.RandomState(0).randint(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
        spec = NetSpec("arcface_torch", 18, image_size=(32, 32))
        scale_pixels(tf.placeholder(tf.uint8, [5, 32, 32, 3]), spec)
        scale_pixels(tf.placeholder(tf.uint8, [2, 32, 32, 3]), spec)
        check_preprocessing_matches(session, images)
        other = NetSpec("insightface_tf", 18, image_size=(32, 32))
        scale_pixels(tf.placeholder(tf.uint8, [4, 32, 32, 3]), other)
        with pytest.raises(ValueError, match="makes other pixels of an image than"):
            check_preprocessing_matches(session, images)


def relabelled(small, folder, change):
    """The small shards with each Example (label, image) changed."""
    shutil.copytree(small.shards, str(folder))
    for name in sorted(os.listdir(str(folder))):
        if name.startswith("train"):
            path = os.path.join(str(folder), name)
            examples = [parse_example(one) for one in tf.io.tf_record_iterator(path)]
            write_shard(path, [example_bytes(*change(*one)) for one in examples])
    os.remove(os.path.join(str(folder), "dataset.json"))
    return str(folder)


def test_a_set_of_training_images_and_one_of_another_size_are_told(small, run, tmp_path, caplog):  # noqa: F811
    found = records(small.shards, make_plan(config_of(small, tmp_path)).manifest)
    images = [record.image for record in found][:20] + [draw(30 + i, 1) for i in range(20)]
    write_pairs(str(tmp_path / "known.bin"), images, [True, False] * 10)
    large = cv2.imencode(".jpg", np.random.RandomState(0).randint(0, 255, (40, 48, 3)))[1].tobytes()
    write_pairs(str(tmp_path / "large.bin"), [large] * 40, [True, False] * 10)
    checked(run(eval_db_path=str(tmp_path), eval_datasets=("known", "large")))
    assert "known: 20 of its 40 images are also among the first 24 of 24" in caplog.text
    assert "large.bin: its images are 40 x 48, but the network takes 32 x 32" in caplog.text
    assert "large: " not in caplog.text


def test_chosen_pairs_are_of_both_kinds_and_from_all_over():
    issame_P = np.array([True] * 300 + [False] * 300)
    pairs = chosen_pairs(issame_P)
    assert len(pairs) == 20 and issame_P[pairs].sum() == 10 and {0, 299, 300, 599} <= set(pairs)


def test_a_first_loss_far_from_chance_is_doubted(small, tmp_path, caplog):
    caplog.set_level("INFO")
    config = config_of(small, tmp_path)
    explain_loss(44.0, 43.9, config, 10000)
    assert "starts near 44.0 as expected: an untrained network has 43.9 with arcface" in caplog.text
    explain_loss(9.0, 43.9, config, 10000)
    assert "the loss starts at 9.0, but an untrained network has" in caplog.text


def test_a_run_builds_its_nets_once_and_tells_where_the_start_went(
    small, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO")
    built = []

    def counted(pixels_NHWC, context):
        built.append(context.training)
        return L_Resnet_E_IR.resnet_e_ir(pixels_NHWC, context)

    monkeypatch.setitem(build.BUILDERS, "ir", counted)
    assert train_nets.main(flags(small, str(tmp_path))) == 0
    assert built == [True, False]
    told = [line for line in caplog.messages if line.startswith("first step after")]
    assert len(told) == 1
    parts = ("import", "data and plan", "graph", "session", "checks", "validation", "first step")
    assert [part for part in parts if part in told[0]] == list(parts)
