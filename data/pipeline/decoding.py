"""Batches of Examples -> images and labels; a damaged one is an error, or is replaced and named.

N examples of a batch, H W pixels. Pixels are those of OpenCV's decoder: the slow integer transform
and smooth chroma.
"""

from typing import List, Sequence, Tuple

from data.pipeline.record_order import RECORD_BITS
from runtime.tf1 import tf

FAULT = (
    "it is damaged, its image does not decode to {0}x{1} pixels, or its label is not in [0, {2})"
)


class Decoder:
    """How the images of one data set become pixels. raw: they are BGR pixels, not files."""

    def __init__(self, image_size: Sequence[int], identities: int, raw: bool = False) -> None:
        self.image_size, self.identities, self.raw = tuple(image_size), identities, raw

    def decode(self, example_N: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
        """string [N] -> (uint8 [N, H, W, 3] RGB, int64 [N]); any damage is an error."""
        features = tf.io.parse_example(
            example_N,
            {
                "image_raw": tf.io.FixedLenFeature([], tf.string),
                "label": tf.io.FixedLenFeature([], tf.int64),
            },
        )
        label_N = features["label"]
        known = tf.reduce_all((label_N >= 0) & (label_N < self.identities))
        with tf.control_dependencies([tf.Assert(known, ["label out of range"])]):
            label_N = tf.identity(label_N)
        return self._pixels(features["image_raw"]), label_N

    def _pixels(self, image_N):
        shape = image_N.shape.as_list() + list(self.image_size) + [3]
        if self.raw:
            pixels = tf.reshape(tf.io.decode_raw(image_N, tf.uint8), shape)
            return tf.reverse(pixels, axis=[3])  # BGR, as the original wrote it
        # An op for each image: a quarter less time than one call of a map function for each.
        images = tf.stack([_decode_file(image) for image in tf.unstack(image_N)])
        return tf.ensure_shape(images, shape)

    def decode_or_replace(
        self, example_N: tf.Tensor, record_N: tf.Tensor, names: List[str]
    ) -> Tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """As decode(), and a string that names the damaged records, one a line.

        Another image of the batch, with its label, takes the place of a damaged one. All are
        decoded in one go, which costs least; if that fails, one by one, to learn which."""
        count = example_N.shape.as_list()[0]

        def alone(example):
            one = tf.data.Dataset.from_tensors(example[None])
            blank = tf.zeros((1,) + self.image_size + (3,), tf.uint8), tf.constant([-1], tf.int64)
            return _first_of(one.map(self.decode), tf.data.Dataset.from_tensors(blank))

        def one_by_one(example_N):
            results = tf.data.Dataset.from_tensor_slices(example_N).flat_map(alone)
            images, labels = tf.data.experimental.get_single_element(results.batch(count))
            return images[:, 0], labels[:, 0]

        batch = tf.data.Dataset.from_tensors(example_N)
        images, label_N = tf.data.experimental.get_single_element(
            _first_of(batch.map(self.decode), batch.map(one_by_one))
        )
        images.set_shape((count,) + self.image_size + (3,))
        label_N.set_shape([count])
        images, label_N, listed = tf.cond(
            tf.reduce_all(label_N >= 0),
            lambda: (images, label_N, tf.constant("")),
            lambda: _replaced(images, label_N) + (_listed(label_N, record_N, names),),
        )
        images.set_shape((count,) + self.image_size + (3,))
        label_N.set_shape([count])
        return images, label_N, listed


def _decode_file(image):
    """JPEG; TensorFlow's kernel reads PNG as well."""
    return tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE")


def _first_of(attempt, otherwise):
    """The attempt's one element, or the other's if it fails."""
    attempt = attempt.apply(tf.data.experimental.ignore_errors())
    return attempt.concatenate(otherwise).take(1)


def _replaced(images, label_N):
    """Label -1 marks the damaged; the good ones take their places in turn."""
    good_N = label_N >= 0
    good_G = tf.where(good_N)[:, 0]
    some = tf.Assert(tf.size(good_G) > 0, ["not one image of a whole batch can be read"])
    with tf.control_dependencies([some]):
        here_N = tf.range(tf.size(label_N, out_type=tf.int64))
    other_N = tf.gather(good_G, here_N % tf.maximum(tf.size(good_G, out_type=tf.int64), 1))
    source_N = tf.where(good_N, here_N, other_N)
    return tf.gather(images, source_N), tf.gather(label_N, source_N)


def _listed(label_N, record_N, names):
    damaged = tf.boolean_mask(record_N, label_N < 0)
    bits = tf.constant(RECORD_BITS, tf.int64)
    shard = tf.bitwise.right_shift(damaged, bits)
    number = damaged - tf.bitwise.left_shift(shard, bits)
    where = tf.strings.join(
        [tf.gather(tf.constant(names), shard), tf.as_string(number)], ": record "
    )
    return tf.strings.reduce_join(where, separator="\n")
