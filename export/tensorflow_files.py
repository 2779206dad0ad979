"""The inference graph as TensorFlow's own files: frozen .pb, SavedModel, .tflite.

All take uint8 RGB [N, H, W, 3] as `image` and give float32 [N, D] as `features`.
"""

from typing import Iterator, List, Optional

import numpy as np

from export.inference_graph import Network, build
from runtime.tf1 import tf

INPUT, OUTPUT = "image", "features"


def frozen(
    network: Network, batch_size: Optional[int] = None, dtype: tf.DType = tf.uint8
) -> tf.GraphDef:
    """The inference graph with its weights as constants. dtype: of the images."""
    with tf.Graph().as_default() as graph:
        tf.identity(build(network, batch_size, dtype, frozen=True).features_ND, name=OUTPUT)
        return tf.graph_util.extract_sub_graph(graph.as_graph_def(), [OUTPUT])


def write_pb(path: str, network: Network, batch_size: Optional[int] = None) -> None:
    """A frozen GraphDef."""
    content = frozen(network, batch_size).SerializeToString()
    with open(path, "wb") as stream:
        stream.write(content)


def write_saved_model(path: str, network: Network, batch_size: Optional[int] = None) -> None:
    """A SavedModel with the signature image -> features, as serving_default."""
    graph_def = frozen(network, batch_size)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        with tf.Session(graph=graph) as session:
            builder = tf.saved_model.Builder(path)
            signature = tf.saved_model.signature_def_utils.predict_signature_def(
                {INPUT: graph.get_tensor_by_name(f"{INPUT}:0")},
                {OUTPUT: graph.get_tensor_by_name(f"{OUTPUT}:0")},
            )
            builder.add_meta_graph_and_variables(
                session,
                [tf.saved_model.tag_constants.SERVING],
                signature_def_map={"serving_default": signature},
            )
            builder.save()


def write_tflite(
    path: str,
    network: Network,
    batch_size: Optional[int] = None,
    precision: str = "fp32",
    calibration_NHWC: Optional[np.ndarray] = None,
) -> None:
    """A .tflite of fp32, fp16 (weights) or int8 (all; quantized on the calibration images)."""
    graph_def = frozen(network, batch_size or 1, tf.float32 if precision == "int8" else tf.uint8)
    fuse_prelu(graph_def)
    with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
        tf.import_graph_def(graph_def, name="")
        tensors = [graph.get_tensor_by_name(f"{name}:0") for name in (INPUT, OUTPUT)]
        converter = tf.lite.TFLiteConverter.from_session(session, tensors[:1], tensors[1:])
        if precision != "fp32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "fp16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "int8":
            assert calibration_NHWC is not None
            converter.representative_dataset = lambda: _calibration(calibration_NHWC)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8
        content = converter.convert()
    with open(path, "wb") as stream:
        stream.write(content)


def _calibration(images_NHWC: np.ndarray) -> Iterator[List[np.ndarray]]:
    """The images one by one; in each two pixels span 0-255, so that the input's scale is 1."""
    for image in images_NHWC.astype(np.float32):
        image[0, 0], image[0, 1] = 0.0, 255.0
        yield [image[None]]


def fuse_prelu(graph_def: tf.GraphDef) -> None:
    """Rewrites relu(x) - a * relu(-x) as relu(x) + (-a) * relu(-x), a of shape [1, 1, C].

    It is the one form that TensorFlow's converter turns into a PRELU operation."""
    nodes = {node.name: node for node in graph_def.node}
    for node in graph_def.node:
        if node.op != "Sub":
            continue
        scaled = nodes.get(node.input[1])
        if scaled is None or scaled.op != "Mul" or nodes[scaled.input[1]].op != "Relu":
            continue
        if nodes[nodes[scaled.input[1]].input[0]].op != "Neg":
            continue
        alphas = _constant(nodes, scaled.input[0])
        value = -tf.make_ndarray(alphas.attr["value"].tensor)
        rank_3 = value if _is_of_rank_2(nodes, node) else value.reshape(1, 1, -1)
        alphas.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(rank_3))
        node.op = "AddV2"


def _constant(nodes: dict, name: str) -> tf.NodeDef:
    """The Const behind the Identity that a frozen variable's read becomes."""
    node = nodes[name]
    while node.op == "Identity":
        node = nodes[node.input[0]]
    assert node.op == "Const", f"{name} is {node.op}"
    return node


def _is_of_rank_2(nodes: dict, node: tf.NodeDef) -> bool:
    """Whether a PReLU stands behind a dense layer: in a squeeze-excitation."""
    return "excitation_prelu" in node.name
