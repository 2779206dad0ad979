"""Batches of images: decoded ahead of the network, filled to a fixed size, embedded in order.

N images of a set, B images of a batch, H W pixels, D embedding.
"""

import concurrent.futures
from typing import Any, Callable, Iterable, Iterator, Optional, Sequence, Tuple

import numpy as np

from data.eval_data_reader import decode_images

DECODERS = 2  # threads, each a batch ahead; the runtimes and OpenCV release the GIL

BothWays = Tuple[np.ndarray, np.ndarray]  # embeddings of the images and of their mirror images
EmbedBatch = Callable[[np.ndarray], BothWays]


def embed_encoded(
    embed_batch: EmbedBatch,
    encoded: Sequence[bytes],
    image_size: Tuple[int, int],
    batch_size: int,
    progress: Optional[Callable[[int], Any]] = None,
    where: str = "image",
) -> BothWays:
    """Encoded images (a sequence of bytes) -> float32 (plain [N, D], mirrored [N, D]).

    embed_batch: uint8 [B, H, W, 3] -> (plain [B, D], mirrored [B, D]) of exactly B rows; the last
    batch is filled up with its last image. progress: called with the images done by each batch.
    where: names an image that does not decode.
    """

    def decode(start: int) -> np.ndarray:
        return decode_images(encoded[start : start + batch_size], image_size, where, start)

    batches = prefetch(decode, range(0, len(encoded), batch_size))
    return embed_images(embed_batch, batches, len(encoded), batch_size, progress)


def embed_images(
    embed_batch: EmbedBatch,
    batches: Iterable[np.ndarray],
    images: int,
    batch_size: int,
    progress: Optional[Callable[[int], Any]] = None,
) -> BothWays:
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
    assert both is not None and done == images, f"{done} of {images} images came"
    return both


def prefetch(
    work: Callable[[Any], Any], items: Iterable[Any], workers: int = DECODERS
) -> Iterator[Any]:
    """work(item) for each item, in order; `workers` results are made while one is used."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        waiting = []
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > workers:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def pad_batch(images_BHWC: np.ndarray, batch_size: int) -> np.ndarray:
    """A short batch repeated to batch_size by its last image, for a graph of one static shape."""
    missing = batch_size - len(images_BHWC)
    if not missing:
        return images_BHWC
    return np.concatenate([images_BHWC, np.repeat(images_BHWC[-1:], missing, axis=0)])
