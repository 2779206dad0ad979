"""The one door to TensorFlow: `tf` is the graph-and-session API of both 1.15 and 2.x.

Importing it switches version 2 behaviour off and resource variables on, so that the same code
builds the same graph, with the same variable names, on both.
"""

import contextlib
import logging
import os
import sys
import warnings


@contextlib.contextmanager
def _quiet():
    """TensorFlow greets while it loads, 2.x from C++ past every setting: standard error is closed
    for that second, so that a user's mistake is the one sentence that it should be."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its errors come as exceptions too
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


def build_for(device):
    """Says what the default graph is for, before its first variable is made.

    For an Ascend NPU it holds ref variables: of the resource kind's gathers and scatters the
    adapter is not known to run any (docs/ascend.md). A read of one is then a view, not a copy: who
    reads after an update says `read_value`, and an update waits for all who read before."""
    if device == "npu":
        tf.get_default_graph().is_for_npu = True
        tf.get_variable_scope().set_use_resource(False)


def for_npu():
    """Whether the default graph is one for an Ascend NPU: fully static, and without the operations
    that its adapter is not known to run (runtime/npu_ops.py)."""
    return getattr(tf.get_default_graph(), "is_for_npu", False)
