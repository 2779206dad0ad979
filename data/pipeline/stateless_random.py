"""Random numbers as a function of their keys alone: the same on both TensorFlows, in any order.

TensorFlow's own generators count what they have handed out: a resumed run would have to replay it.
These hash (seed, epoch, position, ...) instead. N draws together.
"""

from typing import Union

from runtime.tf1 import tf

_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def hashed(*keys: Union[int, tf.Tensor]) -> tf.Tensor:
    """Keys (ints or int64 tensors that broadcast) -> int64, all 64 bits mixed (splitmix64)."""
    value = tf.constant(0, tf.int64)
    for key in keys:
        key = tf.constant(_signed(key), tf.int64) if isinstance(key, int) else key
        value = _mixed(tf.bitwise.bitwise_xor(value, key) + _signed(_GOLDEN))
    return value


def uniform(*keys: Union[int, tf.Tensor]) -> tf.Tensor:
    """Keys -> float32 in [0, 1), 24 bits each."""
    return tf.cast(_shifted(hashed(*keys), 40), tf.float32) * 2.0**-24


def shuffle_seed(*keys: Union[int, tf.Tensor]) -> tf.Tensor:
    """Keys -> a seed for Dataset.shuffle: int64 in [1, 2^31)."""
    return _shifted(hashed(*keys), 33) + 1


def _mixed(value):
    value = tf.bitwise.bitwise_xor(value, _shifted(value, 30)) * _signed(_FIRST)
    value = tf.bitwise.bitwise_xor(value, _shifted(value, 27)) * _signed(_SECOND)
    return tf.bitwise.bitwise_xor(value, _shifted(value, 31))


def _shifted(value, bits):
    """Logical shift to the right; TensorFlow's own keeps the sign."""
    shifted = tf.bitwise.right_shift(value, tf.constant(bits, tf.int64))
    return tf.bitwise.bitwise_and(shifted, tf.constant((1 << (64 - bits)) - 1, tf.int64))


def _signed(value):
    """A Python int of any size -> its low 64 bits as a signed number."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
