"""Shards -> batches of uint8 RGB images and labels, in an order that (seed, epoch) alone decides.

N images a batch, H W pixels, S shards. Records are shuffled, skipped and dealt to hosts as bytes;
only what is handed out is decoded. The stream is epoch 0, epoch 1, ... without a seam.
"""

import os

import cv2
import numpy as np

from data.augment import Augmentation, augment_images, recipe
from data.draws import hashed, shuffle_seed
from data.manifest import LocalFiles, read_manifest
from data.shards import parse_example
from runtime.tf1 import tf

READ_BYTES = 1 << 20  # of a shard at a time
READ_AHEAD = 2048  # records that are ready while the next shards fill the shuffle buffer
RECORD_BITS = 40  # a record is named by shard << 40 | its number in the shard
FOREVER = 1 << 62


def training_batches(
    path,
    batch_size,
    seed,
    start_image=0,
    augment="flip",
    buffer_size=10000,
    image_size=(112, 112),
    host=0,
    hosts=1,
    threads=None,
    epochs=None,
    on_error="stop",
):
    """A Dataset of (uint8 [N, H, W, 3] RGB, int64 [N]), N = batch_size, endless unless `epochs`.

    path: a directory of shards or one TFRecord file. start_image: how many images of this host's
    stream to pass over, undecoded; a run that resumes at step t passes t * batch_size.
    buffer_size: records held for shuffling. host of hosts: this one's share of every epoch, an
    equal stretch of the epoch's order of shards. threads: that decode; None leaves it to
    TensorFlow. augment: a recipe's name or an Augmentation. A last batch that `epochs` leaves
    incomplete is not handed out.
    on_error "stop": a damaged record is an InvalidArgumentError whose sentence damage() finds.
    "skip": another image of its batch takes its place, and each element gets a third part, a string
    that names the damaged records of the batch, one a line.
    """
    files = tf.io.gfile if "://" in path else LocalFiles
    manifest = read_manifest(path, files)
    directory = path if files.isdir(path) else os.path.dirname(path)
    names = [os.path.join(directory, name) for name, _ in manifest.shards]
    raw = _holds_raw_pixels(names[0], manifest, image_size)
    stream = _Stream(
        names, [count for _, count in manifest.shards], int(seed), buffer_size, host, hosts
    )
    batches = stream.records(start_image, epochs).batch(batch_size, drop_remainder=True)
    batches = batches.prefetch(max(2, READ_AHEAD // batch_size))
    augmentation = augment if isinstance(augment, Augmentation) else recipe(augment)

    def finish(batch, record_N, example_N):
        with tf.name_scope("decode"):
            images, labels, damaged = _decoded(
                example_N, record_N, names, image_size, raw, manifest.identities, on_error
            )
        place_N = start_image + batch * batch_size + tf.range(batch_size, dtype=tf.int64)
        images = augment_images(images, int(seed), place_N * hosts + host, augmentation)
        return (images, labels) if on_error == "stop" else (images, labels, damaged)

    calls = threads or os.cpu_count()
    batches = batches.enumerate().map(
        lambda batch, pair: finish(batch, *pair), num_parallel_calls=calls
    )
    return batches.with_options(_options(threads)).prefetch(2)


def damage(error):
    """The sentence about a damaged record in a TensorFlow error of the pipeline, or None."""
    text = getattr(error, "message", None) or str(error)
    start, end = text.find(_OPEN), text.find(_CLOSE)
    return text[start + len(_OPEN) : end] if 0 <= start < end else None


_OPEN, _CLOSE = "<<", ">>"


class _Stream:
    """The endless order of records. Positions count this host's images."""

    def __init__(self, names, counts, seed, buffer_size, host, hosts):
        self.names, self.counts, self.seed, self.buffer_size = names, counts, seed, buffer_size
        total = sum(counts)
        self.low, self.high = total * host // hosts, total * (host + 1) // hosts
        if self.low == self.high:
            raise ValueError(
                f"{total} images are too few for {hosts} hosts; host {host} would have none."
            )

    def records(self, first, epochs):
        """Dataset of (record name, Example bytes), both scalars, from position `first` on."""
        epoch, skip = divmod(first, self.high - self.low)
        numbers = tf.data.Dataset.range(epoch, FOREVER if epochs is None else max(epoch, epochs))
        return numbers.flat_map(
            lambda e: self.epoch(e, tf.where(tf.equal(e, epoch), _int64(skip), _int64(0)))
        )

    def epoch(self, epoch, skip):
        """One epoch's records but the first `skip`.

        Shards in an order hashed from (seed, epoch); this host's stretch of it; as many neighbours
        at a time as fill the shuffle buffer are shuffled among themselves. So whole groups can be
        skipped by their counts, and a group depends on nothing before it."""
        order_S = tf.argsort(
            hashed(self.seed, 2, epoch, tf.range(len(self.counts), dtype=tf.int64))
        )
        counts_S = tf.gather(tf.constant(self.counts, tf.int64), order_S)
        before_S = tf.cumsum(counts_S, exclusive=True)
        start_S = tf.clip_by_value(self.low - before_S, 0, counts_S)
        length_S = tf.clip_by_value(self.high - before_S, 0, counts_S) - start_S
        mine_S = length_S > 0
        shard_M, start_M, length_M = (
            tf.boolean_mask(x, mine_S) for x in (tf.cast(order_S, tf.int64), start_S, length_S)
        )
        full_M = tf.cumsum(length_M, exclusive=True) // self.buffer_size
        group_M = tf.unique(full_M).idx  # M of this host's shards -> G groups, numbered from 0
        length_G = tf.segment_sum(length_M, group_M)
        skip_G = tf.clip_by_value(skip - tf.cumsum(length_G, exclusive=True), 0, length_G)
        left_G = tf.where(skip_G < length_G)[:, 0]

        def group(g):
            inside = tf.equal(tf.cast(group_M, tf.int64), g)
            shards = tf.data.Dataset.from_tensor_slices(
                tuple(tf.boolean_mask(x, inside) for x in (shard_M, start_M, length_M))
            )
            records = shards.flat_map(self.shard)
            seed = shuffle_seed(self.seed, 3, epoch, g)
            return records.shuffle(self.buffer_size, seed=seed).skip(tf.gather(skip_G, g))

        return tf.data.Dataset.from_tensor_slices(left_G).flat_map(group)

    def shard(self, shard, start, length):
        """Records start ... start + length of one shard.

        TensorFlow leaves a file at its first bad checksum; what is lost of it comes as empty
        records, so that every later record keeps its position."""
        name = tf.gather(tf.constant(self.names), shard)
        examples = tf.data.TFRecordDataset(name, buffer_size=READ_BYTES)
        examples = examples.apply(tf.data.experimental.ignore_errors())
        lost = tf.data.Dataset.from_tensors(tf.constant(b"")).repeat()
        numbered = examples.concatenate(lost).enumerate(start=shard * (1 << RECORD_BITS))
        return numbered.skip(start).take(length)


def _decoded(example_N, record_N, names, image_size, raw, identities, on_error):
    """Examples -> (images, labels, names of damaged records).

    All are decoded in one go, which costs least; if that fails, one by one, to learn which."""
    shapes = example_N.shape.as_list() + list(image_size) + [3]

    def together(example_N):
        return _parse_and_decode(example_N, image_size, raw, identities)

    def alone(example):
        one = tf.data.Dataset.from_tensors(example[None])
        blank = tf.zeros([1] + shapes[1:], tf.uint8), tf.constant([-1], tf.int64)
        return _first_of(one.map(together), tf.data.Dataset.from_tensors(blank))

    def one_by_one(example_N):
        results = tf.data.Dataset.from_tensor_slices(example_N).flat_map(alone)
        images, labels = tf.data.experimental.get_single_element(results.batch(shapes[0]))
        return images[:, 0], labels[:, 0]

    batch = tf.data.Dataset.from_tensors(example_N)
    images, labels = tf.data.experimental.get_single_element(
        _first_of(batch.map(together), batch.map(one_by_one))
    )
    images.set_shape(shapes)
    labels.set_shape(shapes[:1])
    return _without_damaged(images, labels, record_N, names, on_error)


def _first_of(attempt, otherwise):
    """The attempt's one element, or the other's if it fails."""
    attempt = attempt.apply(tf.data.experimental.ignore_errors())
    return attempt.concatenate(otherwise).take(1)


def _parse_and_decode(example_N, image_size, raw, identities):
    """Examples -> (uint8 [N, H, W, 3], int64 [N]); any fault is an error."""
    features = tf.io.parse_example(
        example_N,
        {
            "image_raw": tf.io.FixedLenFeature([], tf.string),
            "label": tf.io.FixedLenFeature([], tf.int64),
        },
    )
    label_N, shape = features["label"], example_N.shape.as_list() + list(image_size) + [3]
    known = tf.reduce_all((label_N >= 0) & (label_N < identities))
    with tf.control_dependencies([tf.Assert(known, ["label"])]):
        image_N = tf.identity(features["image_raw"])
    if raw:
        pixels = tf.io.decode_raw(image_N, tf.uint8)
        images = tf.reverse(tf.reshape(pixels, shape), axis=[3])  # BGR, as the original wrote it
    else:  # an op for each image: a third less time than one call of a map function for each
        images = tf.stack([_decode(image) for image in tf.unstack(image_N, num=shape[0])])
    return tf.ensure_shape(images, shape), label_N


def _decode(image):
    """The slow integer transform, whose pixels are those of OpenCV and MXNet. PNG works as well."""
    return tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE")


def _without_damaged(images, label_N, record_N, names, on_error):
    """Damaged images (label -1) stop the run, or give their place to the next good one."""
    good_N = label_N >= 0
    damaged_M = tf.boolean_mask(record_N, ~good_N)
    shard_M = tf.bitwise.right_shift(damaged_M, _int64(RECORD_BITS))
    number_M = tf.bitwise.bitwise_and(damaged_M, _int64((1 << RECORD_BITS) - 1))
    where_M = tf.strings.join(
        [tf.gather(tf.constant(names), shard_M), tf.as_string(number_M)], ": record "
    )
    listed = tf.strings.reduce_join(where_M, separator="\n")
    if on_error == "stop":
        whole = tf.reduce_all(good_N)
        reason = tf.strings.join([_OPEN, tf.strings.reduce_join(where_M[:1]), _FAULT, _CLOSE])
    else:
        whole = tf.reduce_any(good_N)
        reason = tf.strings.join([_OPEN, listed, _FAULT, _CLOSE])
    with tf.control_dependencies([tf.Assert(whole, [reason])]):
        good_G = tf.where(good_N)[:, 0]
    if on_error == "stop":
        with tf.control_dependencies([good_G]):
            return tf.identity(images), tf.identity(label_N), listed
    return tf.cond(
        tf.reduce_all(good_N),
        lambda: (images, label_N, tf.constant("")),
        lambda: _replaced(images, label_N, good_N, good_G) + (listed,),
    )


_FAULT = (
    " cannot be read: it is damaged, its image does not decode to the set's size, or its label is "
    "not one of the set's; convert the data again."
)


def _replaced(images, label_N, good_N, good_G):
    here_N = tf.range(tf.size(good_N, out_type=tf.int64))
    other_N = tf.gather(good_G, here_N % tf.size(good_G, out_type=tf.int64))
    source_N = tf.where(good_N, here_N, other_N)
    return tf.gather(images, source_N), tf.gather(label_N, source_N)


def _holds_raw_pixels(path, manifest, image_size):
    """Whether the images are pixels and not files; an image of another size ends here."""
    height, width = image_size
    size = manifest.image_size
    try:
        _, image = parse_example(next(iter(tf.io.tf_record_iterator(path))))
    except (ValueError, StopIteration, tf.errors.OpError):
        return False  # the damaged record is reported when its turn comes
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR) if image else None
    if pixels is None and len(image) == height * width * 3:
        return True
    size = size or (None if pixels is None else pixels.shape[:2])
    if size and tuple(size) != (height, width):
        raise ValueError(
            f"{path}: its images are {size[0]}x{size[1]}, but --image_size is {height}x{width}; "
            f"pass --image_size {size[0]} {size[1]} or convert the images to that size."
        )
    return False


def _options(threads):
    options = tf.data.Options()
    if threads:
        room = (
            options.threading if hasattr(options, "threading") else options.experimental_threading
        )
        room.private_threadpool_size = threads
    return options


def _int64(value):
    return tf.constant(value, tf.int64)
