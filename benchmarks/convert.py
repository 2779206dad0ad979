"""Conversion against `cp` of the same .rec and against the original converter's loop over records.

    python benchmarks/convert.py             # 100,000 records of 9 kB, about 4 GB of disk
    python benchmarks/convert.py --records 20000
    python benchmarks/convert.py --loop_python PATH    # one with requirements.txt and mxnet==1.9.1

Ratios are medians of interleaved runs on files that the system holds in memory: above 1 is faster.
Before each run as much memory as it takes is written to and freed: a virtual machine gets memory
that it has not used for some seconds from its host, ten times more slowly than a file is copied.
"""

import collections
import dataclasses
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from typing import Optional

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np  # noqa: E402

from data.formats.recordio import RecordWriter, pack_header, pack_image  # noqa: E402
from runtime.cli import ROOT, run  # noqa: E402
from runtime.flags import flag, parse_flags  # noqa: E402

EACH = 50  # images of an identity
LOOP_SHARE = 10  # the Example loop converts a tenth of the records
WARM_SHARE = 2.5  # of the .rec; a shuffle holds it twice for a moment
# Runs one conversion in a fresh process: seconds without imports, and peak memory in MB above them,
# where all that a worker process ever held counts as if it shared none of it.
CONVERT = """
import time
began = time.time()
import json, os, resource, sys
sys.path.insert(0, {root!r})
from data import mx2tfrecords
from data.formats import crc32c
from runtime.flags import parse_flags
crc32c.crc32c(b"")
imports = time.time() - began
from benchmarks.convert import warm
peak = lambda who: resource.getrusage(who).ru_maxrss / 1024
before = peak(resource.RUSAGE_SELF)
config = parse_flags(mx2tfrecords.ConversionConfig, {words!r})
warm({folder!r}, {size})
began = time.time()
mx2tfrecords.convert(config)
seconds = time.time() - began
memory = peak(resource.RUSAGE_SELF) - before + {workers} * peak(resource.RUSAGE_CHILDREN)
print(json.dumps([seconds, memory, imports]))
"""


# Runs the Example loop with MXNet's own reader, and prints its seconds.
WITH_MXNET = """
import sys
import mxnet as mx
sys.path.insert(0, {root!r})
from benchmarks.convert import example_loop
reader = mx.recordio.MXIndexedRecordIO({rec!r}[:-3] + "idx", {rec!r}, "r")
print(example_loop({folder!r}, {rec!r}, {records}, reader, mx.recordio.unpack))
"""


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """Flags of benchmarks/convert.py."""

    records: int = flag(100000, "records of the .rec", low=1000)
    record_bytes: int = flag(9000, "bytes of an image", low=100)
    repeats: int = flag(5, "runs of each, interleaved; the median counts", low=1)
    workers: int = flag(2, "processes of the conversion", low=1)
    work_path: Optional[str] = flag(None, "where to write; default: the system's place")
    loop_python: Optional[str] = flag(
        None, "a Python that has MXNet, for the loop; default: this one, without"
    )


def main(argv=None):
    config = parse_flags(BenchmarkConfig, argv, __doc__)
    if config.loop_python and not shutil.which(config.loop_python):
        raise ValueError(f"--loop_python {config.loop_python} cannot be run; name a Python.")
    with tempfile.TemporaryDirectory(dir=config.work_path) as folder:
        rec = write_rec(folder, config.records, config.record_bytes)
        size = os.path.getsize(rec)
        print(f"{config.records} records, {size / 1e6:.0f} MB, {config.workers} workers")
        rounds = [measure(folder, rec, config.workers) for _ in range(config.repeats + 1)][1:]
        some = config.records // LOOP_SHARE
        if config.loop_python:
            loop = loop_with_mxnet(config.loop_python, folder, rec, some) * LOOP_SHARE
        else:
            loop = example_loop(folder, rec, some, IndexedReader(rec), unpack) * LOOP_SHARE
    report(rounds, loop, size, config.records)


def measure(folder, rec, workers):
    """One round: {what: seconds}, each conversion between two copies; memory in MB."""
    found = {}
    for name, words in (("in order", ["--no_shuffle"]), ("shuffled", [])):
        before = copy(folder, rec)
        seconds, memory, imports = convert(folder, rec, words, workers)
        found[name] = seconds
        found[name + " memory"] = memory
        found[name + " imports"] = imports
        found[name + " cp"] = (before + copy(folder, rec)) / 2
    return found


def copy(folder, rec):
    """Seconds that `cp` takes."""
    target = os.path.join(folder, "copy")
    warm(folder, os.path.getsize(rec))
    began = time.time()
    subprocess.check_call(["cp", rec, target])
    seconds = time.time() - began
    os.remove(target)
    return seconds


