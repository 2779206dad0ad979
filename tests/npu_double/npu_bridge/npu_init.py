"""All of npu_bridge's names that a training script uses."""

from npu_bridge import npu_ops, npu_plugin, util  # noqa: F401
from npu_bridge.api import (  # noqa: F401
    get_local_rank_id,
    get_local_rank_size,
    get_rank_id,
    get_rank_size,
)
from npu_bridge.hccl import hccl_ops  # noqa: F401
from npu_bridge.loss_scale import FixedLossScaleManager, NPULossScaleOptimizer  # noqa: F401
