"""A recorded double of npu_bridge, Ascend's adapter to TensorFlow 1.15, stricter than the adapter.

What the adapter ignores, or notices on the device alone, fails here at once, as a Mistake. The
operations do what theirs mean on plain TensorFlow 1.15.5, and say by the attribute `_npu_op` which
operation of the device they stand for. The interface is that of docs/ascend.md's newest adapter, or
with NPU_DOUBLE_VERSION=r1.5 that of the oldest. Put tests/npu_double on PYTHONPATH to use it.
"""

import os

VERSIONS = ("r1.5", "r1.15")
VERSION = os.environ.get("NPU_DOUBLE_VERSION", VERSIONS[-1])
assert VERSION in VERSIONS, VERSION

from npu_bridge import sessions  # noqa: E402

sessions.watch()
