"""A checkpoint -> its inference graph in TensorFlow, from the one definition of each network.

Letters: N images, H W pixels, D embedding.
"""

import contextlib
import hashlib
import os
from typing import Dict, Iterator, NamedTuple, Optional

import numpy as np

from checkpoint.format import find_checkpoints, read_record
from checkpoint.reader import spec_of, variable_arrays
from nets.build import PIXELS, embeddings, variable_shapes
from nets.lineages import NetSpec
from nets.weights.layout import describe, differences
from runtime.session import session_config
from runtime.tf1 import tf


class Network(NamedTuple):
    """What is exported."""

    prefix: str  # of the checkpoint
    spec: NetSpec  # its network
    arrays: Dict[str, np.ndarray]  # float32 by variable
    record: Dict  # the checkpoint's own; empty for InsightFace_TF's checkpoints, which have none
    normalize: bool  # whether embeddings get length 1 where the lineage does not do so


class InferenceGraph(NamedTuple):
    """The tensors of an inference graph."""

    images_NHWC: tf.Tensor  # uint8 RGB
    pixels_NHWC: tf.Tensor  # float32 in the lineage's channel order and scale
    features_ND: tf.Tensor  # float32


def read_network(prefix: str, normalize: bool = False, averages: bool = True) -> Network:
    """A checkpoint in memory. averages: the weights' moving averages where a run kept them."""
    if prefix.endswith((".pth", ".pt", ".params", ".safetensors", ".npz")):
        raise ValueError(
            f"--ckpt_file {prefix} is another project's file; make a checkpoint of it with "
            "convert_weights.py first."
        )
    prefix = find_checkpoints(prefix)[-1]
    spec = spec_of(prefix)
    shapes = variable_shapes(spec)
    arrays = variable_arrays(prefix, list(shapes), averages)
    wrong = differences(shapes, {name: list(array.shape) for name, array in arrays.items()})
    if wrong:
        raise ValueError(f"{prefix} does not hold {describe(spec)} of its .json: {wrong}.")
    arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    record = read_record(prefix) if os.path.exists(f"{prefix}.json") else {}
    return Network(prefix, spec, arrays, record, normalize and not spec.row.l2)


def digest(arrays: Dict[str, np.ndarray]) -> str:
    """SHA-256 of weights: names, shapes and values in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], "<f4")
        sha.update(f"{name} {array.shape}\n".encode())
        sha.update(memoryview(array.reshape(-1)).cast("B"))
    return sha.hexdigest()


def build(
    network: Network, batch_size: Optional[int] = None, dtype: tf.DType = tf.uint8
) -> InferenceGraph:
    """Makes the inference graph in the default graph. batch_size: None for a dynamic batch.
    dtype: of the images, which are 0-255 in any type."""
    height, width = network.spec.image_size
    images_NHWC = tf.placeholder(dtype, [batch_size, height, width, 3], name="image")
    features_ND = embeddings(images_NHWC, network.spec, training=False)
    pixels_NHWC = tf.get_collection(PIXELS)[-1]
    if network.normalize:
        features_ND = tf.nn.l2_normalize(features_ND, axis=1)
    return InferenceGraph(images_NHWC, pixels_NHWC, features_ND)


@contextlib.contextmanager
def open_session(network: Network) -> Iterator[tf.Session]:
    """A session whose variables, all those of the default graph, hold the network's weights."""
    variables = tf.global_variables()
    with tf.Session(config=session_config("cpu")) as session:
        values = {v.initializer.inputs[1]: network.arrays[v.op.name] for v in variables}
        session.run([variable.initializer for variable in variables], values)
        yield session


def embed(network: Network, images_NHWC: np.ndarray, batch_size: int = 16) -> np.ndarray:
    """uint8 RGB [N, H, W, 3] -> float32 [N, D] by the checkpoint's own graph."""
    with tf.Graph().as_default():
        graph = build(network)
        with open_session(network) as session:
            parts = [
                session.run(graph.features_ND, {graph.images_NHWC: images_NHWC[i : i + batch_size]})
                for i in range(0, len(images_NHWC), batch_size)
            ]
    return np.concatenate(parts)
