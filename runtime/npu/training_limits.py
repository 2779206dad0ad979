"""What a training run on an Ascend NPU cannot do, and the values that it has there instead.

On the device every set of fetches is a compiled graph with memory of its own: validation feeds the
shape that a step was compiled for.
"""

import dataclasses
import json
import logging
import os
from typing import Any, Dict, TypeVar

C = TypeVar("C")

# Flags that a graph for the device cannot follow, the values that it can, and why.
_ONLY = {
    "precision": (
        ("fp32", "fp16"),
        "variables are float32 there, and --precision_mode allow_mix_precision_bf16 computes in "
        "bfloat16 on 910B and 910C",
    ),
    "mix_compile_mode": ((None, False), "it cannot take the batch norm's last output"),
    "recompute": ((False,), "the device's compiler decides itself what it keeps"),
    "xla": ((False,), "the device has a compiler of its own"),
    "ema": ((0.0,), "the averages would be a second set of variables on the device"),
    "accumulate": ((1,), "each part would be compiled as a second graph next to the step's"),
    "on_error": (("stop",), "the names of damaged records are text, which the device cannot hold"),
}


def adapt(config: C, size: int) -> C:
    """The config of a training that holds on an NPU; a value that cannot be is a ValueError.
    size: the ranks of the run."""
    values: Any = config
    for name, (allowed, why) in _ONLY.items():
        value = getattr(values, name)
        if value not in allowed:
            raise ValueError(
                f"--{name} {value} cannot be used with --device npu: {why}; pass --{name} "
                f"{' or '.join(str(choice) for choice in allowed if choice is not None)}."
            )
    share = _share(values.batch_size, size)
    logging.info(
        "--device npu: validation runs %d images and their mirrors per step on each card, the "
        "shape that training compiles; a checkpoint's --precision is that of its variables, fp32",
        share // 2,
    )
    changed = dict(eval_batch_size=share // 2, precision="fp32")
    if values.profile is not None:
        changed.update(profile_options(os.path.join(values.output_path, "profile")))
    return dataclasses.replace(values, **changed)


def _share(batch_size: int, size: int) -> int:
    """The images of a card in a step: an even number, so that half of them with their mirrors have
    the same shape."""
    share, rest = divmod(batch_size, size)
    if rest or share % 2:
        raise ValueError(
            f"--batch_size {batch_size} is divided among {size} cards, and each card must have an "
            f"even number of images; pass a multiple of {2 * size}."
        )
    return share


def profile_options(directory: str) -> Dict[str, Any]:
    """The values of NpuOptimizer that have an Ascend card write its profile into a directory; it
    traces the whole run, of which --profile's steps are then a part."""
    directory = os.path.abspath(directory)
    os.makedirs(directory, exist_ok=True)  # the adapter makes none
    options = {"output": directory, "training_trace": "on", "task_trace": "on", "hccl": "on"}
    options.update(aicpu="on", fp_point="", bp_point="", aic_metrics="PipeUtilization")
    return {"profiling_mode": True, "profiling_options": json.dumps(options)}
