"""One interface to every model file: uint8 RGB images to embeddings.

N images, B images of a run, H W pixels, D embedding.
"""

import time
from typing import Any, Callable, Optional, Sequence, Tuple

import numpy as np

from checkpoint.model_metadata import ModelMetadata
from data.convert.worker_pool import allowed_cores
from inference import preprocessing
from inference.backends.base import Backend, ModelOptions
from inference.batches import BothWays, embed_encoded, pad_batch
from inference.micro_batch import MicroBatch
from inference.model_files import (
    CHECKPOINT,
    checkpoint_prefix,
    model_kind,
    open_backend,
    read_metadata,
)
from inference.onnx_file import read_onnx
from inference.preprocessing import Preprocessing, to_input

DEFAULT_OPTIONS = ModelOptions()
USUAL_SIZE = (112, 112)  # of a model that leaves height and width open


class Embedder:
    """A loaded model: `Embedder("model.onnx").embed(images)`.

    backend: None takes the first of BACKENDS that is installed and reads it. given: the
    preprocessing of a model that does not describe its own."""

    def __init__(
        self,
        model: str,
        backend: Optional[str] = None,
        options: ModelOptions = DEFAULT_OPTIONS,
        given: Optional[Preprocessing] = None,
    ) -> None:
        self.model, self.precision = checkpoint_prefix(model), options.precision
        self.threads = options.threads or allowed_cores()
        self._embedding_size: Optional[int] = None
        options = options._replace(threads=self.threads)
        self.backend_name, self._backend = open_backend(self.model, backend, options)
        try:
            self._check_backend()
            self.metadata: Optional[ModelMetadata] = read_metadata(self.model)
            self.preprocessing = self._choose_preprocessing(given)
            self._micro_batch = MicroBatch(*self._sizes(options.batch_size))
        except BaseException:
            self.close()
            raise

    @property
    def image_size(self) -> Tuple[int, int]:
        """(height, width) that the model takes."""
        size = self._backend.image_size
        if size is not None:
            return size
        if self.metadata is None:
            return USUAL_SIZE
        return (int(self.metadata.image_size[0]), int(self.metadata.image_size[1]))

    @property
    def embedding_size(self) -> int:
        """Numbers in an embedding; the first call runs a blank image."""
        if self._embedding_size is None:
            shape = (self._backend.input_shape[0] or 1,) + self.image_size + (3,)
            blank_BHWC: np.ndarray = np.zeros(shape, np.uint8)
            self._embedding_size = self.run(self.preprocess(blank_BHWC)).shape[1]
        return self._embedding_size

    def warm_up(self) -> None:
        """Runs the model once, so that a timed run plans no memory."""
        self._embedding_size = None
        assert self.embedding_size > 0

    @property
    def batch_size(self) -> int:
        """Images in one run, as chosen so far."""
        return self._micro_batch.size

    def embed(self, images_NHWC: np.ndarray, flip: bool = False) -> np.ndarray:
        """uint8 RGB [N, H, W, 3] -> float32 [N, D]; flip adds the mirrored image's embedding.

        The rows are not normalised unless the network does it (docs/inference.md)."""
        images_NHWC = self._checked(images_NHWC)
        embeddings_ND = self._forward(images_NHWC)
        if flip:
            embeddings_ND = embeddings_ND + self._forward(images_NHWC[:, :, ::-1])
        return embeddings_ND

    def embed_batch(self, images_BHWC: np.ndarray) -> BothWays:
        """uint8 RGB [B, H, W, 3] -> float32 (plain [B, D], mirrored [B, D])."""
        images_BHWC = self._checked(images_BHWC)
        return self._forward(images_BHWC), self._forward(images_BHWC[:, :, ::-1])

    def embed_encoded(
        self, encoded: Sequence[bytes], progress: Optional[Callable[[int], Any]] = None
    ) -> BothWays:
        """Encoded images -> float32 (plain [N, D], mirrored [N, D])."""
        return embed_encoded(self.embed_batch, encoded, self.image_size, 64, progress)

    def run(self, x: np.ndarray) -> np.ndarray:
        """The model's own input, already preprocessed, [B, ...] -> float32 [B, D]."""
        y = np.asarray(self._backend.run(x))
        if y.shape[:1] != x.shape[:1] or y.ndim < 2:
            raise ValueError(
                f"{self.model} returned {list(y.shape)} for {len(x)} images, but an embedding "
                "network returns one row an image; export it with a dynamic batch or as [N, D]."
            )
        return y.reshape(len(x), -1).astype(np.float32, copy=False)

    def preprocess(self, images_NHWC: np.ndarray) -> np.ndarray:
        """uint8 RGB [N, H, W, 3] -> what `run` takes."""
        model = self._backend
        return to_input(images_NHWC, self.preprocessing, model.channels_first, model.input_dtype)

    @property
    def input_shape(self) -> Tuple[Optional[int], ...]:
        """Shape of what `run` takes; None where the model leaves a dimension open."""
        return self._backend.input_shape

    @property
    def input_dtype(self) -> str:
        """NumPy's name of the element type of what `run` takes."""
        return self._backend.input_dtype

    def close(self) -> None:
        """Releases the model."""
        self._backend.close()

    def __enter__(self) -> "Embedder":
        return self

    def __exit__(self, *reason: Any) -> None:
        self.close()

    def _forward(self, images_NHWC: np.ndarray) -> np.ndarray:
        rows, at = [], 0
        while at < len(images_NHWC):
            size = self._micro_batch.size
            part_BHWC = images_NHWC[at : at + size]
            fixed = self._backend.input_shape[0]
            start = time.perf_counter()
            rows.append(self.run(self.preprocess(pad_batch(part_BHWC, fixed or len(part_BHWC)))))
            self._micro_batch.record(len(part_BHWC), time.perf_counter() - start)
            rows[-1] = rows[-1][: len(part_BHWC)]
            at += size
        return np.concatenate(rows)

    def _sizes(self, batch_size: Optional[int]) -> Tuple[Tuple[int, ...], ...]:
        """Arguments of MicroBatch: the one size that is wanted or possible, or none: measure."""
        fixed = self._backend.input_shape[0]
        only = fixed or batch_size
        return ((only,),) if only else ()

    def _checked(self, images_NHWC: np.ndarray) -> np.ndarray:
        images_NHWC = np.asarray(images_NHWC)
        wanted = self.image_size + (3,)
        if images_NHWC.dtype != np.uint8 or images_NHWC.shape[1:] != wanted or not len(images_NHWC):
            raise ValueError(
                f"The images are {images_NHWC.dtype} {list(images_NHWC.shape)}, but {self.model} "
                f"takes uint8 RGB [N, {wanted[0]}, {wanted[1]}, 3]; convert or resize them."
            )
        return images_NHWC

    def _check_backend(self) -> None:
        model: Backend = self._backend
        if model.outputs != 1:
            raise ValueError(
                f"{self.model} has {model.outputs} outputs, but an embedding network has one; "
                "export it with the embedding as its only output."
            )
        if len(model.input_shape) != 4 or 3 not in (model.input_shape[1], model.input_shape[3]):
            raise ValueError(
                f"{self.model} takes an input of shape {list(model.input_shape)}, but an embedding "
                "network takes images, [N, 3, H, W] or [N, H, W, 3]."
            )
        if model.input_dtype not in ("uint8", "float32", "float16"):
            raise ValueError(
                f"{self.model} takes {model.input_dtype} input, but images are uint8 or float32; "
                "export it with float32 input."
            )

    def _choose_preprocessing(self, given: Optional[Preprocessing]) -> Preprocessing:
        kind = model_kind(self.model)
        described = None
        if kind == CHECKPOINT:
            described = Preprocessing("RGB", (0.0,), 1.0, "its record")
        elif self.metadata is not None:
            described = preprocessing.from_metadata(self.metadata)
        if described is not None and given is not None:
            raise ValueError(
                f"{self.model} describes its preprocessing; omit --pixels, --mean and --scale."
            )
        if described is not None:
            return described
        found = given or preprocessing.from_insightface_manifest(self.model)
        if found is None and kind == ".onnx":
            found = preprocessing.from_node_names(read_onnx(self.model).first_node_names)
        if found is None:
            raise ValueError(
                f"{self.model} has no metadata and no manifest.json, so its preprocessing is not "
                "known; pass --pixels RGB or BGR, --mean and --scale: pixel = (x - mean) / scale."
            )
        if self._backend.input_dtype == "uint8" and not found.is_identity:
            return Preprocessing(found.channel_order, (0.0,), 1.0, "its uint8 input")
        return found
