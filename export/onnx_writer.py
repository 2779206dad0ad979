"""export.graph.Graph -> an ONNX file: input forms, PReLU forms, and what differs between opsets."""

import dataclasses
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from export import onnx_proto
from export.graph import Graph, Node
from nets.lineages import NetSpec

OPSETS = (9, 22)  # lowest, highest; 11 is what the peers write and every runtime reads
EPS = 1e-5  # of the BatchNormalization that stands for an Affine; its variance is 1 - EPS
SIDES = ("kernel_shape", "pads", "strides")


class OnnxForm(NamedTuple):
    """How an ONNX file is to look."""

    opset: int = 11  # of the default operator set
    input_form: str = "raw"  # scaled, raw or uint8: see checkpoint/model_metadata.py
    prelu: str = "node"  # node: PRelu; decomposed: a x + (1 - a) relu(x)
    batch_size: Optional[int] = None  # None: dynamic
    input_name: str = "image"  # of the graph's input
    output_name: str = "features"  # of the graph's output


def onnx_model(
    graph: Graph, spec: NetSpec, form: OnnxForm, metadata: Dict[str, str]
) -> onnx_proto.Chunks:
    """The ModelProto of a network, in chunks."""
    writer = _Writer(form)
    pixels = writer.preprocess(spec)
    reverse = form.input_form != "scaled" and spec.row.pixels == "BGR"
    for node in graph.nodes:
        if reverse and graph.input in node.inputs:
            node = _with_reversed_channels(node)
        inputs = [pixels if name == graph.input else name for name in node.inputs]
        output = form.output_name if node.output == graph.output else node.output
        writer.write(node, inputs, output)
    batch = "batch" if form.batch_size is None else form.batch_size
    height, width = spec.image_size
    shape = [batch, height, width, 3] if form.input_form == "uint8" else [batch, 3, height, width]
    dtype = "uint8" if form.input_form == "uint8" else "float32"
    return onnx_proto.model(
        writer.nodes,
        writer.weights,
        [onnx_proto.TensorInfo(form.input_name, dtype, shape)],
        [onnx_proto.TensorInfo(form.output_name, "float32", [batch, spec.embedding_size])],
        form.opset,
        metadata,
    )


