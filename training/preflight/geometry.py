"""Whether training and verification images are cut with the same template."""

import itertools
import logging
from typing import Dict, List, Mapping

from data.crop_geometry import IMAGES, Shift, describe, face_shift, is_misaligned, spread
from data.eval_data_reader import decode_images
from data.formats.image_headers import image_fault
from training.config import TrainConfig
from training.plan import Plan
from training.preflight.first_batch import records


def warn_of_shifts(
    config: TrainConfig, plan: Plan, encoded: Mapping[str, List[bytes]]
) -> Dict[str, Shift]:
    """Logs, and returns, by how much the faces of sets are shifted against the training images,
    where that is more than another photograph explains. encoded: set -> its encoded images."""
    size = (config.image_size[0], config.image_size[1])
    first = itertools.islice(records(config.tfrecords_file_path, plan.manifest), IMAGES)
    training = [record.image for record in first if image_fault(record.image) is None]
    if not encoded or not training:  # raw pixels have no evaluation decoder to compare with
        return {}
    training_NHWC, found = decode_images(training, size, "training image"), {}
    for name, images in encoded.items():
        shift = face_shift(training_NHWC, decode_images(spread(images), size, f"{name}: image"))
        if shift is not None and is_misaligned(shift, size[0]):
            found[name] = shift
            logging.warning(
                "%s: its mean face is %s of that of the training images: they are cut with "
                "different templates, which costs accuracy. Align both with the same one "
                "(faces/alignment.py).",
                name,
                describe(shift),
            )
    return found
