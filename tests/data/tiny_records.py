"""Small .rec files of every layout, and a plain reader to hold against the vectorised one."""

import os
import struct

import cv2
import numpy as np

from data.formats.recordio import RecordWriter, pack_header, pack_image
from data.formats.recordio_blocks import MAGIC, MAGIC_BYTES


def jpeg(seed, size=(16, 16), extension=".jpg", flags=()):
    """An encoded image of noise."""
    image = np.random.RandomState(seed).randint(0, 256, size + (3,), np.uint8)
    return cv2.imencode(extension, image, list(flags))[1].tobytes()


def write_records(folder, images, first_key=1, header="first", idx=True):
    """[(label or labels, bytes)] -> (rec, idx) in one of the layouts. header: first, last or None
    (with range records where there is a header); idx False: none is left behind."""
    rec, index = os.path.join(str(folder), "train.rec"), os.path.join(str(folder), "train.idx")
    count, labels = len(images), [int(np.ravel(label)[0]) for label, _ in images]
    identities = max(labels) + 1
    head = pack_header([count + 1, count + 1 + identities], 0, 1)
    with RecordWriter(rec, index) as writer:
        if header == "first":
            writer.write(0, head)
        for key, (label, encoded) in enumerate(images, start=first_key):
            writer.write(key, pack_image(label, encoded, key))
        if header:
            for identity in range(identities):
                key = count + 1 + identity
                writer.write(key, pack_header([1 + labels.index(identity), count + 1], key))
        if header == "last":
            writer.write(0, head)
    if not idx:
        os.remove(index)
    return rec, index


def read_plainly(path):
    """The payloads of a .rec, read part by part as the format's description says."""
    payloads, pieces = [], None
    with open(path, "rb") as stream:
        while True:
            head = stream.read(8)
            if not head:
                return payloads
            mark, word = struct.unpack("<II", head)
            assert mark == MAGIC
            place, length = word >> 29, word & (1 << 29) - 1
            data = stream.read(length)
            stream.read(-length % 4)
            if place in (0, 1):
                pieces = []
            pieces.append(data)
            if place in (0, 3):
                payloads.append(MAGIC_BYTES.join(pieces))
