"""Images a second of the training pipeline against a bare loop of cv2.imdecode on the same cores;
what each of its parts costs; seconds and memory of reading a verification set.

python benchmarks/pipeline.py
"""

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from runtime.cli import run  # noqa: E402
from runtime.flags import flag, parse_flags  # noqa: E402

SHARDS, LOOPS = 8, 500
PARTS = ("bare", "pipeline", "records", "bin")  # each in a process of its own


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    cores: int = flag(2, "cores for either side", low=1)
    images: int = flag(8000, "images of about 9 kB", low=1024)
    batch_size: int = flag(128, "images a batch", low=1)
    augment: str = flag("flip", "the pipeline's recipe", choices=("none", "flip", "strong"))
    seconds: float = flag(4.0, "of each measurement", above=0)
    rounds: int = flag(3, "measurements of each side, in turn", low=1)
    bin_images: int = flag(12000, "images of the verification set", low=2)
    part: str = flag("all", "one side", choices=("all",) + PARTS)
    folder: str = flag("", "where the data lies; only with --part")


def main(argv=None):
    config = parse_flags(BenchmarkConfig, argv, __doc__)
    if config.part != "all":
        print(*MEASURES[config.part](config))
        return
    with tempfile.TemporaryDirectory() as folder:
        _write_data(folder, config)
        _compare(config, folder)
        _say_costs(config, folder)
        for form in ("bytes", "arrays"):
            path = os.path.join(folder, f"{form}.bin")
            seconds, megabytes = _run("bin", config, path)[0]
            print(
                f"{config.bin_images:,} images of a .bin ({form}): read in {seconds:.2f} s, "
                f"{megabytes:.0f} MB above import"
            )


def _compare(config, folder):
    """Rounds of either side in turn, so that a busy machine is busy for both."""
    ratios = []
    for _ in range(config.rounds):
        loops = _run("bare", config, folder, processes=config.cores)
        bare, bare_busy = sum(rate for rate, _ in loops), sum(busy for _, busy in loops)
        rate, busy = _run("pipeline", config, folder)[0]
        ratios.append((rate / bare, (rate / busy) / (bare / bare_busy)))
        print(
            f"cv2.imdecode {bare:,.0f} images/s, {bare_busy:.2f} cores busy; pipeline "
            f"({config.augment}, batch {config.batch_size}) {rate:,.0f} images/s, {busy:.2f} cores "
            f"busy: ratio {ratios[-1][0]:.2f}, per busy core {ratios[-1][1]:.2f}"
        )
    ratio, per_core = (statistics.median(column) for column in zip(*ratios))
    print(f"median ratio {ratio:.2f}, per busy core {per_core:.2f}")


def _say_costs(config, folder):
    """Each part with all before it, so that their differences are what each costs; the processor's
    time, which other programs lengthen less than they lengthen the clock's."""
    bare = _run("bare", config, folder)[0]
    found = {"bare cv2.imdecode": bare, "records": _run("records", config, folder)[0]}
    for augment in ("none", "flip"):
        changed = dataclasses.replace(config, augment=augment)
        found[f"pipeline, {augment}"] = _run("pipeline", changed, folder)[0]
    costs = [f"{name} {1e6 * busy / rate:.0f}" for name, (rate, busy) in found.items()]
    print("processor's microseconds an image: " + "; ".join(costs))


def _run(part, config, folder, processes=1):
    """[(number, number)] that the processes print, which run at the same time."""
    words = [sys.executable, os.path.abspath(__file__), "--part", part, "--folder", folder]
    for name in ("cores", "batch_size", "augment", "seconds"):
        words += [f"--{name}", str(getattr(config, name))]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(processes)]
    return [tuple(map(float, child.communicate()[0].split())) for child in started]


