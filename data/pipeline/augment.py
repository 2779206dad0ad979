"""What training does to images: flips, and a stronger recipe. N images, H W pixels, RGB.

Every draw is a function of (seed, place in the stream), so a resumed run augments as the unbroken
one would have. Each change is computed for the chosen images alone.
"""

from data.pipeline.recipes import Augmentation
from data.pipeline.stateless_random import uniform
from runtime.tf1 import tf

QUALITIES = (10, 20, 30, 40, 50, 60, 70)  # TensorFlow 1.15 compresses at fixed qualities only


def augment_images(
    images_NHWC: tf.Tensor, seed: int, place_N: tf.Tensor, augmentation: Augmentation
) -> tf.Tensor:
    """uint8 RGB -> uint8 RGB. place_N: int64, where in the endless stream each image stands.

    In the order in which a camera's picture suffers: framed, lit, occluded, shrunk, compressed."""
    for number, (name, change) in enumerate(_CHANGES, start=1):
        probability = getattr(augmentation, name)
        if probability:
            chosen_N = uniform(seed, number, place_N) < probability
            images_NHWC = _changed(images_NHWC, chosen_N, change, (seed, 16 * number), place_N)
    return images_NHWC


def _changed(images_NHWC, chosen_N, change, keys, place_N):
    """The images with `change` applied to the chosen ones alone, and to none if none is chosen
    (TensorFlow 1.15 divides by zero when it reverses no rows)."""

    def stitched():
        here, others = (tf.cast(tf.where(mask)[:, 0], tf.int32) for mask in (chosen_N, ~chosen_N))
        place = tf.gather(place_N, here)

        def draw(number):
            return uniform(keys[0], keys[1] + number, place)

        parts = [change(tf.gather(images_NHWC, here), draw), tf.gather(images_NHWC, others)]
        return tf.reshape(tf.dynamic_stitch([here, others], parts), images_NHWC.shape)

    return tf.cond(tf.reduce_any(chosen_N), stitched, lambda: images_NHWC)


# Changes: uint8 [M, H, W, 3] and draw(number) -> float32 [M] in [0, 1) -> uint8 [M, H, W, 3].


def _flip(images, draw):
    """In three dimensions, for which TensorFlow has a kernel 10 times as fast as for four."""
    rows = tf.reshape(images, [-1] + images.shape.as_list()[2:])
    return tf.reshape(tf.reverse(rows, axis=[1]), tf.shape(images))


def _crop(images, draw):
    high, wide = (0.75 + 0.25 * draw(number) for number in (0, 1))
    top, left = (1 - high) * draw(2), (1 - wide) * draw(3)
    boxes = tf.stack([top, left, top + high, left + wide], axis=1)
    size = images.shape.as_list()[1:3]
    cropped = tf.image.crop_and_resize(images, boxes, tf.range(tf.shape(images)[0]), size)
    return _to_uint8(cropped)


def _photometric(images, draw):
    brightness, contrast, saturation = (
        (0.7 + 0.6 * draw(number))[:, None, None, None] for number in (0, 1, 2)
    )
    pixels = tf.cast(images, tf.float32) * brightness
    gray = tf.reduce_sum(pixels * [0.299, 0.587, 0.114], axis=3, keepdims=True)
    pixels = gray + (pixels - gray) * saturation
    mean = tf.reduce_mean(gray, axis=[1, 2], keepdims=True)
    return _to_uint8(mean + (pixels - mean) * contrast)


def _occlude(images, draw):
    """A rectangle in one colour, as a hand, a mask or a microphone before a face."""
    inside = None
    for axis, side in enumerate(images.shape.as_list()[1:3]):
        length = (0.2 + 0.3 * draw(2 * axis)) * side
        start = (side - length) * draw(2 * axis + 1)
        steps = tf.range(side, dtype=tf.float32)[None]
        within = (steps >= start[:, None]) & (steps < (start + length)[:, None])
        within = within[:, :, None] if axis == 0 else within[:, None, :]
        inside = within if inside is None else inside & within
    colour = tf.cast(256 * tf.stack([draw(4), draw(5), draw(6)], axis=1), tf.uint8)
    covered = tf.cast(inside, tf.uint8)[..., None]
    return images * (1 - covered) + colour[:, None, None, :] * covered


def _shrink(images, draw):
    """Down by area and up by cubic, as a distant face is."""
    height, width = images.shape.as_list()[1:3]

    def one(element):
        image, scale = element
        small = tf.stack(
            [tf.maximum(2, tf.cast(side * scale, tf.int32)) for side in (height, width)]
        )
        down = tf.image.resize_area(image[None], small)
        return _to_uint8(tf.image.resize_bicubic(down, [height, width], half_pixel_centers=True))[0]

    return tf.map_fn(one, (images, 0.15 + 0.6 * draw(0)), dtype=tf.uint8)


def _compress(images, draw):
    def one(element):
        image, quality = element
        branches = [lambda q=q: tf.io.encode_jpeg(image, quality=q) for q in QUALITIES]
        return tf.io.decode_jpeg(tf.switch_case(quality, branches), channels=3)

    choice = tf.cast(len(QUALITIES) * draw(0), tf.int32)
    compressed = tf.map_fn(one, (images, choice), dtype=tf.uint8)
    compressed.set_shape(images.shape)
    return compressed


def _to_uint8(pixels):
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)


_CHANGES = (
    ("flip", _flip),
    ("crop", _crop),
    ("photometric", _photometric),
    ("occlusion", _occlude),
    ("low_resolution", _shrink),
    ("jpeg", _compress),
)
