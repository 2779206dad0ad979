"""A saved net -> images to embeddings: the one bridge from TensorFlow to NumPy.

N images of a set, B images of a run of the graph, H W pixels, D embedding.
"""

import concurrent.futures

import numpy as np

from checkpoint.reader import restore, spec_of
from data.eval_data_reader import decode_images
from nets.build import embeddings
from runtime.session import session_config
from runtime.tf1 import build_for, tf

DECODERS = 2  # threads, each a batch ahead; TensorFlow and OpenCV both let go of the GIL


class Embedder:
    """A checkpoint that embeds; `with Embedder(prefix) as embedder: embedder.embed_batch(...)`.

    What net it is, the checkpoint's own record says. batch_size: images in one run of the graph.
    """

    def __init__(self, ckpt_prefix, device="cpu", batch_size=64):
        self.prefix, self.batch_size = ckpt_prefix, batch_size
        self.spec = spec_of(ckpt_prefix)
        self.image_size = tuple(self.spec.image_size)
        self.device, self.session_config = device, session_config(device)
        self.session = None

    def __enter__(self):
        with tf.Graph().as_default() as graph:
            build_for(self.device)
            shape = [self.batch_size] + list(self.image_size) + [3]
            self._images_BHWC = tf.placeholder(tf.uint8, shape, "images")
            self._outputs = embed_with_flip(self._images_BHWC, self.spec)
            self.session = tf.Session(graph=graph, config=self.session_config)
            try:
                self.restore(self.prefix)
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *reason):
        self.session.close()
        self.session = None

    def restore(self, ckpt_prefix):
        """Takes another checkpoint of the same net into the graph that is there."""
        if spec_of(ckpt_prefix) != self.spec:
            raise ValueError(f"{ckpt_prefix} holds another net than {self.prefix}.")
        with self.session.graph.as_default():
            restore(self.session, ckpt_prefix, tf.global_variables())
        self.prefix = ckpt_prefix

    def embed_batch(self, images_BHWC):
        """uint8 RGB [B, H, W, 3] -> float32 (plain [B, D], mirrored [B, D]), in one run."""
        return self.session.run(self._outputs, {self._images_BHWC: images_BHWC})

    def embed_encoded(self, encoded, progress=None):
        """Encoded images -> float32 (plain [N, D], mirrored [N, D])."""
        return embed_encoded(self.embed_batch, encoded, self.image_size, self.batch_size, progress)


def embed_with_flip(images_BHWC, spec):
    """uint8 RGB [B, H, W, 3] -> embeddings of the images and of their mirrors, in one pass."""
    both_BHWC = tf.concat([images_BHWC, tf.reverse(images_BHWC, axis=[2])], axis=0)
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
        return tuple(tf.split(embeddings(both_BHWC, spec, training=False), 2))


def embed_encoded(embed_batch, encoded, image_size, batch_size, progress=None, where="image"):
    """Encoded images (a sequence of bytes) -> float32 (plain [N, D], mirrored [N, D]).

    embed_batch: uint8 [B, H, W, 3] -> (plain [B, D], mirrored [B, D]) of exactly B rows; the last
    batch is filled up with its last image. progress: called with the images done by each batch.
    where: names an image that does not decode.
    """

    def decode(start):
        return decode_images(encoded[start : start + batch_size], image_size, where, start)

    batches = prefetch(decode, range(0, len(encoded), batch_size))
    return embed_images(embed_batch, batches, len(encoded), batch_size, progress)


def embed_images(embed_batch, batches, images, batch_size, progress=None):
    """Batches of uint8 [<= B, H, W, 3], `images` in all -> float32 (plain, mirrored) [N, D]."""
    both, done = None, 0
    for images_BHWC in batches:
        count = len(images_BHWC)
        parts = embed_batch(pad_batch(images_BHWC, batch_size))
        if both is None:
            both = tuple(np.empty((images, part.shape[1]), np.float32) for part in parts)
        for whole_ND, part_BD in zip(both, parts):
            whole_ND[done : done + count] = part_BD[:count]
        done += count
        if progress is not None:
            progress(count)
    assert done == images, f"{done} of {images} images came"
    return both


def prefetch(work, items, workers=DECODERS):
    """work(item) for each item, in order; `workers` results are made while one is used."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        waiting = []
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > workers:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def pad_batch(images_BHWC, batch_size):
    """A short batch repeated to batch_size by its last image: the graph has one static shape."""
    missing = batch_size - len(images_BHWC)
    if not missing:
        return images_BHWC
    return np.concatenate([images_BHWC, np.repeat(images_BHWC[-1:], missing, axis=0)])
