"""Variables and what their owners say of them: the layer that makes a weight says if it decays."""

import copy
import zlib

from runtime.tf1 import tf

DECAYED = "decayed_variables"


def weight(name, shape, initializer, decay=False, trainable=True):
    """A float32 variable of the current scope. decay: whether L2 pulls it towards zero.
    Where the initializer has no seed of its own, the graph's seed and the variable's name are it:
    one more operation elsewhere in the graph changes no first weight."""
    variable = tf.get_variable(
        name, shape, tf.float32, initializer=_seeded(initializer, name), trainable=trainable
    )
    if decay and not any(variable is other for other in tf.get_collection(DECAYED)):
        tf.add_to_collection(DECAYED, variable)  # a second tower reuses the variable: marked once
    return variable


def decayed_variables():
    """The default graph's variables that their owners marked as decaying, oldest first."""
    return tf.get_collection(DECAYED)


def _seeded(initializer, name):
    if getattr(initializer, "seed", 0) is not None:
        return initializer
    whole = f"{tf.get_variable_scope().name}/{name}"
    initializer = copy.copy(initializer)  # the caller's may start another variable, too
    initializer.seed = zlib.crc32(whole.encode()) & 0x7FFFFFFF
    return initializer
