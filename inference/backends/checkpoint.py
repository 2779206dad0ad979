"""A checkpoint of this repository on TensorFlow: images to embeddings.

N images of a set, B images of a run of the graph, H W pixels, D embedding.
"""

from typing import Any, Callable, Optional, Sequence, Tuple

import numpy as np

from checkpoint.reader import restore, spec_of
from inference.backends.base import Backend, ModelOptions
from inference.batches import BothWays, embed_encoded
from nets.build import embeddings
from nets.lineages import NetSpec
from runtime.device import strategy
from runtime.session import session_config
from runtime.tf1 import tf

DEFAULT_BATCH = 64
DYNAMIC = ("cpu", "gpu")  # devices that run any batch; others compile one static shape


class CheckpointEmbedder:
    """A checkpoint's network: `with CheckpointEmbedder(prefix) as embedder`.

    The checkpoint's own record describes the network. batch_size: images in one run of the graph,
    None for any number.
    """

    def __init__(
        self, ckpt_prefix: str, device: str = "cpu", batch_size: Optional[int] = DEFAULT_BATCH
    ) -> None:
        self.prefix, self.batch_size = ckpt_prefix, batch_size
        self.spec: NetSpec = spec_of(ckpt_prefix)
        self.image_size = (int(self.spec.image_size[0]), int(self.spec.image_size[1]))
        self.device, self.session_config = device, session_config(device)
        self.session: Any = None

    def __enter__(self) -> "CheckpointEmbedder":
        with tf.Graph().as_default() as graph:
            strategy(self.device).build_graph()
            shape = [self.batch_size] + list(self.image_size) + [3]
            self._images_BHWC = tf.placeholder(tf.uint8, shape, "images")
            self._outputs = self._build()
            self.session = tf.Session(graph=graph, config=self.session_config)
            try:
                self.restore(self.prefix)
            except BaseException:
                self.__exit__()
                raise
        return self

    def _build(self) -> Any:
        return embed_with_flip(self._images_BHWC, self.spec)

    def __exit__(self, *reason: Any) -> None:
        if self.session is not None:
            self.session.close()
        self.session = None

    def restore(self, ckpt_prefix: str) -> None:
        """Loads another checkpoint of the same network into the graph."""
        if spec_of(ckpt_prefix) != self.spec:
            raise ValueError(f"{ckpt_prefix} holds another net than {self.prefix}.")
        with self.session.graph.as_default():
            restore(self.session, ckpt_prefix, tf.global_variables())
        self.prefix = ckpt_prefix

    def embed_batch(self, images_BHWC: np.ndarray) -> BothWays:
        """uint8 RGB [B, H, W, 3] -> float32 (plain [B, D], mirrored [B, D]), in one run."""
        return self.session.run(self._outputs, {self._images_BHWC: images_BHWC})

    def embed_encoded(
        self, encoded: Sequence[bytes], progress: Optional[Callable[[int], Any]] = None
    ) -> BothWays:
        """Encoded images -> float32 (plain [N, D], mirrored [N, D])."""
        size = self.batch_size or DEFAULT_BATCH
        return embed_encoded(self.embed_batch, encoded, self.image_size, size, progress)


class _PlainEmbedder(CheckpointEmbedder):
    """The same graph without the mirrored half."""

    def _build(self) -> Any:
        return embeddings(self._images_BHWC, self.spec, training=False)

    def embed_plain(self, images_BHWC: np.ndarray) -> np.ndarray:
        """uint8 RGB [B, H, W, 3] -> float32 [B, D]."""
        return self.session.run(self._outputs, {self._images_BHWC: images_BHWC})


class CheckpointBackend(Backend):
    """A checkpoint behind the interface of exported models; no mirrored image is computed."""

    input_dtype = "uint8"

    def __init__(self, path: str, options: ModelOptions) -> None:
        batch_size = options.batch_size
        if options.device not in DYNAMIC:
            batch_size = batch_size or DEFAULT_BATCH
        self._embedder = _PlainEmbedder(path, options.device, batch_size)
        self._embedder.session_config.intra_op_parallelism_threads = options.threads or 0
        self._embedder.__enter__()
        self.input_shape = (batch_size,) + tuple(self._embedder.image_size) + (3,)

    def run(self, x: np.ndarray) -> np.ndarray:
        return self._embedder.embed_plain(x)

    def close(self) -> None:
        self._embedder.__exit__()


def embed_with_flip(images_BHWC: tf.Tensor, spec: NetSpec) -> Tuple[tf.Tensor, tf.Tensor]:
    """uint8 RGB [B, H, W, 3] -> embeddings of the images and of their mirrors, in one pass."""
    both_BHWC = tf.concat([images_BHWC, tf.reverse(images_BHWC, axis=[2])], axis=0)
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
        return tuple(tf.split(embeddings(both_BHWC, spec, training=False), 2))
