"""A data set small enough for seconds and real in every byte: .rec, shards and .bin sets."""

import collections
import os

import cv2
import numpy as np
import pytest

from data import mx2tfrecords
from data.eval_data_reader import write_pairs
from data.formats.recordio import RecordWriter, pack_header, pack_image

SIZE, IDENTITIES, EACH = 32, 4, 6

Small = collections.namedtuple("Small", "folder rec idx shards size identities images")


def draw(identity, shot):
    """JPEG of one image: stripes whose slope is the identity's, under noise that is the shot's."""
    noise = np.random.RandomState(1000 * identity + shot).randint(0, 60, (SIZE, SIZE, 3))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    wave = 90 + 80 * np.sin((rows * np.cos(identity) + columns * np.sin(identity)) * 0.8)
    image = np.clip(wave[..., None] + noise, 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


def write_record_file(folder, identities=IDENTITIES, each=EACH):
    """train.rec, train.idx and property as InsightFace writes them; returns the first two."""
    rec, idx = os.path.join(folder, "train.rec"), os.path.join(folder, "train.idx")
    images = identities * each
    with RecordWriter(rec, idx) as writer:
        writer.write(0, pack_header([images + 1, images + 1 + identities], 0))
        for key in range(1, images + 1):
            identity, shot = divmod(key - 1, each)
            writer.write(key, pack_image(float(identity), draw(identity, shot), key))
        for identity in range(identities):
            first = 1 + identity * each
            key = images + 1 + identity
            writer.write(key, pack_header([first, first + each], key))
    with open(os.path.join(folder, "property"), "w") as stream:
        stream.write(f"{identities},{SIZE},{SIZE}\n")
    return rec, idx


def write_set(path, pairs=20):
    """Pairs of identities that training never saw, same and different in turn."""
    encoded, issame = [], []
    for pair in range(pairs):
        same = pair % 2 == 0
        encoded += [draw(10 + pair, 0), draw(10 + pair + (0 if same else 7), 1)]
        issame.append(same)
    write_pairs(str(path), encoded, issame)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The whole small data set: a folder with train.rec, lfw.bin, cfp_fp.bin and its shards."""
    folder = str(tmp_path_factory.mktemp("small"))
    rec, idx = write_record_file(folder)
    shards = os.path.join(folder, "tfrecords")
    words = ["--bin_path", rec, "--idx_path", idx, "--tfrecords_file_path", shards, "--shards", "3"]
    assert mx2tfrecords.main(words) in (0, None)
    for name in ("lfw", "cfp_fp"):
        write_set(os.path.join(folder, f"{name}.bin"))
    return Small(folder, rec, idx, shards, SIZE, IDENTITIES, IDENTITIES * EACH)
