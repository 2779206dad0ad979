"""The sentence about an error from inside a step."""

import pytest

from data.pipeline.batches import StreamSettings, TrainingBatches
from runtime.tf1 import tf
from training.step_errors import explain_step_error

BATCHES = TrainingBatches(StreamSettings("unused", 0), 4)


def error(message):
    return tf.errors.InvalidArgumentError(None, None, message)


def test_a_failed_assertion_is_its_own_sentence():
    found = error("assertion failed: [label 9 of image 3\n is outside:] [9] [[node Assert]]")
    assert explain_step_error(found, BATCHES) == "label 9 of image 3 is outside."


def test_another_error_is_raised_again():
    found = error("Incompatible shapes: [2] vs. [3]")
    with pytest.raises(tf.errors.InvalidArgumentError):
        explain_step_error(found, BATCHES)
