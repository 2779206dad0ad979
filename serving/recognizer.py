"""A model, a detector and what they need of a photo: photo -> aligned crop -> unit embedding.

No TensorFlow for exported models. N crops, H W pixels, D embedding.
"""

import hashlib
import os
from typing import List, NamedTuple

import numpy as np

from faces.cropping import SMALLEST_FACE, Crop, crop_photo
from faces.detection import open_detector
from faces.photo import MAX_BYTES, PhotoError
from inference.embedder import Embedder
from runtime.files import sha256_of
from serving.face_bank import ModelContract
from serving.unit_vectors import unit


class EmbeddedPhoto(NamedTuple):
    """A photo's face and its embedding."""

    crop: Crop
    unit_D: np.ndarray  # float32 of length 1
    source_digest: str  # SHA-256 of the photo's bytes


class Recognizer:
    """Photos -> unit embeddings of one model."""

    def __init__(
        self,
        model: str,
        detector: str = "auto",
        flip: bool = True,
        largest: bool = False,
        smallest_face: float = SMALLEST_FACE,
    ) -> None:
        """model: an exported model or a checkpoint. detector: see faces/detection.py.
        flip: adds the mirrored image's embedding. largest: of several faces takes the largest."""
        self._embedder = open_embedder(model)
        height, width = self._embedder.image_size
        self.image_size = (int(height), int(width))
        self.detector = open_detector(detector)
        self.flip, self.largest, self.smallest_face = flip, largest, smallest_face
        self.contract = ModelContract(
            digest=model_digest(model),
            embedding_size=self._probe(),
            preprocessing=self._preprocessing(),
            flip=flip,
        )

    def embed_crops(self, images_NHWC: np.ndarray) -> np.ndarray:
        """uint8 RGB [N, H, W, 3] -> unit vectors, float32 [N, D]."""
        return unit(self._embedder.embed(images_NHWC, self.flip))

    def crop(self, encoded: bytes) -> Crop:
        """The one face of a photo's bytes."""
        return crop_photo(encoded, self.detector, self.image_size, self.largest, self.smallest_face)

    def embed_photo(self, encoded: bytes) -> EmbeddedPhoto:
        """A photo's bytes -> its face and embedding."""
        crop = self.crop(encoded)
        return EmbeddedPhoto(crop, self.embed_crops(crop.image_HWC[None])[0], digest(encoded))

    def _preprocessing(self):
        """What happens to a crop before the model, as inference/ found it."""
        height, width = self.image_size
        order, mean, scale, _ = self._embedder.preprocessing
        return f"{order}, ({', '.join(map(str, mean))}) / {scale:g}, {height}x{width}"

    def _probe(self):
        height, width = self.image_size
        return int(np.shape(self._embedder.embed(np.zeros((1, height, width, 3), np.uint8)))[1])


def open_embedder(model: str) -> Embedder:
    """The model at a path, refused where it is PyTorch's."""
    if model.endswith((".pth", ".pt")):
        raise ValueError(
            f"{model} is a PyTorch file; convert it with convert_weights.py, then pass the "
            "checkpoint or an ONNX export of it."
        )
    return Embedder(model)


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def model_digest(model: str) -> str:
    """SHA-256 over a model's file, or over the files of a checkpoint's prefix or a directory."""
    return sha256_of(*_files(model))


def read_file(path: str) -> bytes:
    """A photo's file, refused by its size before it is read."""
    if os.path.getsize(path) > MAX_BYTES:
        raise PhotoError("too_large", f"has more than {MAX_BYTES >> 20} MiB; reduce it")
    with open(path, "rb") as stream:
        return stream.read()


def _files(model) -> List[str]:
    if os.path.isfile(model):
        return [model]
    if os.path.isdir(model):
        found = [os.path.join(at, name) for at, _, names in os.walk(model) for name in names]
        return sorted(found)
    directory, prefix = os.path.split(model)
    names = os.listdir(directory or ".") if os.path.isdir(directory or ".") else []
    weights = sorted(n for n in names if n.startswith((prefix + ".data-", prefix + ".index")))
    if not weights:
        raise ValueError(f"--model {model} is not there; pass an exported model or a checkpoint.")
    return [os.path.join(directory, name) for name in weights]