def convert(folder, rec, words, workers):
    """(seconds without imports, MB above imports, seconds of imports)."""
    out = os.path.join(folder, "out")
    words = ["--bin_path", rec, "--tfrecords_file_path", out, "--workers", str(workers)] + words
    program = CONVERT.format(
        root=ROOT,
        words=words,
        workers=workers if workers > 1 else 0,
        folder=folder,
        size=os.path.getsize(rec),
    )
    environ = dict(os.environ, OPENBLAS_NUM_THREADS="1")  # as the script says for itself
    answer = subprocess.check_output([sys.executable, "-c", program], env=environ)
    shutil.rmtree(out)
    return tuple(json.loads(answer.decode()))


def warm(folder, size):
    """Has the system touch the memory that a run will fill."""
    path, piece = os.path.join(folder, "warm"), bytes(1 << 24)
    with open(path, "wb", buffering=0) as stream:
        for _ in range(int(size * WARM_SHARE) >> 24):
            stream.write(piece)
    os.remove(path)


IRHeader = collections.namedtuple("IRHeader", "flag label id id2")


class IndexedReader:
    """What MXNet's Python class for an indexed .rec does for each record: look the key's offset up,
    go there, read a record; in Python's own file, where MXNet calls its C++ reader."""

    def __init__(self, rec):
        with open(rec[:-3] + "idx") as stream:
            self.offsets = {int(key): int(at) for key, at in (line.split("\t") for line in stream)}
        self.stream = open(rec, "rb")

    def read_idx(self, key):
        self.stream.seek(self.offsets[key])
        _, word = struct.unpack("<II", self.stream.read(8))
        return self.stream.read(word & (1 << 29) - 1)


def unpack(record):
    """(header, image bytes), as mx.recordio.unpack of a record with one label."""
    header = IRHeader(*struct.unpack("<IfQQ", record[:24]))
    return header, record[24:]


def example_loop(folder, rec, records, reader, unpack):
    """Seconds of the original converter's loop; imports and reading the .idx are not counted.

    For each key from 1 on: read_idx, unpack, a tf.train.Example of its two features, one write to
    one TFRecordWriter, a line each 10,000. It decodes nothing. With the stand-ins above it is
    faster than the original was, which had to cross from Python to MXNet and back for each record.
    """
    from runtime.tf1 import tf

    out = os.path.join(folder, "tran.tfrecords")
    warm(folder, os.path.getsize(rec))
    began = time.time()
    with tf.python_io.TFRecordWriter(out) as writer:
        for key in range(1, records + 1):
            header, image = unpack(reader.read_idx(key))
            raw = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
            label = tf.train.Feature(int64_list=tf.train.Int64List(value=[int(header.label)]))
            features = tf.train.Features(feature={"image_raw": raw, "label": label})
            writer.write(tf.train.Example(features=features).SerializeToString())
            if key % 10000 == 0:
                print(f"  Example loop: {key} images")
    seconds = time.time() - began
    os.remove(out)
    return seconds


def loop_with_mxnet(python, folder, rec, records):
    """The Example loop in a process of that Python, which has MXNet."""
    program = WITH_MXNET.format(root=ROOT, folder=folder, rec=rec, records=records)
    try:
        return float(subprocess.check_output([python, "-c", program]).split()[-1])
    except subprocess.CalledProcessError as error:
        raise ValueError(
            f"--loop_python {python} ended with {error.returncode}; name a Python that has mxnet "
            "and what requirements.txt lists."
        ) from error


def write_rec(folder, records, record_bytes):
    """A .rec of `records` JPEG-like images in InsightFace's layout; returns its path."""
    rec = os.path.join(folder, "train.rec")
    random = np.random.RandomState(0)
    pool = random.bytes(1 << 22)
    identities = -(-records // EACH)
    with RecordWriter(rec, rec[:-3] + "idx") as writer:
        for key in range(1, records + 1):
            length = random.randint(record_bytes * 4 // 5, record_bytes * 6 // 5)
            at = random.randint(0, len(pool) - length)
            encoded = b"\xff\xd8\xff" + pool[at : at + length] + b"\xff\xd9"
            writer.write(key, pack_image((key - 1) // EACH, encoded, key))
        writer.write(0, pack_header([records + 1, records + 1 + identities], 0, 1))
    return rec


def report(rounds, loop, size, records):
    def median(name):
        return statistics.median(found[name] for found in rounds)

    def spread(values):
        return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    for name, target in (("in order", 0.6), ("shuffled", 0.35)):
        seconds = median(name)
        ratios = [found[name + " cp"] / found[name] for found in rounds]
        print(
            f"{name}: {seconds:.2f} s, {size / seconds / 1e6:.0f} MB/s, "
            f"{records / seconds:.0f} records/s, {median(name + ' memory'):.0f} MB above imports; "
            f"imports take {median(name + ' imports'):.2f} s more"
        )
        print(f"  x cp ({median(name + ' cp'):.2f} s): {spread(ratios)}, wanted {target}")
        faster = [loop / found[name] for found in rounds]
        copies = loop / median(name + " cp")
        print(
            f"  x Example loop ({records / loop:.0f} records/s): {spread(faster)}, wanted 10; "
            f"cp is {copies:.1f} x that loop"
        )


if __name__ == "__main__":
    run(main)
