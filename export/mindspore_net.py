"""A directory that export/mindir.py wrote -> MindIR, in a process of MindSpore's own environment.

    python export/mindspore_net.py DIRECTORY

DIRECTORY holds network.py, graph.json (its nodes), weights.npz and pixels.npy [N, C, H, W], N a
multiple of the batch. The process writes network.mindir, reads it again and writes its embeddings,
features.npy [N, D]. It imports neither TensorFlow nor anything else of this repository: MindSpore
and TensorFlow require different versions of protobuf.
"""

import json
import os
import sys
from typing import Any, Dict, Tuple

import mindspore
import numpy as np
from mindspore import nn, ops

Description = Dict[str, Any]  # a node of graph.json
Weights = Dict[str, np.ndarray]  # of one node, by their role


def main(directory: str) -> None:
    """Writes network.mindir and features.npy."""
    with open(os.path.join(directory, "graph.json"), encoding="utf-8") as stream:
        description = json.load(stream)
    pixels_NCHW = np.load(os.path.join(directory, "pixels.npy"))
    batch = description["batch_size"]
    mindspore.set_context(mode=mindspore.GRAPH_MODE, device_target="CPU")
    network = _network(directory, description)
    network.set_train(False)
    path = os.path.join(directory, "network.mindir")
    example = mindspore.Tensor(pixels_NCHW[:batch])
    mindspore.export(network, example, file_name=path, file_format="MINDIR")
    loaded = nn.GraphCell(mindspore.load(path))
    parts = [
        loaded(mindspore.Tensor(pixels_NCHW[start : start + batch])).asnumpy()
        for start in range(0, len(pixels_NCHW), batch)
    ]
    np.save(os.path.join(directory, "features.npy"), np.concatenate(parts))
    print(mindspore.__version__)


def _network(directory: str, description: Dict[str, Any]) -> nn.Cell:
    """The Cell of a graph, with one Cell a node."""
    weights = dict(np.load(os.path.join(directory, "weights.npz")))
    cells = {}
    for node in description["nodes"]:
        output = node["output"]
        roles = {role: weights[f"{output}/{role}"] for role in node["weights"]}
        cells[output] = CELLS[node["op"]](node, roles)
    sys.path.insert(0, directory)
    from network import Network  # type: ignore[import-not-found]

    return Network(cells)


def _parameter(
    node: Description, weights: Weights, role: str, shape: Tuple[int, ...]
) -> mindspore.Parameter:
    array = np.ascontiguousarray(weights[role], np.float32).reshape(shape)
    return mindspore.Parameter(mindspore.Tensor(array), name=f"{node['output']}.{role}")


class Linear(nn.Cell):
    """A weight, and a bias where the node has one."""

    def __init__(self, node: Description, weights: Weights) -> None:
        super().__init__()
        self.weight = _parameter(node, weights, "weight", weights["weight"].shape)
        self.has_bias = "bias" in weights
        self.bias = _parameter(node, weights, "bias", (-1,)) if self.has_bias else 0
        self.add_bias = ops.BiasAdd()


class Conv(Linear):
    """A convolution with its own number of zeros on each side."""

    def __init__(self, node: Description, weights: Weights) -> None:
        super().__init__(node, weights)
        attributes = node["attributes"]
        top, left, bottom, right = attributes["pads"]
        self.convolution = ops.Conv2D(
            out_channel=weights["weight"].shape[0],
            kernel_size=tuple(attributes["kernel_shape"]),
            pad_mode="pad",
            pad=(top, bottom, left, right),
            stride=tuple(attributes["strides"]),
            group=attributes["group"],
        )

    def construct(self, x: Any) -> Any:
        x = self.convolution(x, self.weight)
        return self.add_bias(x, self.bias) if self.has_bias else x


class Gemm(Linear):
    """A dense layer; its weight is [outputs, inputs]."""

    def __init__(self, node: Description, weights: Weights) -> None:
        super().__init__(node, weights)
        self.product = ops.MatMul(transpose_b=True)

    def construct(self, x: Any) -> Any:
        x = self.product(x, self.weight)
        return self.add_bias(x, self.bias) if self.has_bias else x


