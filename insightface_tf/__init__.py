"""The installed form of the project: `pip install .` puts every package below this one.

    from insightface_tf import Embedder
    with Embedder("model.onnx") as embedder:
        embeddings_ND = embedder.embed(images_NHWC)

Inside the project modules import each other from its root (`from runtime.tf1 import tf`), as the
scripts do. So the first use of a name below adds this directory to sys.path, behind everything
else. Where another module of the same name comes first, ImportError names both.
"""

import importlib
import os
import sys
from typing import Any, List

__version__ = "0.1.0"

# What a program may import, and the module that defines it.
API = {
    "Embedder": "inference.embedder",
    "ModelOptions": "inference.embedder",
    "FaceBank": "serving.face_bank",
    "NewSample": "serving.face_bank",
    "Index": "serving.index",
    "Threshold": "serving.thresholds",
    "Recognizer": "serving.recognizer",
    "identify": "serving.identification",
    "align": "faces.alignment",
    "evaluate": "verification",
}
HERE = os.path.dirname(os.path.abspath(__file__))


def root() -> str:
    """The directory that holds `runtime/`, `training/` and the scripts: this package where it is
    installed, the repository where it is a checkout."""
    installed = os.path.isdir(os.path.join(HERE, "runtime"))
    return HERE if installed else os.path.dirname(HERE)


def __getattr__(name: str) -> Any:
    if name not in API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if root() not in sys.path:
        sys.path.append(root())
    module = importlib.import_module(API[name])
    found = os.path.abspath(str(module.__file__))
    if not found.startswith(root() + os.sep):
        raise ImportError(
            f"insightface_tf needs its own module {API[name]!r}, and {found} comes first on "
            "sys.path; rename that one, or run this program from another directory."
        )
    return getattr(module, name)


def __dir__() -> List[str]:
    return sorted(list(API) + ["__version__"])
