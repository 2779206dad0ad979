"""The script on a tiny checkpoint with class centres."""

import csv

import numpy as np
import pytest

from checkpoint.format import write_record
from evaluation.overlap import identity_means
from evaluation.verification_set import NetFunction, VerificationSet
from inference.backends.checkpoint import embed_with_flip
from runtime.tf1 import tf
from tests.evaluation.tiny_sets import SPEC, write_set
from tools import find_overlap


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(directory of a set, checkpoint, means of its identities): class 1 is the set's identity 5.
    An untrained net's embeddings are alike, so that the other classes lie opposite."""
    directory = tmp_path_factory.mktemp("overlap")
    write_set(directory / "lfw.bin", pairs=30)
    prefix = str(directory / "InsightFace_iter_1.ckpt")
    pairs = VerificationSet.open(str(directory / "lfw.bin"))
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(5)
        images_BHWC = tf.placeholder(tf.uint8, [8, 16, 20, 3])
        outputs = embed_with_flip(images_BHWC, SPEC)
        centres = tf.get_variable("class_centres", [40, SPEC.embedding_size])
        session.run(tf.global_variables_initializer())
        net = NetFunction(lambda x: session.run(outputs, {images_BHWC: x}), (16, 20), 8)
        plain_ND, mirrored_ND = pairs.embed(net)
        means_ID = identity_means(plain_ND + mirrored_ND, pairs.identity_N)
        random = np.random.RandomState(0)
        centres_MD = -np.abs(random.normal(size=(40, SPEC.embedding_size)))
        centres_MD = centres_MD * np.sign(means_ID.mean(axis=0))
        centres_MD[2] = means_ID[5]  # the first sub-centre of class 1
        centres.load(centres_MD, session)
        tf.train.Saver().save(session, prefix, write_meta_graph=False)
    record = {"net": SPEC.to_json(), "step": 1, "dataset": {"identities": 20}}
    write_record(prefix, record)
    return directory, prefix, means_ID


def test_centres_of_an_identity_are_its_sub_centres(world):
    assert find_overlap.read_centres(world[1]).shape == (20, 2, SPEC.embedding_size)


def test_the_overlap_is_listed_with_its_name_and_the_accuracy_without(world, tmp_path, capsys):
    directory, prefix, means_ID = world
    near = np.sort(means_ID @ means_ID[5])[-2]  # the next identity to it
    names = tmp_path / "identities.txt"
    names.write_text("anna\nben\n")
    line = ["--ckpt_file", prefix, "--eval_db_path", str(directory), "--batch_size", "8"]
    line += ["--cosine", f"{(1 + near) / 2:.9f}", "--output_path", str(tmp_path / "out")]
    find_overlap.main(line + ["--names", str(names)])
    printed = capsys.readouterr().out
    rows = list(csv.DictReader(open(str(tmp_path / "out" / "lfw_overlap.csv"))))
    assert [(row["identity"], row["label"], row["name"]) for row in rows] == [("5", "1", "ben")]
    assert "1 of " in printed and "without these identities (1 of 30 pairs)" in printed


def test_names_of_another_data_set_are_refused(tmp_path):
    path = tmp_path / "identities.txt"
    path.write_text("a\nb\nc\n")
    with pytest.raises(ValueError, match="3 names for 2 classes"):
        find_overlap.read_names(str(path), 2)
