"""The exported network between TensorFlow and a file: nodes over channels-first tensors.

Operators: Conv, Gemm, Affine, PRelu, Relu, Sigmoid, Add, Sub, Mul, Div, Max, Neg, Sqrt, Reciprocal,
MaxPool, GlobalAveragePool, ReduceMean, ReduceSum, Flatten, Reshape, Unsqueeze, Squeeze. `Affine` is
scale * x + shift per channel: what an inference batch norm is. Letters: C channels.
"""

import dataclasses
from typing import Any, Dict, List, Optional, Union

import numpy as np

Dimension = Optional[int]  # None: the batch


@dataclasses.dataclass
class Node:
    """One operation. Weights are arrays in `weights` and are not tensors of the graph."""

    op: str  # an operator of the list above
    inputs: List[str]  # tensors that it reads
    output: str  # the one tensor that it makes
    weights: Dict[str, np.ndarray] = dataclasses.field(default_factory=dict)  # by their role
    attributes: Dict[str, Any] = dataclasses.field(default_factory=dict)  # ints and lists of ints

    def is_padded(self) -> bool:
        """Whether a convolution reads zeros around its input."""
        return any(self.attributes["pads"])


@dataclasses.dataclass
class Graph:
    """Nodes in the order in which they run, from the tensor `input` to the tensor `output`."""

    input: str  # float32 [N, C, H, W] in the lineage's channel order and scale
    output: str  # float32 [N, D]
    nodes: List[Node] = dataclasses.field(default_factory=list)
    shapes: Dict[str, List[Dimension]] = dataclasses.field(default_factory=dict)  # channels first

    def add(
        self,
        op: str,
        inputs: Union[str, List[str]],
        shape: List[Dimension],
        weights: Optional[Dict[str, np.ndarray]] = None,
        **attributes: Any,
    ) -> str:
        """Appends a node and returns the name of its output."""
        output = f"{op.lower()}_{len(self.shapes)}"
        inputs = [inputs] if isinstance(inputs, str) else list(inputs)
        self.nodes.append(Node(op, inputs, output, dict(weights or {}), attributes))
        self.shapes[output] = list(shape)
        return output

    def producers(self) -> Dict[str, Node]:
        """{tensor: the node that makes it}."""
        return {node.output: node for node in self.nodes}

    def consumers(self) -> Dict[str, List[Node]]:
        """{tensor: the nodes that read it, once for each time}."""
        found: Dict[str, List[Node]] = {name: [] for name in self.shapes}
        for node in self.nodes:
            for name in node.inputs:
                found[name].append(node)
        return found

    def bypass(self, node: Node) -> None:
        """Removes a node with one input; its readers read its input."""
        self.nodes.remove(node)
        self.rename(node.output, node.inputs[0])

    def rename(self, old: str, new: str) -> None:
        """Lets every reader of `old` read `new`."""
        for node in self.nodes:
            node.inputs = [new if name == old else name for name in node.inputs]
        if self.output == old:
            self.output = new

    def remove_unused(self) -> None:
        """Removes the nodes that the output does not depend on."""
        needed, kept = {self.output}, []
        for node in reversed(self.nodes):
            if node.output in needed:
                needed.update(node.inputs)
                kept.append(node)
        self.nodes = kept[::-1]
