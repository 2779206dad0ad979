"""Shards -> batches of uint8 RGB images and labels, in an order that (seed, epoch) alone decides.

N images a batch, H W pixels. Records are shuffled, skipped and dealt to hosts as bytes; only what
is handed out is decoded. The stream is epoch 0, epoch 1, ... without a seam.
"""

import os
import re
from typing import Any, Optional, Sequence, Union

from data.convert.worker_pool import allowed_cores
from data.formats.image_headers import decoded
from data.formats.manifest import LocalFiles, read_manifest
from data.formats.tfrecord import parse_example
from data.pipeline.augment import Augmentation, augment_images, recipe
from data.pipeline.decoding import FAULT, Decoder
from data.pipeline.record_order import RecordStream, shard_and_number
from runtime.session import session_config
from runtime.tf1 import TF2, tf

# TensorFlow 1.15 cannot log the errors that it ignores.
LOGGED = {"log_warning": True} if TF2 else {}
READ_AHEAD = 2048  # records that are ready while the next shards fill the shuffle buffer
BATCHES_AT_ONCE = 8  # decoded at most: one's images are decoded in parallel as well


def training_batches(
    path: str,
    batch_size: int,
    seed: int,
    start_image: int = 0,
    augment: Union[str, Augmentation] = "flip",
    buffer_size: int = 10000,
    image_size: Sequence[int] = (112, 112),
    host: int = 0,
    hosts: int = 1,
    threads: Optional[int] = None,
    epochs: Optional[int] = None,
    on_error: str = "stop",
) -> tf.data.Dataset:
    """A Dataset of (uint8 [N, H, W, 3] RGB, int64 [N]), N = batch_size, endless unless `epochs`.

    path: a directory of shards or one TFRecord file. start_image: how many images of this host's
    stream to skip, undecoded; a run that resumes at step t passes t * batch_size.
    buffer_size: records held for shuffling. host of hosts: this one's share of every epoch, an
    equal stretch of the epoch's order of shards. threads: that decode; None means one a core that
    this process may use.
    augment: a recipe's name or an Augmentation. A last batch that `epochs` leaves incomplete is
    not handed out.
    on_error "stop": a damaged record is an InvalidArgumentError; see TrainingBatches.explain().
    "skip": another image of its batch takes its place, and each element gets a third part, a string
    that names the damaged records of the batch, one a line, empty as a rule.
    """
    if on_error not in ("stop", "skip"):
        raise ValueError(f"--on_error {on_error} is not known; choose stop or skip.")
    manifest, names = _open(path)
    decoder = Decoder(
        image_size, manifest.identities, _holds_pixels(names[0], manifest, image_size)
    )
    stream = RecordStream(names, manifest, seed, buffer_size, host, hosts)
    batches = stream.records(start_image).batch(batch_size, drop_remainder=True)
    batches = batches.prefetch(max(2, min(READ_AHEAD, stream.images) // batch_size))
    augmentation = augment if isinstance(augment, Augmentation) else recipe(augment)

    def finish(batch, records):
        record_N, example_N = records
        if on_error == "stop":
            found = decoder.decode(example_N)
        else:
            found = decoder.decode_or_replace(example_N, record_N, names)
        place_N = start_image + batch * batch_size + tf.range(batch_size, dtype=tf.int64)
        images = augment_images(found[0], int(seed), place_N * hosts + host, augmentation)
        parts = (images,) + tuple(found[1:])
        return (batch,) + parts if on_error == "stop" else parts

    threads = threads or allowed_cores()
    batches = batches.enumerate().map(finish, num_parallel_calls=batches_at_once(threads))
    batches = batches.with_options(_options(threads))
    if on_error == "stop":
        batches = _without_gaps(batches, start_image)
    if epochs is not None:
        batches = batches.take(max(0, epochs * stream.images - start_image) // batch_size)
    return batches.prefetch(2)


def training_labels(
    path: str,
    batch_size: int,
    seed: int,
    start_image: int = 0,
    buffer_size: int = 10000,
    host: int = 0,
    hosts: int = 1,
) -> tf.data.Dataset:
    """A Dataset of the labels, int64 [N], of that host's training_batches, in their order; their
    images are read and not decoded."""
    manifest, names = _open(path)
    stream = RecordStream(names, manifest, seed, buffer_size, host, hosts)
    batches = stream.records(start_image).batch(batch_size, drop_remainder=True)
    label = {"label": tf.io.FixedLenFeature([], tf.int64)}
    return batches.map(lambda _, example_N: tf.io.parse_example(example_N, label)["label"])


class TrainingBatches:
    """The batches that one host trains on, and the sentence about a record that fails in them.
    options: those of training_batches, but for start_image."""

    def __init__(self, path: str, batch_size: int, seed: int, **options: Any) -> None:
        self.path, self.batch_size, self.seed, self.options = path, batch_size, seed, options
        self.graph_seed: Optional[int] = (
            None  # of the graph of the last dataset; it decides the order, too
        )

    def dataset(self, start_image: int = 0) -> tf.data.Dataset:
        """The Dataset of training_batches from an image of the stream on."""
        self.graph_seed = tf.get_default_graph().seed
        return training_batches(
            self.path, self.batch_size, self.seed, start_image=start_image, **self.options
        )

    def explain(self, error: Exception) -> Optional[str]:
        """The sentence about a damaged record if that is what the TensorFlow error is about, or
        None. It reads the records of the batch again, one by one."""
        text = getattr(error, "message", None) or str(error)
        found = re.search(r"training stream: the batch at image (\d+)", text)
        if not found:
            return None
        names = ("buffer_size", "image_size", "host", "hosts")
        options = {name: self.options[name] for name in names if name in self.options}
        options["graph_seed"] = self.graph_seed
        start_image = int(found.group(1))
        sentence = first_damage(self.path, self.seed, start_image, self.batch_size, **options)
        return sentence or (
            f"{self.path}: a batch at image {start_image} of the stream could not be decoded, but "
            "each of its records can be now. If the files did not change meanwhile, resume with "
            "--resume; TF_CPP_MIN_LOG_LEVEL=0 logs what TensorFlow found."
        )


def _without_gaps(batches, start_image):
    """A batch that fails becomes an error that says where in the stream: the decoder's own error
    would not, and wrapping each batch by itself costs more than all else.

    Errors are ignored, which leaves gaps in the numbers. A tick after each batch finds its gap at
    once; without ticks, a data set that is damaged throughout would be read for ever."""
    _, images, label_N = tf.data.get_output_shapes(batches)

    def follow(expected, number, images, label_N):
        is_tick = number < 0
        at = tf.as_string(start_image + expected[0] * label_N.shape.as_list()[0])
        where = ["training stream: the batch at image ", at, " cannot be decoded"]
        whole = tf.Assert(
            tf.equal(expected[1], tf.cast(is_tick, tf.int64)), [tf.strings.join(where)]
        )
        with tf.control_dependencies([whole]):
            turn = tf.identity(1 - expected[1])
        return (expected[0] + tf.cast(is_tick, tf.int64), turn), (images, label_N)

    nothing = tf.zeros(images, tf.uint8), tf.zeros(label_N, tf.int64)
    tick = (tf.constant(-1, tf.int64),) + nothing
    ticks = tf.data.Dataset.from_tensors(tick).repeat()
    turns = tf.data.Dataset.range(2).repeat()
    mixed = tf.data.experimental.choose_from_datasets([batches, ticks], turns)
    mixed = mixed.apply(tf.data.experimental.ignore_errors(**LOGGED))
    start = tf.constant(0, tf.int64), tf.constant(0, tf.int64)  # batches seen, whose turn it is
    mixed = mixed.apply(tf.data.experimental.scan(start, lambda n, element: follow(n, *element)))
    return mixed.shard(2, 0)


def first_damage(
    path: str,
    seed: int,
    start_image: int,
    images: int,
    buffer_size: int = 10000,
    image_size: Sequence[int] = (112, 112),
    host: int = 0,
    hosts: int = 1,
    graph_seed: Optional[int] = None,
) -> Optional[str]:
    """The first record among `images` of the stream from start_image on that cannot be trained on,
    as a sentence, or None. For a run whose batch failed: it reads the same records again.
    graph_seed: of the run's graph; Dataset.shuffle draws from it as well as from its own seed."""
    manifest, names = _open(path)
    raw = _holds_pixels(names[0], manifest, image_size)
    with tf.Graph().as_default():
        if graph_seed is not None:
            tf.set_random_seed(graph_seed)
        stream = RecordStream(names, manifest, seed, buffer_size, host, hosts)
        records = stream.records(start_image).take(images)
        following = tf.data.make_initializable_iterator(records)
        element = following.get_next()
        with tf.Session(config=session_config("cpu")) as session:
            session.run(following.initializer)
            for _ in range(images):
                record, example = session.run(element)
                if not _whole(example, manifest.identities, image_size, raw):
                    shard, number = shard_and_number(int(record))
                    fault = FAULT.format(image_size[0], image_size[1], manifest.identities)
                    return (
                        f"{names[shard]}: record {number} cannot be trained on: {fault}; "
                        "convert the data again, or allow a few such records with --max_errors."
                    )
    return None


def _open(path):
    """(manifest, paths of the shards); gs:// and the like through TensorFlow's own file system."""
    files = tf.io.gfile if "://" in path else LocalFiles
    manifest = read_manifest(path, files)
    directory = path if files.isdir(path) else os.path.dirname(path)
    return manifest, [os.path.join(directory, name) for name, _ in manifest.shards]


def _whole(example, identities, image_size, raw):
    try:
        label, image = parse_example(example)
    except ValueError:
        return False
    if raw:
        return label < identities and len(image) == image_size[0] * image_size[1] * 3
    return label < identities and _size(image) == tuple(image_size)


def _size(image):
    """(H, W) of an encoded image, or None."""
    pixels = decoded(image) if image else None
    return None if pixels is None else pixels.shape[:2]


def _holds_pixels(path, manifest, image_size):
    """Whether the images are raw pixels and not files; images of another size end here."""
    height, width = image_size
    try:
        _, image = parse_example(next(iter(tf.io.tf_record_iterator(path))))
    except (ValueError, StopIteration, tf.errors.OpError):
        return False  # the damaged record is reported when its turn comes
    size = _size(image)
    if size is None and len(image) == height * width * 3:
        return True
    size = manifest.image_size or size
    if size and tuple(size) != (height, width):
        raise ValueError(
            f"{path}: its images are {size[0]}x{size[1]}, but --image_size is {height}x{width}; "
            f"pass --image_size {size[0]} {size[1]} or convert the images to that size."
        )
    return False


def batches_at_once(threads: Optional[int] = None) -> int:
    """How many are decoded together, and as many may wait decoded."""
    return min(threads or allowed_cores(), BATCHES_AT_ONCE)


def _options(threads):
    options = tf.data.Options()
    room = options.threading if hasattr(options, "threading") else options.experimental_threading
    room.max_intra_op_parallelism = 1  # the images of a batch are parallel enough
    room.private_threadpool_size = threads + 1  # one waits for records while the others decode
    # Nothing is left to the tuner, which reads the clock at each layer for each record.
    if hasattr(options, "autotune"):
        options.autotune.enabled = False
    else:
        options.experimental_optimization.autotune = False
    return options
