"""Cleaning: what counts as far from the dominant centre, and the data set that is left."""

import os

import numpy as np
import pytest

from checkpoint.format import write_record
from data.convert import outliers
from data.formats.manifest import read_manifest
from data.formats.tfrecord import read_shard
from inference.backends.checkpoint import CheckpointEmbedder
from nets.build import embeddings
from nets.lineages import NetSpec
from runtime.tf1 import tf
from runtime.variables import weight
from tests.losses.tiny_heads import head_of
from tools import clean_with_subcenters
from training.graph.optimizer import apply_gradients

SPEC = NetSpec(net_depth=10, width=0.125, embedding_size=8, image_size=(32, 32))


def test_dominant_centre_is_the_one_that_most_images_are_nearest_to():
    cosine_NS = np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.7], [0.3, 0.2], [0.2, 0.1]])
    label_N = np.array([0, 0, 0, 1, 1])
    dominant_K = outliers.dominant_centres(cosine_NS, label_N, identities=3)
    np.testing.assert_array_equal(dominant_K, [1, 0, 0])
    near_N = outliers.near_dominant(cosine_NS, label_N, 3, degrees=75)
    np.testing.assert_array_equal(near_N, [False, True, True, True, False])


def test_centre_cosines_do_not_hang_on_lengths():
    random = np.random.RandomState(0)
    embedded_ND, centres_KSD = random.normal(size=(5, 4)), random.normal(size=(3, 2, 4))
    label_N = np.array([2, 0, 1, 1, 2])
    one = outliers.centre_cosines(embedded_ND, label_N, centres_KSD)
    other = outliers.centre_cosines(7 * embedded_ND, label_N, 0.1 * centres_KSD)
    np.testing.assert_allclose(one, other, rtol=1e-5)
    wanted = np.dot(embedded_ND[1], centres_KSD[0, 1])
    wanted /= np.linalg.norm(embedded_ND[1]) * np.linalg.norm(centres_KSD[0, 1])
    assert one[1, 1] == pytest.approx(wanted, rel=1e-5)


def noisy_clusters(random, identities=60, each=40, size=128, noise=0.3):
    """(features, labels given, whether each is wrong): people as clusters."""
    true_N = np.repeat(np.arange(identities), each)
    faces_KF = random.normal(size=(identities, size))
    features_NF = faces_KF[true_N] + 0.5 * random.normal(size=(len(true_N), size))
    wrong_N = random.uniform(size=len(true_N)) < noise
    given_N = np.where(
        wrong_N, (true_N + random.randint(1, identities, len(true_N))) % identities, true_N
    )
    return features_NF.astype(np.float32), given_N, wrong_N


def trained(features_NF, label_N, identities, sub_centers, size=128, steps=40, batch=128):
    """(embeddings, centres [K, S, D]) of a linear network trained with sub-centre ArcFace."""
    random = np.random.RandomState(1)
    with tf.Graph().as_default(), tf.Session() as session:
        some_BF = tf.placeholder(tf.float32, [batch, features_NF.shape[1]])
        theirs_B = tf.placeholder(tf.int64, [batch])
        linear_FD = weight(
            "linear", [features_NF.shape[1], size], tf.random_normal_initializer(stddev=0.2, seed=3)
        )
        head = head_of(
            tf.matmul(some_BF, linear_FD),
            theirs_B,
            identities,
            margin=0.2,
            scale=16,
            sub_centers=sub_centers,
            seed=4,
        )
        variables = [linear_FD, head.centres]
        slopes = tf.gradients(head.loss, variables)
        move = apply_gradients(list(zip(slopes, variables)), 0.05, weight_decay=5e-4)
        session.run(tf.global_variables_initializer())
        for _ in range(steps):
            chosen = random.choice(len(label_N), batch, replace=False)
            session.run(move, {some_BF: features_NF[chosen], theirs_B: label_N[chosen]})
        linear_FD, centres_MD = session.run(variables)
    return features_NF @ linear_FD, centres_MD.reshape(identities, sub_centers, size)


