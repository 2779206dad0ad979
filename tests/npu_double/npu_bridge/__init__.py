"""A recorded double of npu_bridge, Ascend's adapter to TensorFlow 1.15, stricter than the adapter.

What the adapter ignores, or notices on the device alone, fails here at once, as a Mistake. The
operations do what theirs mean on plain TensorFlow 1.15.5, and say by the attribute `_npu_op` which
operation of the device they stand for. The interface is that of the adapter of CANN 7.0, or with
NPU_DOUBLE_VERSION=r1.5 that of the oldest, with NPU_DOUBLE_VERSION=main that of CANN 9. The card is
a 910A, or what NPU_DOUBLE_CARD names. Put tests/npu_double on PYTHONPATH to use it.

Importing it has the adapter's side effects: tf.Session and tf.InteractiveSession are wrapped, the
Dropout layer of Keras uses the device's masks, and npu_close is registered at exit.
"""

import atexit
import os

VERSIONS = {"r1.5": 5, "r1.15": 15, "main": 99}  # the interface -> the newest branch r1.N in it
VERSION = os.environ.get("NPU_DOUBLE_VERSION", "r1.15")
assert VERSION in VERSIONS, VERSION

from npu_bridge import dropout_layer, npu_plugin, sessions  # noqa: E402

sessions.watch()
dropout_layer.replace()
atexit.register(npu_plugin.npu_close)


def leave():
    """Undoes the import, for the tests that come after."""
    sessions.leave()
    dropout_layer.leave()
    atexit.unregister(npu_plugin.npu_close)