def pixel_constants(spec: NetSpec) -> Tuple[np.ndarray, float]:
    """(mean per channel, divisor) in the lineage's own channel order."""
    mean = np.array(list(spec.row.mean) * (3 // len(spec.row.mean)), np.float64)
    return mean, float(spec.row.divisor)


def _with_reversed_channels(node: Node) -> Node:
    """A convolution that was trained on BGR, for RGB."""
    assert node.op == "Conv" and node.attributes["group"] == 1, f"{node.op} reads the image"
    weights = dict(node.weights, weight=node.weights["weight"][:, ::-1])
    return dataclasses.replace(node, weights=weights)


class _Writer:
    """The nodes and weights written so far."""

    def __init__(self, form: OnnxForm) -> None:
        self.form = form
        self.nodes: List[onnx_proto.Node] = []
        self.weights: Dict[str, np.ndarray] = {}

    def preprocess(self, spec: NetSpec) -> str:
        """The nodes between the input and the pixels of the network: their name.

        InsightFace's ArcFaceONNX takes mean 0 and scale 1 where two of the first nodes are named
        Sub... and Mul..., else 127.5 and 127.5; so no other node may bear these names."""
        image = self.form.input_name
        if self.form.input_form == "scaled":
            return image
        if self.form.input_form == "uint8":
            self._append("Cast", [image], "image_float", to=onnx_proto.FLOAT)
            self._append("Transpose", ["image_float"], "image_nchw", perm=[0, 3, 1, 2])
            image = "image_nchw"
        mean, divisor = pixel_constants(spec)
        mean = mean[::-1] if spec.row.pixels == "BGR" else mean
        self._append("Sub", [image, self._weight("Sub_mean", mean.reshape(3, 1, 1))], "centered")
        factor = self._weight("Mul_factor", np.full((1, 1, 1), 1.0 / divisor))
        self._append("Mul", ["centered", factor], "pixels")
        return "pixels"

    def write(self, node: Node, inputs: List[str], output: str) -> None:
        """One node of the graph, as one or more of ONNX."""
        special = WRITERS.get(node.op)
        if special:
            special(self, node, inputs, output)
            return
        if "other" in node.weights:
            inputs = inputs + [self._weight(f"{output}_other", node.weights["other"])]
        attributes = {key: value for key, value in node.attributes.items()}
        self._append(node.op, inputs, output, **attributes)

    def linear(self, node: Node, inputs: List[str], output: str) -> None:
        """Conv and Gemm, both with a bias where it is not zero."""
        names = inputs + [self._weight(f"{output}_weight", node.weights["weight"])]
        if "bias" in node.weights or node.op == "Gemm":
            bias = node.weights.get("bias", np.zeros(len(node.weights["weight"])))
            names.append(self._weight(f"{output}_bias", bias))
        if node.op == "Gemm":
            self._append("Gemm", names, output, transB=1)
            return
        attributes = {key: node.attributes[key] for key in SIDES}
        dilations = [1, 1]
        group = int(node.attributes["group"])
        self._append("Conv", names, output, group=group, dilations=dilations, **attributes)

    def affine(self, node: Node, inputs: List[str], output: str) -> None:
        """Affine as a BatchNormalization of mean 0 and variance 1, which every runtime fuses."""
        scale, shift = node.weights["scale"], node.weights["shift"]
        self._affine(inputs[0], scale, shift, output)

    def prelu(self, node: Node, inputs: List[str], output: str) -> None:
        """PRelu with a slope of [C, 1, 1] ([C] behind a dense layer), or its two linear pieces."""
        slope = np.asarray(node.weights["slope"])
        if self.form.prelu == "node":
            rank = 3 if node.attributes["rank"] == 4 else 1
            slope = slope.reshape([-1] + [1] * (rank - 1))
            self._append("PRelu", inputs + [self._weight(f"{output}_slope", slope)], output)
            return
        below, above, zero = f"{output}_below", f"{output}_above", np.zeros_like(slope)
        self._affine(inputs[0], slope, zero, below)
        self._append("Relu", inputs, f"{output}_relu")
        self._affine(f"{output}_relu", 1.0 - slope, zero, above)
        self._append("Add", [below, above], output)

    def reduce(self, node: Node, inputs: List[str], output: str) -> None:
        """ReduceMean and ReduceSum: the axes became an input at opset 18 and 13."""
        keepdims = int(node.attributes["keepdims"])
        input_since = 18 if node.op == "ReduceMean" else 13
        self._with_axes(
            node.op, inputs, output, node.attributes["axes"], input_since, keepdims=keepdims
        )

    def squeeze(self, node: Node, inputs: List[str], output: str) -> None:
        """Squeeze and Unsqueeze: the axes became an input at opset 13."""
        self._with_axes(node.op, inputs, output, node.attributes["axes"], 13)

    def reshape(self, node: Node, inputs: List[str], output: str) -> None:
        shape = np.array(node.attributes["target"], np.int64)
        self._append("Reshape", inputs + [self._weight(f"{output}_shape", shape)], output)

    def _with_axes(
        self,
        op: str,
        inputs: List[str],
        output: str,
        axes: List[int],
        input_since: int,
        **more: Any,
    ) -> None:
        if self.form.opset < input_since:
            self._append(op, inputs, output, axes=list(axes), **more)
            return
        name = self._weight(f"{output}_axes", np.array(axes, np.int64))
        self._append(op, inputs + [name], output, **more)

    def _affine(self, source: str, scale: np.ndarray, shift: np.ndarray, output: str) -> None:
        ones = np.ones(len(scale), np.float32)
        weights = [
            self._weight(f"{output}_scale", scale),
            self._weight(f"{output}_shift", shift),
            self._weight(f"{output}_mean", 0 * ones),
            self._weight(f"{output}_variance", ones - np.float32(EPS)),
        ]
        self._append("BatchNormalization", [source] + weights, output, epsilon=EPS)

    def _weight(self, name: str, array: np.ndarray) -> str:
        integers = np.asarray(array).dtype.kind == "i"
        self.weights[name] = np.ascontiguousarray(array, np.int64 if integers else np.float32)
        return name

    def _append(self, op: str, inputs: List[str], output: str, **attributes: Any) -> None:
        own = output in ("centered", "pixels")
        name = f"{op}_{output}" if own or op not in ("Sub", "Mul") else f"node_{op}_{output}"
        self.nodes.append(onnx_proto.Node(op, inputs, [output], attributes, name))


WRITERS: Dict[str, Callable] = {
    "Affine": _Writer.affine,
    "Conv": _Writer.linear,
    "Gemm": _Writer.linear,
    "PRelu": _Writer.prelu,
    "ReduceMean": _Writer.reduce,
    "ReduceSum": _Writer.reduce,
    "Reshape": _Writer.reshape,
    "Squeeze": _Writer.squeeze,
    "Unsqueeze": _Writer.squeeze,
}
