"""The sentence about an error that TensorFlow reports from inside a step."""

import re

from data.pipeline.batches import TrainingBatches
from runtime.tf1 import tf


def explain_step_error(error: tf.errors.InvalidArgumentError, batches: TrainingBatches) -> str:
    """The message about a damaged record or a failed assertion of the graph; any other error is a
    defect of this program, and is raised again."""
    damaged = batches.explain(error)
    if damaged is not None:
        return damaged
    asserted = re.search(r"assertion failed: \[(.*?)\]", error.message, re.DOTALL)
    if asserted is None:
        raise error
    return " ".join(asserted.group(1).split()).rstrip(":") + "."
