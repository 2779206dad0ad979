"""export.graph.Graph -> MindIR, in a process of MindSpore's own environment.

    python export/mindspore_net.py DIRECTORY

DIRECTORY holds graph.json (the nodes), weights.npz and pixels.npy [N, C, H, W], N a multiple of the
batch. The process writes network.mindir, reads it again and writes its embeddings, features.npy
[N, D]. It imports neither TensorFlow nor anything else of this repository: MindSpore and TensorFlow
require different versions of protobuf.
"""

import importlib.util
import json
import os
import sys
from typing import Any, Callable, Dict, Tuple

import numpy as np

GRAPH, WEIGHTS, PIXELS = "graph.json", "weights.npz", "pixels.npy"  # read
MINDIR, FEATURES = "network.mindir", "features.npy"  # written
MODULE = "network.py"  # written into the current directory


def main(directory: str) -> None:
    import mindspore
    from mindspore import nn

    with open(os.path.join(directory, GRAPH), encoding="utf-8") as stream:
        description = json.load(stream)
    weights = dict(np.load(os.path.join(directory, WEIGHTS)))
    pixels_NCHW = np.load(os.path.join(directory, PIXELS))
    batch = description["batch_size"]
    mindspore.set_context(mode=mindspore.GRAPH_MODE, device_target="CPU")
    network = _network(mindspore, nn, description, weights)
    network.set_train(False)
    path = os.path.join(directory, MINDIR)
    example = mindspore.Tensor(pixels_NCHW[:batch])
    mindspore.export(network, example, file_name=path, file_format="MINDIR")
    loaded = nn.GraphCell(mindspore.load(path))
    parts = [
        loaded(mindspore.Tensor(pixels_NCHW[start : start + batch])).asnumpy()
        for start in range(0, len(pixels_NCHW), batch)
    ]
    np.save(os.path.join(directory, FEATURES), np.concatenate(parts))
    print(mindspore.__version__)


def _network(
    mindspore: Any, nn: Any, description: Dict[str, Any], weights: Dict[str, np.ndarray]
) -> Any:
    """The Cell of a graph, with one Cell a node."""
    nodes = description["nodes"]
    cells = {node["output"]: _cell(mindspore, nn, node, weights) for node in nodes}
    with open(MODULE, "w", encoding="utf-8") as stream:
        stream.write(module_source(description))
    found = importlib.util.spec_from_file_location("network", os.path.abspath(MODULE))
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["network"] = module  # where MindSpore looks for the lines
    found.loader.exec_module(module)
    return module.Network(cells)


def module_source(description: Dict[str, Any]) -> str:
    """A network's module, one line a node. MindSpore compiles the lines of a file; a loop over
    nodes would cost it a level of recursion each, of which it has 1000."""
    lines = ["from mindspore import nn", "", "", "class Network(nn.Cell):"]
    lines += ["    def __init__(self, cells):", "        super().__init__()"]
    for node in description["nodes"]:
        lines.append(f"        self.cell_{node['output']} = cells['{node['output']}']")
    lines += ["", f"    def construct(self, {description['input']}):"]
    for node in description["nodes"]:
        arguments = ", ".join(node["inputs"])
        lines.append(f"        {node['output']} = self.cell_{node['output']}({arguments})")
    return "\n".join(lines + [f"        return {description['output']}", ""])


