"""The smallest things that evaluation can run on: a net, checkpoints of it, sets, a run."""

import atexit
import functools
import json
import os
import shutil
import tempfile

import cv2
import numpy as np

from checkpoint.format import write_record
from data.eval_data_reader import write_pairs
from evaluation.verification_set import NetFunction
from nets.build import embeddings
from nets.lineages import NetSpec
from runtime.tf1 import tf

SPEC = NetSpec(net_depth=10, width=0.125, embedding_size=6, image_size=(16, 20))
STEPS = (3, 40)


def encoded_images(count, seed=0, size=(16, 20)):
    """PNG bytes of small random pictures."""
    random = np.random.RandomState(seed)
    pictures = random.randint(0, 255, (count,) + size + (3,)).astype(np.uint8)
    return [cv2.imencode(".png", picture)[1].tobytes() for picture in pictures]


def write_set(path, pairs=12, seed=0):
    """A .bin of `pairs` pairs, every second one of one person; returns what is in it."""
    encoded, issame_P = encoded_images(2 * pairs, seed), np.arange(pairs) % 2 == 0
    for pair in np.flatnonzero(issame_P):
        encoded[2 * pair + 1] = encoded[2 * pair]
    write_pairs(str(path), encoded, issame_P)
    return encoded, issame_P


@functools.lru_cache(maxsize=None)
def checkpoints():
    """Directory of two checkpoints of SPEC, at STEPS, with other weights."""
    directory = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    with tf.Graph().as_default():
        embeddings(tf.placeholder(tf.uint8, [1, 16, 20, 3]), SPEC, training=False)
        saver, step = tf.train.Saver(), None
        with tf.Session() as session:
            for step in STEPS:
                session.run(tf.global_variables_initializer())
                prefix = os.path.join(directory, f"InsightFace_iter_{step}.ckpt")
                saver.save(session, prefix, write_meta_graph=False)
                write_record(prefix, {"step": step, "net": SPEC.to_json(), "dataset": {}})
    return directory


def prefix(step=STEPS[0]):
    return os.path.join(checkpoints(), f"InsightFace_iter_{step}.ckpt")


def fake_embed(images_BHWC):
    """An embedder without a net: mean colours of quarters, and the same of the mirror image."""
    pixels = images_BHWC.astype(np.float32)
    height, width = pixels.shape[1] // 2, pixels.shape[2] // 2

    def quarters(x):
        parts = (x[:, :height, :width], x[:, height:, :width], x[:, :height, width:])
        return np.concatenate([part.mean(axis=(1, 2)) - 120 for part in parts], axis=1)

    return quarters(pixels), quarters(pixels[:, :, ::-1])


FAKE_NET = NetFunction(fake_embed, (16, 20), 5)


def train_line(step, **more):
    """A line of metrics.jsonl."""
    line = dict(
        kind="train",
        step=step,
        images_seen=8 * step,
        seconds=0.5 * step,
        loss=20.0 - step / 100.0,
        inference_loss=18.0 - step / 100.0,
        accuracy=min(1.0, step / 1000.0),
        accuracy_margin=0.1,
        learning_rate=0.1,
        images_per_second=100.0,
    )
    return dict(line, **more)


def validation_line(step, accuracy, name="lfw", **more):
    line = dict(
        kind="validation",
        set=name,
        step=step,
        accuracy=accuracy - 0.01,
        accuracy_std=0.01,
        accuracy_flip=accuracy,
        accuracy_flip_std=0.01,
        accuracy_flip_interval=[accuracy - 0.01, min(1.0, accuracy + 0.01)],
        threshold=1.2,
        tar_at_far={"0.001": accuracy / 2},
        genuine=300,
        impostor=300,
        genuine_cosine=0.6,
        impostor_cosine=0.1,
    )
    return dict(line, **more)


def write_run(path, lines, config=None, tail=""):
    """A run's directory with these lines of metrics; tail: what a kill left of the last one."""
    os.makedirs(os.path.join(str(path), "logs"))
    with open(os.path.join(str(path), "logs", "metrics.jsonl"), "w") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in lines)
        stream.write(tail)
    with open(os.path.join(str(path), "config.json"), "w") as stream:
        json.dump(config or {"net": SPEC.to_json(), "training": {"lr": 0.1}}, stream)
    return str(path)
