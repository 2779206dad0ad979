"""The ConfigProto of a session for each `--device`."""

import os
from typing import Any

from runtime import gpu_preflight
from runtime.flags import DEVICES
from runtime.npu import adapter, card, options
from runtime.tf1 import TF2, tf


def session_config(
    device: str = "cpu", log_device_mapping: bool = False, xla: bool = False, flags: Any = None
) -> Any:
    """ConfigProto for `--device`; a GPU or an NPU that is not there ends here, before a graph is
    built. flags: the NpuFlags of a training; without them an NPU is for inference."""
    if device not in DEVICES:
        raise ValueError(f"--device {device} is unknown; choose one of {', '.join(DEVICES)}.")
    config = tf.ConfigProto(log_device_placement=log_device_mapping)
    if device == "npu":
        return _for_npu(config, xla, flags)
    gpu_preflight.check_device(device)
    if xla:
        _compile(config)
    if device == "cpu":
        config.device_count["GPU"] = 0
        return adapter.host_only(config) if adapter.is_loaded() else config
    config.allow_soft_placement = True
    config.gpu_options.allow_growth = True
    return config


def _for_npu(config: Any, xla: bool, flags: Any) -> Any:
    """Checks in the order of cost: the flags, the adapter, the card."""
    if xla:
        raise ValueError("--xla compiles for the CPU and the GPU; omit it with --device npu.")
    values = options.chosen(flags, card.size(os.environ), training=flags is not None)
    adapter.adapter()
    if flags is not None:
        options.log_target(flags)
    card.take_card(os.environ, values.get("session_device_id"))
    return adapter.configure(config, values)


def _compile(config: Any) -> None:
    """Has XLA compile what it can; on a CPU the environment must demand it as well."""
    if not TF2:
        raise ValueError("--xla needs TensorFlow 2; omit it here, on TensorFlow 1.15.")
    os.environ["TF_XLA_FLAGS"] = (
        os.environ.get("TF_XLA_FLAGS", "") + " --tf_xla_cpu_global_jit --tf_xla_auto_jit=2"
    )
    config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_2