class Affine(nn.Cell):
    """scale * x + shift per channel."""

    def __init__(self, node: Description, weights: Weights) -> None:
        super().__init__()
        shape = (-1, 1, 1) if len(node["shape"]) == 4 else (-1,)
        self.scale = _parameter(node, weights, "scale", shape)
        self.shift = _parameter(node, weights, "shift", shape)

    def construct(self, x: Any) -> Any:
        return x * self.scale + self.shift


class PRelu(nn.Cell):
    """PReLU with a slope per channel."""

    def __init__(self, node: Description, weights: Weights) -> None:
        super().__init__()
        self.slope = _parameter(node, weights, "slope", (-1,))
        self.prelu = ops.PReLU()

    def construct(self, x: Any) -> Any:
        return self.prelu(x, self.slope)


class MaxPool(nn.Cell):
    """A maximum over windows; what lies outside of the image is never the maximum."""

    def __init__(self, node: Description, weights: Weights) -> None:
        super().__init__()
        attributes = node["attributes"]
        top, left, bottom, right = attributes["pads"]
        self.is_padded = any(attributes["pads"])
        lowest = float(np.finfo(np.float32).min)
        self.pad = nn.ConstantPad2d((left, right, top, bottom), lowest)
        size, strides = tuple(attributes["kernel_shape"]), tuple(attributes["strides"])
        self.pool = nn.MaxPool2d(kernel_size=size, stride=strides, pad_mode="valid")

    def construct(self, x: Any) -> Any:
        return self.pool(self.pad(x) if self.is_padded else x)


class Binary(nn.Cell):
    """An operation on two tensors, or on a tensor and a weight."""

    KINDS = {"Add": ops.Add, "Sub": ops.Sub, "Mul": ops.Mul, "Div": ops.Div, "Max": ops.Maximum}

    def __init__(self, node: Description, weights: Weights) -> None:
        super().__init__()
        self.has_other = "other" in weights
        shape = weights["other"].shape if self.has_other else ()
        self.other = _parameter(node, weights, "other", shape) if self.has_other else 0
        self.operation = self.KINDS[node["op"]]()

    def construct(self, x: Any, y: Any = None) -> Any:
        return self.operation(x, self.other if self.has_other else y)


class Reduce(nn.Cell):
    """A mean or a sum over some dimensions; GlobalAveragePool is the mean over height and width."""

    def __init__(self, node: Description, weights: Weights) -> None:
        super().__init__()
        kind = ops.ReduceSum if node["op"] == "ReduceSum" else ops.ReduceMean
        self.axes = tuple(node["attributes"].get("axes", (2, 3)))
        self.operation = kind(keep_dims=bool(node["attributes"].get("keepdims", 1)))

    def construct(self, x: Any) -> Any:
        return self.operation(x, self.axes)


class Reshape(nn.Cell):
    """Flatten, Reshape, Unsqueeze and Squeeze: the batch stays, the other lengths are known."""

    def __init__(self, node: Description, weights: Weights) -> None:
        super().__init__()
        self.lengths = tuple(node["shape"][1:])

    def construct(self, x: Any) -> Any:
        return ops.reshape(x, (x.shape[0],) + self.lengths)


class Unary(nn.Cell):
    """An operation on each number of a tensor."""

    KINDS = {
        "Relu": ops.ReLU,
        "Sigmoid": ops.Sigmoid,
        "Neg": ops.Neg,
        "Sqrt": ops.Sqrt,
        "Reciprocal": ops.Reciprocal,
    }

    def __init__(self, node: Description, weights: Weights) -> None:
        super().__init__()
        self.operation = self.KINDS[node["op"]]()

    def construct(self, x: Any) -> Any:
        return self.operation(x)


CELLS: Dict[str, Any] = {"Conv": Conv, "Gemm": Gemm, "Affine": Affine, "PRelu": PRelu}
CELLS.update({"MaxPool": MaxPool, "GlobalAveragePool": Reduce})
CELLS.update(dict.fromkeys(("ReduceMean", "ReduceSum"), Reduce))
CELLS.update(dict.fromkeys(("Flatten", "Reshape", "Unsqueeze", "Squeeze"), Reshape))
CELLS.update(dict.fromkeys(Binary.KINDS, Binary))
CELLS.update(dict.fromkeys(Unary.KINDS, Unary))


if __name__ == "__main__":
    main(sys.argv[1])
