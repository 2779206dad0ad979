"""The next batch of an iterator, and how long the step stood still for it."""

from runtime.tf1 import for_npu, tf


def timed_next(batches):
    """An iterator -> (its next element, float32 scalar: the seconds between asking for it and
    having it). In the graph, so that neither a second session.run nor a copy is needed: both times
    are read by the run that uses the batch. The pipeline works ahead while a step runs, so this is
    what it did not get done beside the steps."""
    if for_npu():  # which has no clock, and fetches its batch from a queue of its own
        return batches.get_next(), tf.zeros([])
    with tf.device("/cpu:0"):
        asked = tf.timestamp()
        with tf.control_dependencies([asked]):
            element = batches.get_next()
        with tf.control_dependencies(tf.nest.flatten(element)):
            waited = tf.timestamp() - asked
    return element, tf.cast(tf.maximum(waited, 0.0), tf.float32)  # the clock may be set back
