"""The only module that imports TensorFlow: `tf` is the graph and session API of 1.15 and 2.x.

Importing it switches version 2 behaviour off and resource variables on, so that the same code
builds the same graph, with the same variable names, on both.
"""

import contextlib
import logging
import os
import sys
import warnings
from typing import Iterator


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TensorFlow logs while it loads, 2.x from C++ before any setting applies: standard error is
    redirected meanwhile, so that a user's mistake prints one sentence only."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its errors are raised as exceptions too
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 1.15 on NumPy >= 1.17 warns a dozen times
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


with _quiet():
    import tensorflow

    tf = tensorflow.compat.v1
    tf.disable_v2_behavior()
    tf.enable_resource_variables()

VERSION = tensorflow.__version__
TF2 = VERSION.startswith("2.")


def build_for(device: str) -> None:
    """Marks the default graph as one for this device, before its first variable is made.

    For an Ascend NPU it holds ref variables: the adapter is not known to run the gathers and
    scatters of the resource kind (docs/ascend.md). A read of one is then a view, not a copy: a read
    after an update uses `read_value`, and an update waits for all reads before it."""
    if device == "npu":
        tf.get_default_graph().is_for_npu = True
        tf.get_variable_scope().set_use_resource(False)


def for_npu() -> bool:
    """Whether the default graph is for an Ascend NPU: fully static, and only with operations that
    its adapter is known to run (runtime/npu/supported_ops.py)."""
    return getattr(tf.get_default_graph(), "is_for_npu", False)
