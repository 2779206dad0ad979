"""How an operation of TensorFlow stands for one of the device."""

import contextlib

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

NO_GRADIENT = "NpuDoubleHasNone"


def _none(op, *_):
    raise LookupError(f"{op.name}: the adapter registers no gradient for it")


with contextlib.suppress(KeyError):  # registered before, by a module that was imported then
    tf.RegisterGradient(NO_GRADIENT)(_none)


@contextlib.contextmanager
def standing_for(kind):
    """Operations made inside say that they are, together, the device's `kind`."""
    value = attr_value_pb2.AttrValue(s=kind.encode())
    with tf.get_default_graph()._attr_scope({"_npu_op": value}):
        yield


def python_op(kind, function, inputs, types, shapes, name=None):
    """A stateful operation of the device, which has no gradient, run by a Python function."""
    graph = tf.get_default_graph()
    with standing_for(kind), graph.gradient_override_map({"PyFunc": NO_GRADIENT}):
        made = tf.py_func(function, inputs, types, stateful=True, name=name or kind)
    if not types:
        return made
    for tensor, shape in zip(made, shapes):
        tensor.set_shape(shape)
    return made
