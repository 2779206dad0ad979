"""A checkpoint -> its inference graph in TensorFlow, from the one definition of each network.

Letters: N images, H W pixels, D embedding.
"""

import contextlib
import dataclasses
import hashlib
import os
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

import numpy as np

from checkpoint.format import find_checkpoints, read_record
from checkpoint.reader import spec_of, variable_arrays
from nets.build import PIXELS, embeddings
from nets.lineages import NetSpec
from nets.weights.layout import describe, differences
from runtime.session import session_config
from runtime.tf1 import tf


class InferenceGraph(NamedTuple):
    """The tensors of an inference graph."""

    images_NHWC: tf.Tensor  # uint8 RGB
    pixels_NHWC: tf.Tensor  # float32 in the lineage's channel order and scale
    features_ND: tf.Tensor  # float32
    shapes: Dict[str, List[int]]  # of the weights, by name, in the order of their creation
    assignments: Dict[str, tf.Operation]  # sets a weight to what its second input is fed


@dataclasses.dataclass
class Network:
    """What is exported."""

    prefix: str  # of the checkpoint
    spec: NetSpec  # its network
    arrays: Dict[str, np.ndarray]  # float32 by variable
    record: Dict[str, Any]  # the checkpoint's; empty for InsightFace_TF's own, which have none
    normalize: bool  # whether embeddings get length 1 where the lineage does not do so
    _graph: Optional[InferenceGraph] = None

    @property
    def graph(self) -> InferenceGraph:
        """The inference graph for any batch, without its weights. It is built once: at depth 100
        TensorFlow takes seconds for it."""
        if self._graph is None:
            with tf.Graph().as_default():
                self._graph = build(self)
        return self._graph


def read_network(prefix: str, normalize: bool = False, averages: bool = True) -> Network:
    """A checkpoint in memory. averages: the weights' moving averages where a run kept them."""
    if prefix.endswith((".pth", ".pt", ".params", ".safetensors", ".npz")):
        raise ValueError(
            f"--ckpt_file {prefix} is another project's file; make a checkpoint of it with "
            "convert_weights.py first."
        )
    prefix = find_checkpoints(prefix)[-1]
    spec = spec_of(prefix)
    record = read_record(prefix) if os.path.exists(f"{prefix}.json") else {}
    network = Network(prefix, spec, {}, record, normalize and not spec.row.l2)
    shapes = network.graph.shapes
    arrays = variable_arrays(prefix, list(shapes), averages)
    wrong = differences(shapes, {name: list(array.shape) for name, array in arrays.items()})
    if wrong:
        raise ValueError(f"{prefix} does not hold {describe(spec)} of its .json: {wrong}.")
    network.arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    return network


def digest(arrays: Dict[str, np.ndarray]) -> str:
    """SHA-256 of weights: names, shapes and values in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], "<f4")
        sha.update(f"{name} {array.shape}\n".encode())
        sha.update(memoryview(array.reshape(-1)).cast("B"))
    return sha.hexdigest()


def build(
    network: Network,
    batch_size: Optional[int] = None,
    dtype: tf.DType = tf.uint8,
    frozen: bool = False,
) -> InferenceGraph:
    """Makes the inference graph in the default graph. batch_size: None for a dynamic batch.
    dtype: of the images, which are 0-255 in any type. frozen: with the weights as constants."""
    height, width = network.spec.image_size
    images_NHWC = tf.placeholder(dtype, [batch_size, height, width, 3], name="image")
    weights = _Weights(network.arrays if frozen else None)
    with tf.variable_scope(tf.get_variable_scope(), custom_getter=weights.get):
        features_ND = embeddings(images_NHWC, network.spec, training=False)
    pixels_NHWC = tf.get_collection(PIXELS)[-1]
    if network.normalize:
        features_ND = tf.nn.l2_normalize(features_ND, axis=1)
    return InferenceGraph(
        images_NHWC, pixels_NHWC, features_ND, weights.shapes, weights.assignments
    )


class _Weights:
    """Makes the weights of an inference graph: constants, or variables of four operations where
    tf.get_variable makes twenty, for initial values and placements that no inference uses."""

    def __init__(self, constants: Optional[Dict[str, np.ndarray]]) -> None:
        self.constants = constants
        self.shapes: Dict[str, List[int]] = {}
        self.assignments: Dict[str, tf.Operation] = {}

    def get(self, getter: Any, name: str, shape: Any = None, **unused: Any) -> tf.Tensor:
        """The value of a weight, in place of tf.get_variable."""
        self.shapes[name] = [int(length) for length in shape]
        with tf.name_scope(None):
            if self.constants is not None:
                return tf.constant(self.constants[name], name=name)
            handle = tf.raw_ops.VarHandleOp(
                dtype=tf.float32, shape=self.shapes[name], shared_name=name, name=name
            )
            value = tf.placeholder(tf.float32, self.shapes[name], name=f"{name}/value")
            self.assignments[name] = tf.raw_ops.AssignVariableOp(resource=handle, value=value)
            return tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32, name=f"{name}/read")


@contextlib.contextmanager
def open_session(network: Network) -> Iterator[tf.Session]:
    """A session on network.graph, with the network's weights."""
    graph = network.graph
    with tf.Session(graph=graph.features_ND.graph, config=session_config("cpu")) as session:
        values = {op.inputs[1]: network.arrays[name] for name, op in graph.assignments.items()}
        session.run(list(graph.assignments.values()), values)
        yield session


def embed(network: Network, images_NHWC: np.ndarray, batch_size: int = 16) -> np.ndarray:
    """uint8 RGB [N, H, W, 3] -> float32 [N, D] by the checkpoint's own graph."""
    graph = network.graph
    with open_session(network) as session:
        parts = [
            session.run(graph.features_ND, {graph.images_NHWC: images_NHWC[i : i + batch_size]})
            for i in range(0, len(images_NHWC), batch_size)
        ]
    return np.concatenate(parts)
