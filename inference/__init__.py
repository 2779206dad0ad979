"""Images to embeddings: `from inference import Embedder`. Importing it loads no runtime."""

from typing import Any

__all__ = ["Embedder"]


def __getattr__(name: str) -> Any:
    if name == "Embedder":
        from inference.embedder import Embedder

        return Embedder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