def _cell(mindspore: Any, nn: Any, node: Dict[str, Any], weights: Dict[str, np.ndarray]) -> Any:
    """One node as a Cell, its weights as parameters."""
    ops = mindspore.ops
    attributes = node["attributes"]
    roles = {role: weights[f"{node['output']}/{role}"] for role in node["weights"]}

    def parameter(role: str, shape: Tuple[int, ...]) -> Any:
        array = np.ascontiguousarray(roles[role], np.float32).reshape(shape)
        return mindspore.Parameter(mindspore.Tensor(array), name=f"{node['output']}.{role}")

    class Conv(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.weight = parameter("weight", roles["weight"].shape)
            self.has_bias = "bias" in roles
            self.bias = parameter("bias", (-1,)) if self.has_bias else 0
            top, left, bottom, right = attributes["pads"]
            self.convolution = ops.Conv2D(
                out_channel=roles["weight"].shape[0],
                kernel_size=tuple(attributes["kernel_shape"]),
                pad_mode="pad",
                pad=(top, bottom, left, right),
                stride=tuple(attributes["strides"]),
                group=attributes["group"],
            )
            self.add_bias = ops.BiasAdd()

        def construct(self, x: Any) -> Any:
            x = self.convolution(x, self.weight)
            return self.add_bias(x, self.bias) if self.has_bias else x

    class Gemm(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.weight = parameter("weight", roles["weight"].shape)
            self.has_bias = "bias" in roles
            self.bias = parameter("bias", (-1,)) if self.has_bias else 0
            self.product = ops.MatMul(transpose_b=True)

        def construct(self, x: Any) -> Any:
            x = self.product(x, self.weight)
            return x + self.bias if self.has_bias else x

    class Affine(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            shape = (-1, 1, 1) if node["rank"] == 4 else (-1,)
            self.scale, self.shift = parameter("scale", shape), parameter("shift", shape)

        def construct(self, x: Any) -> Any:
            return x * self.scale + self.shift

    class PRelu(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.slope = parameter("slope", (-1,))
            self.prelu = ops.PReLU()

        def construct(self, x: Any) -> Any:
            return self.prelu(x, self.slope)

    class MaxPool(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            top, left, bottom, right = attributes["pads"]
            self.is_padded = any(attributes["pads"])
            lowest = float(np.finfo(np.float32).min)
            self.pad = nn.ConstantPad2d((left, right, top, bottom), lowest)
            size, strides = tuple(attributes["kernel_shape"]), tuple(attributes["strides"])
            self.pool = nn.MaxPool2d(kernel_size=size, stride=strides, pad_mode="valid")

        def construct(self, x: Any) -> Any:
            return self.pool(self.pad(x) if self.is_padded else x)

    class Elementwise(nn.Cell):
        """One of TWO, of two tensors or of a tensor and a weight."""

        def __init__(self) -> None:
            super().__init__()
            self.has_other = "other" in roles
            self.other = parameter("other", roles["other"].shape) if self.has_other else 0
            self.operation = {
                "Add": ops.Add,
                "Sub": ops.Sub,
                "Mul": ops.Mul,
                "Div": ops.Div,
                "Max": ops.Maximum,
            }[node["op"]]()

        def construct(self, x: Any, y: Any = None) -> Any:
            return self.operation(x, self.other if self.has_other else y)

    class Reduce(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            kinds = {"ReduceMean": ops.ReduceMean, "ReduceSum": ops.ReduceSum}
            self.axes = tuple(attributes.get("axes", (2, 3)))
            self.operation = kinds.get(node["op"], ops.ReduceMean)(
                keep_dims=bool(attributes.get("keepdims", 1))
            )

        def construct(self, x: Any) -> Any:
            return self.operation(x, self.axes)

    class Reshape(nn.Cell):
        """Flatten, Reshape, Unsqueeze and Squeeze: the batch stays, the others are known."""

        def __init__(self) -> None:
            super().__init__()
            self.lengths = tuple(node["shape"][1:])

        def construct(self, x: Any) -> Any:
            return ops.reshape(x, (x.shape[0],) + self.lengths)

    class Unary(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.operation = {
                "Relu": ops.ReLU,
                "Sigmoid": ops.Sigmoid,
                "Neg": ops.Neg,
                "Sqrt": ops.Sqrt,
                "Reciprocal": ops.Reciprocal,
            }[node["op"]]()

        def construct(self, x: Any) -> Any:
            return self.operation(x)

    cells: Dict[str, Callable[[], Any]] = {
        "Conv": Conv,
        "Gemm": Gemm,
        "Affine": Affine,
        "PRelu": PRelu,
        "MaxPool": MaxPool,
        "GlobalAveragePool": Reduce,
    }
    cells.update(dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max"), Elementwise))
    cells.update(dict.fromkeys(("ReduceMean", "ReduceSum"), Reduce))
    cells.update(dict.fromkeys(("Flatten", "Reshape", "Unsqueeze", "Squeeze"), Reshape))
    cells.update(dict.fromkeys(("Relu", "Sigmoid", "Neg", "Sqrt", "Reciprocal"), Unary))
    return cells[node["op"]]()


if __name__ == "__main__":
    main(sys.argv[1])
