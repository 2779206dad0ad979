"""Shards -> batches of uint8 RGB images and labels, in an order that (seed, epoch) alone decides.

N images a batch, H W pixels. Records are shuffled, skipped and dealt to hosts as bytes; only what
is handed out is decoded. The stream is epoch 0, epoch 1, ... without a seam.
"""

import os
import re
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple, Union

from data.convert.worker_pool import allowed_cores
from data.formats.image_headers import decoded
from data.formats.manifest import LocalFiles, Manifest, read_manifest
from data.formats.tfrecord import parse_example
from data.pipeline.augment import augment_images
from data.pipeline.decoding import FAULT, Decoder
from data.pipeline.recipes import Augmentation, recipe
from data.pipeline.record_order import RecordStream, shard_and_number
from runtime.session import session_config
from runtime.tf1 import TF2, tf

# TensorFlow 1.15 cannot log the errors that it ignores.
LOGGED = {"log_warning": True} if TF2 else {}
READ_AHEAD = 2048  # records that are ready while the next shards fill the shuffle buffer
BATCHES_AT_ONCE = 8  # decoded at most: one's images are decoded in parallel as well


class StreamSettings(NamedTuple):
    """The records of a training stream, and their order."""

    path: str  # a directory of shards, or one TFRecord file
    seed: int
    buffer_size: int = 10000  # records held for shuffling
    host: int = 0  # this host's share of every epoch: an equal stretch of its order of shards
    hosts: int = 1


class ImageSettings(NamedTuple):
    """What becomes of each record."""

    size: Sequence[int] = (112, 112)  # height, width
    augment: Union[str, Augmentation] = "flip"  # a recipe's name or an Augmentation
    on_error: str = "stop"  # or skip: another image of the batch replaces a damaged one
    threads: Optional[int] = None  # that decode; None: one per core that this process may use


DEFAULT_IMAGES = ImageSettings()


def training_batches(
    stream: StreamSettings,
    batch_size: int,
    images: ImageSettings = DEFAULT_IMAGES,
    start_image: int = 0,
    epochs: Optional[int] = None,
) -> tf.data.Dataset:
    """A Dataset of (uint8 [N, H, W, 3] RGB, int64 [N]), N = batch_size, endless unless `epochs`.

    start_image: how many images of this host's stream to skip, undecoded; a run that resumes at
    step t passes t * batch_size. A last batch that `epochs` leaves incomplete is not handed out.
    on_error "stop": a damaged record is an InvalidArgumentError; see TrainingBatches.explain().
    "skip": each element gets a third part, a string that names the damaged records of the batch,
    one per line, empty as a rule.
    """
    if images.on_error not in ("stop", "skip"):
        raise ValueError(f"--on_error {images.on_error} is not known; choose stop or skip.")
    manifest, names = _open(stream.path)
    order, decode = _ordered(stream, manifest, names), _decoder(images, manifest, names)
    batches = order.records(start_image).batch(batch_size, drop_remainder=True)
    batches = batches.prefetch(max(2, min(READ_AHEAD, order.images) // batch_size))
    augment = images.augment
    augmentation = augment if isinstance(augment, Augmentation) else recipe(augment)
    stops = images.on_error == "stop"

    def finish(batch, records):
        found = decode(*records)
        place_N = start_image + batch * batch_size + tf.range(batch_size, dtype=tf.int64)
        place_N = place_N * stream.hosts + stream.host
        parts = (augment_images(found[0], int(stream.seed), place_N, augmentation),)
        parts += tuple(found[1:])
        return (batch,) + parts if stops else parts

    threads = images.threads or allowed_cores()
    batches = batches.enumerate().map(finish, num_parallel_calls=batches_at_once(threads))
    batches = batches.with_options(_options(threads))
    if stops:
        batches = _without_gaps(batches, start_image)
    if epochs is not None:
        batches = batches.take(max(0, epochs * order.images - start_image) // batch_size)
    return batches.prefetch(2)


def open_stream(stream: StreamSettings) -> RecordStream:
    """The order of a stream's records."""
    return _ordered(stream, *_open(stream.path))


def _ordered(stream: StreamSettings, manifest: Manifest, names: List[str]) -> RecordStream:
    return RecordStream(names, manifest, stream.seed, stream.buffer_size, stream.host, stream.hosts)


def _decoder(images: ImageSettings, manifest: Manifest, names: List[str]) -> Callable[..., Tuple]:
    """(record names [N], Examples [N]) -> (images, labels) or (images, labels, damaged names)."""
    raw = _holds_pixels(names[0], manifest, images.size)
    decoder = Decoder(images.size, manifest.identities, raw)

    def decode(record_N, example_N):
        if images.on_error == "stop":
            return decoder.decode(example_N)
        return decoder.decode_or_replace(example_N, record_N, names)

    return decode


def training_labels(
    stream: StreamSettings, batch_size: int, start_image: int = 0
) -> tf.data.Dataset:
    """A Dataset of the labels, int64 [N], of that host's training_batches, in their order; their
    images are read and not decoded."""
    records = open_stream(stream).records(start_image)
    batches = records.batch(batch_size, drop_remainder=True)
    label = {"label": tf.io.FixedLenFeature([], tf.int64)}
    return batches.map(lambda _, example_N: tf.io.parse_example(example_N, label)["label"])


class TrainingBatches:
    """The batches that one host trains on, and the sentence about a record that fails in them."""

    def __init__(
        self, stream: StreamSettings, batch_size: int, images: ImageSettings = DEFAULT_IMAGES
    ) -> None:
        self.stream, self.batch_size, self.images = stream, batch_size, images
        # Of the graph of the last dataset: Dataset.shuffle draws from it as well.
        self.graph_seed: Optional[int] = None

    def dataset(self, start_image: int = 0) -> tf.data.Dataset:
        """The Dataset of training_batches from an image of the stream on."""
        self.graph_seed = tf.get_default_graph().seed
        return training_batches(self.stream, self.batch_size, self.images, start_image)

    def explain(self, error: Exception) -> Optional[str]:
        """The sentence about a damaged record if that is what the TensorFlow error is about, or
        None. It reads the records of the batch again, one by one."""
        text = getattr(error, "message", None) or str(error)
        found = re.search(r"training stream: the batch at image (\d+)", text)
        if not found:
            return None
        start = int(found.group(1))
        places = range(start, start + self.batch_size)
        sentence = first_damage(self.stream, places, self.images.size, self.graph_seed)
        return sentence or (
            f"{self.stream.path}: a batch at image {start} of the stream could not be decoded, but "
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
    stream: StreamSettings,
    places: range,
    image_size: Sequence[int] = (112, 112),
    graph_seed: Optional[int] = None,
) -> Optional[str]:
    """The first record among these places of the stream that cannot be trained on, as a sentence,
    or None. For a run whose batch failed: it reads the same records again.
    graph_seed: of the run's graph; Dataset.shuffle draws from it as well as from its own seed."""
    manifest, names = _open(stream.path)
    raw = _holds_pixels(names[0], manifest, image_size)
    with tf.Graph().as_default():
        if graph_seed is not None:
            tf.set_random_seed(graph_seed)
        records = _ordered(stream, manifest, names).records(places.start).take(len(places))
        following = tf.data.make_initializable_iterator(records)
        element = following.get_next()
        with tf.Session(config=session_config("cpu")) as session:
            session.run(following.initializer)
            for _ in places:
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