def _bare(config):
    """(images/s of one process's loop, cores busy)."""
    from data.formats.tfrecord import read_shard

    cv2.setNumThreads(1)
    path = os.path.join(config.folder, f"train-{0:05d}.tfrecords")
    encoded = [np.frombuffer(image, np.uint8) for _, image in read_shard(path, check=False)]
    for image in encoded[:LOOPS]:
        cv2.imdecode(image, cv2.IMREAD_COLOR)
    start, processor, done = time.time(), time.process_time(), 0
    while time.time() - start < config.seconds:
        for image in encoded[:LOOPS]:
            cv2.imdecode(image, cv2.IMREAD_COLOR)
        done += len(encoded[:LOOPS])
    return _rates(done, start, processor)


def _pipeline(config):
    """(images/s, cores busy)."""
    from data.pipeline.batches import ImageSettings, StreamSettings, training_batches

    _keep_to(config.cores)
    return _drain(
        training_batches(
            StreamSettings(config.folder, 0),
            config.batch_size,
            ImageSettings(augment=config.augment),
        ),
        config,
    )


def _records(config):
    """(images/s, cores busy) of reading and shuffling records that nobody decodes, and of finding
    their labels."""
    from data.pipeline.batches import StreamSettings, training_labels

    _keep_to(config.cores)
    return _drain(training_labels(StreamSettings(config.folder, 0), config.batch_size), config)


def _keep_to(cores):
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def _drain(dataset, config):
    """(images/s, cores busy) of a dataset whose elements are thrown away."""
    from runtime.tf1 import tf

    iterator = tf.data.make_initializable_iterator(dataset)
    fetch = tf.nest.flatten(iterator.get_next())[0].op
    with tf.Session() as session:
        session.run(iterator.initializer)
        for _ in range(10):
            session.run(fetch)
        start, processor, done = time.time(), time.process_time(), 0
        while time.time() - start < config.seconds:
            session.run(fetch)
            done += config.batch_size
        return _rates(done, start, processor)


def _rates(done, start, processor):
    seconds = time.time() - start
    return done / seconds, (time.process_time() - processor) / seconds


def _bin(config):
    """(seconds, MB of peak memory above import)."""
    from data.eval_data_reader import read_pairs

    before, start = _peak_megabytes(), time.time()
    pairs = read_pairs(config.folder)
    seconds, after = time.time() - start, _peak_megabytes()
    assert len(pairs[0]) == 2 * len(pairs[1])
    return seconds, after - before


def _peak_megabytes():
    """Of this program alone; ru_maxrss would begin with the parent's."""
    with open("/proc/self/status") as stream:
        line = next(line for line in stream if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _write_data(folder, config):
    """Shards of images of about 9 kB, and one verification set in each of two forms."""
    import pickle

    from data.formats.tfrecord import example_bytes
    from runtime.tf1 import tf

    encoded = [_image(number) for number in range(500)]
    size = sum(map(len, encoded)) / len(encoded)
    print(f"{config.images:,} images of {size / 1000:.1f} kB in {SHARDS} shards")
    for shard in range(SHARDS):
        path = os.path.join(folder, f"train-{shard:05d}.tfrecords")
        with tf.io.TFRecordWriter(path) as writer:
            for number in range(shard, config.images, SHARDS):
                writer.write(example_bytes(number % 1000, encoded[number % 500]))
    images = [encoded[number % 500] for number in range(config.bin_images)]
    issame = [number % 2 == 0 for number in range(config.bin_images // 2)]
    forms = {
        "bytes": [bytes(bytearray(image)) for image in images],
        "arrays": [np.frombuffer(image, np.uint8).reshape(-1, 1).copy() for image in images],
    }
    for form, elements in forms.items():
        with open(os.path.join(folder, f"{form}.bin"), "wb") as stream:
            pickle.dump((elements, issame), stream, protocol=3)


def _image(number):
    """JPEG of smooth shapes under noise: as many bytes as a face of the public sets."""
    random = np.random.RandomState(number)
    coarse = random.randint(0, 256, (14, 14, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (112, 112), interpolation=cv2.INTER_CUBIC)
    image = np.clip(smooth + random.normal(0, 9, smooth.shape), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


MEASURES = {"bare": _bare, "pipeline": _pipeline, "records": _records, "bin": _bin}

if __name__ == "__main__":
    run(main)
