"""A source of images -> an .npy of embeddings: decoded ahead of the network, stored batch by batch.

B images of a batch, D embedding.
"""

import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from inference.batches import prefetch
from inference.embedder import Embedder
from inference.embedding_file import EmbeddingFile, Failure
from inference.sources import Batch, Item, Source, decode_batch, file_identity, grouped

BATCH = 64  # images between two entries of the journal
ON_ERROR = ("stop", "skip", "nan")


class EmbedPlan(NamedTuple):
    """What is written for a source."""

    flip: bool  # whether the mirrored image's embedding is added
    on_error: str  # of ON_ERROR: what an unreadable image does
    batch_size: int  # images between two entries of the journal


class EmbedResult(NamedTuple):
    """What was written."""

    rows: int  # of the .npy
    dimension: int  # of an embedding
    failed: Tuple[Failure, ...]  # unreadable images


def embed_source(
    embedder: Embedder,
    source: Source,
    output: str,
    plan: EmbedPlan,
    progress: Optional[Callable[[int], Any]] = None,
) -> EmbedResult:
    """Embeds every image of a source into `output`; an unfinished run of the same is resumed."""
    identity = run_identity(embedder, source, plan)
    size = embedder.image_size
    shape = (source.images, embedder.embedding_size)
    with EmbeddingFile(output, shape, identity, source.named) as file:
        done = file.progress.images
        if progress is not None:
            progress(done)

        def decode(items: List[Item]) -> Batch:
            return decode_batch(items, source, size)

        for batch in prefetch(decode, grouped(source.items(done), plan.batch_size)):
            if batch.failed and plan.on_error == "stop":
                raise ValueError(batch.failed[0][1])
            rows_BD, names = _embed_batch(embedder, batch, plan)
            file.append(rows_BD, names, batch.size, batch.failed)
            if progress is not None:
                progress(batch.size)
        failed = file.progress.failed
        rows = file.finish()
    return EmbedResult(rows, embedder.embedding_size, failed)


def run_identity(embedder: Embedder, source: Source, plan: EmbedPlan) -> Dict[str, Any]:
    """What the rows depend on; a resumed run must agree in all of it."""
    return {
        "model": model_identity(embedder.model),
        "backend": embedder.backend_name,
        "precision": embedder.precision,
        "preprocessing": list(embedder.preprocessing[:3]),
        "source": source.identity,
        "flip": plan.flip,
        "on_error": plan.on_error,
    }


def model_identity(path: str) -> str:
    """Equal while the model's file is not written again."""
    inside = os.path.join(path, "saved_model.pb")
    index = f"{path}.index"
    return file_identity(next(p for p in (inside, index, path) if os.path.isfile(p)))


def _embed_batch(embedder: Embedder, batch: Batch, plan: EmbedPlan) -> Tuple[np.ndarray, List[str]]:
    rows_BD: np.ndarray = np.empty((0, embedder.embedding_size), np.float32)
    if len(batch.images_BHWC):
        rows_BD = embedder.embed(batch.images_BHWC, plan.flip)
    if plan.on_error != "nan" or not batch.failed:
        return rows_BD, batch.names
    whole_BD: np.ndarray = np.full((batch.size, embedder.embedding_size), np.nan, np.float32)
    whole_BD[batch.rows] = rows_BD
    return whole_BD, batch.all_names
