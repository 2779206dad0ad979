"""Augmentation recipes: which changes training makes to an image, and how often. No TensorFlow."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How likely each change is for one image; the changes are drawn independently."""

    flip: float = 0.0  # left and right
    crop: float = 0.0  # a window of 75-100 % of each side, brought back to full size
    low_resolution: float = 0.0  # down to 15-75 % of the side and up again
    photometric: float = 0.0  # brightness, contrast and saturation by up to 30 %
    jpeg: float = 0.0  # compressed at quality 10-70
    occlusion: float = 0.0  # a rectangle of 20-50 % of each side in one colour


RECIPES = {
    "none": Augmentation(),
    "flip": Augmentation(flip=0.5),
    "strong": Augmentation(0.5, 0.2, 0.2, 0.2, 0.2, 0.2),
}


def recipe(name: str, **probabilities: float) -> Augmentation:
    """A recipe by name, with single probabilities changed: recipe("strong", crop=0.1)."""
    if name not in RECIPES:
        raise ValueError(f"--augment {name} is not known; choose one of {', '.join(RECIPES)}.")
    changed = dataclasses.replace(RECIPES[name], **probabilities)
    for change, probability in dataclasses.asdict(changed).items():
        if not 0 <= probability <= 1:
            raise ValueError(f"The probability of {change} is {probability}; choose 0 to 1.")
    return changed
