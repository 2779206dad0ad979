"""Variables and what their owners say of them: the layer that makes a weight says if it decays."""

from runtime.tf1 import tf

DECAYED = "decayed_variables"


def weight(name, shape, initializer, decay=False, trainable=True):
    """A float32 variable of the current scope. decay: whether L2 pulls it towards zero."""
    variable = tf.get_variable(
        name, shape, tf.float32, initializer=initializer, trainable=trainable
    )
    if decay and not any(variable is other for other in tf.get_collection(DECAYED)):
        tf.add_to_collection(DECAYED, variable)  # a second tower re-uses the variable: marked once
    return variable


def decayed_variables():
    """The default graph's variables that their owners marked as decaying, oldest first."""
    return tf.get_collection(DECAYED)