def test_finds_four_fifths_of_the_noise_at_a_twentieth_of_the_clean_images():
    identities = 60
    features_NF, given_N, wrong_N = noisy_clusters(np.random.RandomState(0), identities)
    embedded_ND, centres_KSD = trained(features_NF, given_N, identities, sub_centers=3)
    cosine_NS = outliers.centre_cosines(embedded_ND, given_N, centres_KSD)
    near_N = outliers.near_dominant(cosine_NS, given_N, identities, degrees=75)
    found, lost = (~near_N)[wrong_N].mean(), (~near_N)[~wrong_N].mean()
    assert found >= 0.8 and lost <= 0.05, (found, lost)


@pytest.fixture(scope="module")
def checkpoint(small, tmp_path_factory):
    """A net of chance whose two centres of each identity are that identity's first image, and
    that image's opposite; and {identity: the image}."""
    prefix = str(tmp_path_factory.mktemp("ckpt") / "InsightFace_iter_1.ckpt")
    firsts = {}
    for name, _ in read_manifest(small.shards).shards:
        for label, encoded in read_shard(os.path.join(small.shards, name)):
            firsts.setdefault(label, encoded)
    save(prefix, np.zeros((2 * small.identities, 8)))
    with CheckpointEmbedder(prefix, batch_size=4) as embedder:
        plain_KD, mirrored_KD = embedder.embed_encoded([firsts[k] for k in sorted(firsts)])
    first_KD = plain_KD + mirrored_KD
    save(prefix, np.stack([first_KD, -first_KD], axis=1).reshape(-1, 8))
    return prefix, firsts


def save(prefix, centres_MD):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(5)
        embeddings(tf.zeros([1, 32, 32, 3], tf.uint8), SPEC, training=False)
        tf.get_variable("class_centres", initializer=tf.constant(centres_MD, tf.float32))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, prefix, write_meta_graph=False)
    write_record(prefix, {"net": SPEC.to_json(), "step": 1, "images_seen": 1})


def words(small, checkpoint, output, *more):
    line = ["--ckpt_file", checkpoint, "--tfrecords_file_path", small.shards]
    return line + ["--output_path", str(output), "--batch_size", "5"] + list(more)


def test_script_keeps_what_is_near_and_counts_what_is_not(small, checkpoint, tmp_path, capsys):
    prefix, firsts = checkpoint
    line = words(small, prefix, tmp_path / "clean", "--angle", "0.2")
    clean_with_subcenters.main(line)
    cleaned, before = read_manifest(str(tmp_path / "clean")), read_manifest(small.shards)
    kept = [
        record
        for name, _ in cleaned.shards
        for record in read_shard(str(tmp_path / "clean" / name))
    ]
    assert set(firsts.items()) <= set(kept)
    assert cleaned.images == len(kept) < before.images
    assert cleaned.identities == before.identities and cleaned.checksum != before.checksum
    assert f"{len(kept)} of {before.images} images kept" in capsys.readouterr().out
    clean_with_subcenters.main(line)
    assert "nothing to do" in capsys.readouterr().out


def test_script_keeps_every_byte_where_nothing_is_far(small, checkpoint, tmp_path):
    clean_with_subcenters.main(words(small, checkpoint[0], tmp_path / "all", "--angle", "179.9"))
    before, after = read_manifest(small.shards), read_manifest(str(tmp_path / "all"))
    assert after.checksum == before.checksum and after.shards == before.shards
    for name, _ in before.shards:
        with open(os.path.join(small.shards, name), "rb") as one:
            assert one.read() == (tmp_path / "all" / name).read_bytes()


def test_checkpoint_of_another_data_set_is_refused(small, checkpoint, tmp_path):
    prefix = str(tmp_path / "InsightFace_iter_2.ckpt")
    save(prefix, np.ones((2 * small.identities + 1, 8)))
    with pytest.raises(ValueError, match="not so many for each of the 4 identities"):
        clean_with_subcenters.main(words(small, prefix, tmp_path / "clean"))


def test_nothing_near_is_refused_and_leaves_nothing(small, tmp_path):
    prefix = str(tmp_path / "InsightFace_iter_3.ckpt")
    save(prefix, np.ones((small.identities, 8)))
    with pytest.raises(ValueError, match="no image is within 0.01 degrees"):
        clean_with_subcenters.main(words(small, prefix, tmp_path / "none", "--angle", "0.01"))
    assert not (tmp_path / "none").exists()
