"""What importing npu_bridge does to tf.keras.layers.Dropout: it drops by the device's masks."""

import tensorflow as tf
from npu_bridge import npu_ops
from tensorflow.python.keras.layers.core import Dropout
from tensorflow.python.keras.utils import tf_utils

_PLAIN = {}  # the layer's own method


def replace():
    _PLAIN["call"] = Dropout.call
    Dropout.call = _call


def leave():
    if _PLAIN:
        Dropout.call = _PLAIN.pop("call")


def _call(self, inputs, training=None):
    training = tf.keras.backend.learning_phase() if training is None else training
    return tf_utils.smart_cond(
        training,
        lambda: npu_ops.dropout(inputs, keep_prob=1.0 - self.rate, seed=self.seed),
        lambda: tf.identity(inputs),
    )
