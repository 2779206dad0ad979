"""Images to embeddings: `from inference import Embedder`. Importing it loads no runtime."""

from typing import Any

__all__ = ["Embedder", "ModelOptions"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from inference import embedder

    return getattr(embedder, name)
