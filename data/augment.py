"""What training does to images: flips, and a stronger recipe for hard test sets. N images, H W, RGB.

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
        images_NHWC = tf.where(chosen_N, tf.reverse(images_NHWC, axis=[2]), images_NHWC)
    return images_NHWC
