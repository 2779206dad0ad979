"""What training does to images: flips, and a stronger recipe. N images, H W pixels, RGB.

Every draw is a function of (seed, place in the stream), so a resumed run augments as the unbroken
one would have. Each change is computed for the chosen images alone.
"""

import dataclasses

from data.draws import uniform
from runtime.tf1 import tf


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How likely each change is for one image; the changes are drawn independently."""

    flip: float = 0.0  # left and right
    crop: float = 0.0  # a window of 75-100 % of each side, brought back to full size
    low_resolution: float = 0.0  # down to 15-75 % of the side and up again
    photometric: float = 0.0  # brightness, contrast and saturation
    jpeg: float = 0.0  # compressed at quality 10-70
    occlusion: float = 0.0  # a rectangle of 20-50 % of each side in one colour


RECIPES = {
    "none": Augmentation(),
    "flip": Augmentation(flip=0.5),
    "strong": Augmentation(0.5, 0.2, 0.2, 0.2, 0.2, 0.2),
}


def recipe(name, **probabilities):
    """A recipe by name, with single probabilities changed: recipe("strong", crop=0.1)."""
    if name not in RECIPES:
        raise ValueError(f"--augment {name} is not known; choose one of {', '.join(RECIPES)}.")
    return dataclasses.replace(RECIPES[name], **probabilities)


def augment_images(images_NHWC, seed, place_N, augmentation):
    """uint8 RGB -> uint8 RGB. place_N: int64, where in the endless stream each image stands."""
    if augmentation.flip:
        chosen_N = uniform(seed, 1, place_N) < augmentation.flip
        images_NHWC = _changed(images_NHWC, chosen_N, mirrored)
    return images_NHWC


def mirrored(images_NHWC):
    """Left and right swapped. In three dimensions, for which TensorFlow has a kernel 10 times as
    fast as the one for four."""
    rows = tf.reshape(images_NHWC, [-1] + images_NHWC.shape.as_list()[2:])
    return tf.reshape(tf.reverse(rows, axis=[1]), tf.shape(images_NHWC))


def _changed(images_NHWC, chosen_N, change):
    """The images with `change` applied to the chosen ones alone."""
    chosen, others = (tf.cast(tf.where(mask_N)[:, 0], tf.int32) for mask_N in (chosen_N, ~chosen_N))
    parts = [change(tf.gather(images_NHWC, chosen)), tf.gather(images_NHWC, others)]
    changed_NHWC = tf.dynamic_stitch([chosen, others], parts)
    changed_NHWC.set_shape(images_NHWC.shape)
    return changed_NHWC
