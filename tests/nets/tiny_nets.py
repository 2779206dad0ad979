"""Small nets for tests: rows of the table with few units, numbers for their weights, and images."""

import dataclasses
import zlib

import numpy as np

from nets.build import embeddings, variable_shapes
from nets.layers import LayerContext, NetOptions
from nets.lineages import LINEAGES, NetSpec
from runtime.tf1 import tf

UNITS = (1, 2, 1, 1)
SIDE = 32


def shrink(monkeypatch, lineage, depth=50):
    """Leaves a row few units at `depth`; its other depths stay."""
    row = LINEAGES[lineage]
    units = {**row.units, depth: UNITS}
    if row.family == "mobilefacenet":
        units = {0: row.units[0][:1] + UNITS[1:]}
    if row.family != "vgg":
        monkeypatch.setitem(LINEAGES, lineage, dataclasses.replace(row, units=units))


def small_spec(monkeypatch, lineage, block="ir", depth=50):
    """A spec of few units and one eighth of the channels."""
    shrink(monkeypatch, lineage, depth)
    side = 48 if LINEAGES[lineage].family == "mobilefacenet" else SIDE
    depth = 16 if LINEAGES[lineage].family == "vgg" else depth
    return NetSpec(lineage, depth, block, 0.125, 24, (side, side))


def context_of(lineage, training, **options):
    """The LayerContext of a row's net, with any NetOptions."""
    return LayerContext(NetSpec(lineage), training, NetOptions(**options))


def images(spec, count=3, seed=7):
    shape = (count,) + spec.image_size + (3,)
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def numbers(name, shape):
    """float32 of a shape, from a tensor's name alone: the same on every platform and TensorFlow."""
    draw = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    shape = tuple(shape)
    variance = name.endswith(("moving_variance", "running_var", "moving_var"))
    if variance:
        return draw.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) < 2:
        centre = 1.0 if name.endswith(("gamma", "scale")) else 0.0
        return (centre + 0.2 * draw.standard_normal(shape)).astype(np.float32)
    if name.endswith(("scale", "offset")):
        return (name.endswith("scale") + 0.2 * draw.standard_normal(shape)).astype(np.float32)
    fan = np.prod(shape) / max(shape[-1], shape[0])
    return (draw.standard_normal(shape) / np.sqrt(fan)).astype(np.float32)


def embed(spec, arrays, images_NHWC):
    """Embeddings of a net whose variables are `arrays`, or numbers(name) where None."""
    with tf.Graph().as_default(), tf.Session() as session:
        placeholder = tf.placeholder(tf.uint8, images_NHWC.shape)
        embeddings_ND = embeddings(placeholder, spec, training=False)
        variables = tf.global_variables()
        if arrays is None:
            arrays = {v.op.name: numbers(v.op.name, v.shape.as_list()) for v in variables}
        feed = {v.initializer.inputs[1]: arrays[v.op.name] for v in variables}
        session.run([v.initializer for v in variables], feed)
        return session.run(embeddings_ND, {placeholder: images_NHWC})


def shapes_of(spec):
    """{variable name: shape} of a net that embeds; each net is built once."""
    key = (spec, tuple(spec.row.units[spec.net_depth]))
    if key not in _SHAPES:
        _SHAPES[key] = variable_shapes(spec)
    return dict(_SHAPES[key])


_SHAPES = {}


def relative(one, other):
    return np.abs(one - other).max() / np.abs(other).max()
