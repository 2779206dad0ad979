"""Optimisations of the exported graph that change no result beyond float32's rounding.

Norms disappear into the convolutions and dense layers around them, all in float64. The arithmetic
uses no BLAS, whose order of additions depends on the machine: the same checkpoint gives the same
bits. Letters: C channels, I inputs, F filters or outputs.
"""

from typing import Optional

import numpy as np

from export.graph import Graph, Node

SMALLEST_GAMMA = 1e-6  # of a norm's scale; a channel below it is as good as constant
LARGEST_SHIFT = 256.0  # of a carried shift; float32 keeps 1e-5 of the stream's values next to it
LINEAR = ("Conv", "Gemm")
ROWS = 32  # of a weight matrix that are summed in one step, to bound memory


def optimize(graph: Graph) -> None:
    """All optimisations, each once, in the order in which they make room for one another."""
    merge_grouped_convolutions(graph)
    merge_subsampling(graph)
    remove_detours_of_rank_4(graph)
    merge_affines(graph)
    fold_following_affines(graph)
    fold_affines_before_unpadded_layers(graph)
    fold_affines_before_the_dense_layer(graph)
    fold_preactivation_norms(graph)
    graph.remove_unused()


def merge_grouped_convolutions(graph: Graph) -> None:
    """Depthwise convolution, reshape, sum over a group's inputs, reshape -> a grouped convolution.

    The network writes a grouped convolution so, because TensorFlow's CPU has no gradient for it."""
    consumers, producers = graph.consumers(), graph.producers()
    for total in [node for node in graph.nodes if node.op == "ReduceSum"]:
        split = producers.get(total.inputs[0])
        conv = producers.get(split.inputs[0]) if split else None
        after = consumers[total.output]
        if (
            split is None
            or conv is None
            or conv.op != "Conv"
            or split.op != "Reshape"
            or total.attributes["axes"] != [2]
        ):
            continue
        if len(after) != 1 or after[0].op != "Reshape" or len(graph.shapes[split.output]) != 6:
            continue
        groups, inputs, outputs = (int(size or 0) for size in graph.shapes[split.output][1:4])
        weight = conv.weights["weight"]
        kernel = weight.shape[2:]
        weight = weight.reshape((groups, inputs, outputs) + kernel).transpose(0, 2, 1, 3, 4)
        conv.weights["weight"] = weight.reshape((groups * outputs, inputs) + kernel)
        conv.attributes["group"] = groups
        graph.shapes[conv.output] = graph.shapes[after[0].output]
        graph.rename(after[0].output, conv.output)
    graph.remove_unused()


def merge_subsampling(graph: Graph) -> None:
    """Every n-th pixel, then 1x1 convolutions -> 1x1 convolutions of stride n."""
    consumers = graph.consumers()
    for node in [node for node in graph.nodes if _subsamples(node)]:
        after = consumers[node.output]
        if all(n.op == "Conv" and n.attributes["kernel_shape"] == [1, 1] for n in after):
            if all(n.attributes["strides"] == [1, 1] and not n.is_padded() for n in after):
                for layer in after:
                    layer.attributes["strides"] = node.attributes["strides"]
                graph.bypass(node)


def remove_detours_of_rank_4(graph: Graph) -> None:
    """Unsqueeze, Affine, Squeeze -> Affine: TensorFlow's norm takes nothing but images."""
    consumers, producers = graph.consumers(), graph.producers()
    for node in [node for node in graph.nodes if node.op == "Affine"]:
        before, after = producers.get(node.inputs[0]), consumers[node.output]
        if before and before.op == "Unsqueeze" and [n.op for n in after] == ["Squeeze"]:
            node.inputs = list(before.inputs)
            graph.shapes[node.output] = graph.shapes[after[0].output]
            graph.bypass(after[0])
    graph.remove_unused()


def merge_affines(graph: Graph) -> None:
    """An Affine that only another one reads becomes part of it."""
    for node in [node for node in graph.nodes if node.op == "Affine"]:
        after = graph.consumers()[node.output]
        if len(after) == 1 and after[0].op == "Affine":
            scale, shift = node.weights["scale"], node.weights["shift"]
            weights = after[0].weights
            weights["shift"] = weights["shift"] + weights["scale"] * shift
            weights["scale"] = weights["scale"] * scale
            graph.bypass(node)


def fold_following_affines(graph: Graph) -> None:
    """Convolution or dense layer, then Affine -> one layer with other weights."""
    consumers, producers = graph.consumers(), graph.producers()
    for node in [node for node in graph.nodes if node.op == "Affine"]:
        layer = producers.get(node.inputs[0])
        if layer and layer.op in LINEAR and len(consumers[layer.output]) == 1:
            scale, shift = node.weights["scale"], node.weights["shift"]
            weight = layer.weights["weight"].astype(np.float64)
            layer.weights["weight"] = weight * scale.reshape([-1] + [1] * (weight.ndim - 1))
            layer.weights["bias"] = bias_of(layer) * scale + shift
            graph.bypass(node)


def fold_affines_before_unpadded_layers(graph: Graph) -> None:
    """Affine, then layers that read no zeros around it -> the layers with other weights."""
    consumers = graph.consumers()
    for node in [node for node in graph.nodes if node.op == "Affine"]:
        after = consumers[node.output]
        if after and all(_is_unpadded(layer) for layer in after):
            for layer in after:
                layer.weights["bias"] = bias_of(layer) + response(layer, node.weights["shift"])
                scale_inputs(layer, node.weights["scale"])
            graph.bypass(node)


def fold_affines_before_the_dense_layer(graph: Graph) -> None:
    """Affine, Flatten, dense layer -> Flatten and a dense layer with other weights."""
    consumers, producers = graph.consumers(), graph.producers()
    for layer in [node for node in graph.nodes if node.op == "Gemm"]:
        flat = producers.get(layer.inputs[0])
        node = producers.get(flat.inputs[0]) if flat and flat.op == "Flatten" else None
        if flat is None or node is None:
            continue
        if node.op != "Affine" or len(consumers[flat.output]) != 1:
            continue
        if len(consumers[node.output]) != 1:
            continue
        area = layer.weights["weight"].shape[1] // len(node.weights["scale"])
        weight = layer.weights["weight"].astype(np.float64)
        shift_I = np.repeat(node.weights["shift"], area)
        layer.weights["bias"] = bias_of(layer) + sum_of_products(weight, shift_I)
        weight *= np.repeat(node.weights["scale"], area)
        layer.weights["weight"] = weight
        graph.bypass(node)


def fold_preactivation_norms(graph: Graph) -> None:
    """scale * x + shift before padded convolutions, exactly: x is carried as x + shift / scale.

    The convolution's weights take the scale, and its zeros stand for the same value as before. The
    bias of the last convolution before x adds the carried shift. Whoever else reads x subtracts it:
    an addition in the bias of its own convolution, an unpadded convolution in its bias."""
    for node in [node for node in graph.nodes if node.op == "Affine"]:
        shift_C = _carried_shift(node)
        if shift_C is None or not _is_foldable(graph, node):
            continue
        consumers, stream = graph.consumers(), node.inputs[0]
        for layer in consumers[node.output]:
            scale_inputs(layer, node.weights["scale"])
        for other in consumers[stream]:
            if other is not node:
                _subtract(graph, other, shift_C)
        graph.bypass(node)
        _add(graph, stream, shift_C)


def _carried_shift(node: Node) -> Optional[np.ndarray]:
    """shift / scale of a norm, or None where it is not a number that float32 carries well."""
    scale, shift = node.weights["scale"], node.weights["shift"]
    if np.abs(scale).min() < SMALLEST_GAMMA:
        return None
    carried = shift / scale
    return carried if np.abs(carried).max() <= LARGEST_SHIFT else None


def _is_foldable(graph: Graph, node: Node) -> bool:
    """Whether x can be carried shifted: who makes it can add a shift, who reads it can undo one."""
    consumers, producers = graph.consumers(), graph.producers()
    stream = node.inputs[0]
    maker = producers.get(stream)
    if maker is None or not all(layer.op == "Conv" for layer in consumers[node.output]):
        return False
    can_add = maker.op == "PRelu" or (
        maker.op == "Add" and free_convolution(graph, maker) is not None
    )
    others = [other for other in consumers[stream] if other is not node]
    return can_add and all(_undoes(graph, other) for other in others)


def _undoes(graph: Graph, other: Node) -> bool:
    """Whether a reader of the stream can be corrected for a shift of it."""
    if other.op == "Add":
        return len(other.inputs) == 2 and free_convolution(graph, other) is not None
    if _subsamples(other):
        readers = graph.consumers()[other.output]
        return all(_undoes(graph, reader) for reader in readers)
    return _is_unpadded(other)


def _subtract(graph: Graph, other: Node, shift_C: np.ndarray) -> None:
    """Corrects a reader of the stream for its shift."""
    if other.op == "Add":
        layer = free_convolution(graph, other)
        assert layer is not None
        layer.weights["bias"] = bias_of(layer) - shift_C
    elif _subsamples(other):
        for reader in graph.consumers()[other.output]:
            _subtract(graph, reader, shift_C)
    else:
        other.weights["bias"] = bias_of(other) - response(other, shift_C)


def _add(graph: Graph, stream: str, shift_C: np.ndarray) -> None:
    """Adds a shift where the stream is made."""
    maker = graph.producers()[stream]
    layer = free_convolution(graph, maker) if maker.op == "Add" else None
    if layer is not None:
        layer.weights["bias"] = bias_of(layer) + shift_C
        return
    shifted = f"{stream}_shifted"
    graph.shapes[shifted] = graph.shapes[stream]
    graph.rename(stream, shifted)
    addition = Node("Add", [stream], shifted, {"other": shift_C.reshape(-1, 1, 1)})
    graph.nodes.insert(graph.nodes.index(maker) + 1, addition)


def free_convolution(graph: Graph, addition: Node) -> Optional[Node]:
    """The convolution before an addition that nothing else reads, so that its bias may change."""
    consumers, producers = graph.consumers(), graph.producers()
    for name in addition.inputs:
        layer = producers.get(name)
        if layer is not None and layer.op == "Conv" and len(consumers[name]) == 1:
            return layer
    return None


def bias_of(layer: Node) -> np.ndarray:
    """The bias of a convolution or dense layer, zeros where it has none: float64 [F]."""
    filters = len(layer.weights["weight"])
    return np.asarray(layer.weights.get("bias", np.zeros(filters)), np.float64)


def scale_inputs(layer: Node, scale_C: np.ndarray) -> None:
    """Lets a layer read x where it read scale * x."""
    weight = layer.weights["weight"].astype(np.float64)
    layer.weights["weight"] = weight * _per_input(layer, scale_C)


def response(layer: Node, value_C: np.ndarray) -> np.ndarray:
    """What an unpadded layer without its bias makes of an image of one value per channel: [F]."""
    weight = layer.weights["weight"].astype(np.float64)
    values = np.broadcast_to(_per_input(layer, value_C), weight.shape)
    return sum_of_products(weight.reshape(len(weight), -1), values.reshape(len(weight), -1))


def _per_input(layer: Node, value_C: np.ndarray) -> np.ndarray:
    """A value per input channel, in the shape of the layer's weights: [F, I / groups, 1, 1]."""
    if layer.op == "Gemm":
        return value_C[None, :]
    filters, groups = len(layer.weights["weight"]), layer.attributes["group"]
    per_group = np.repeat(value_C.reshape(groups, -1), filters // groups, axis=0)
    return per_group[:, :, None, None]


def sum_of_products(one_FI: np.ndarray, other_FI: np.ndarray) -> np.ndarray:
    """Sums over the last axis by halves: the same order of additions on every machine."""
    other_FI = np.broadcast_to(other_FI, one_FI.shape)
    return np.concatenate(
        [
            _sum_by_halves(one_FI[row : row + ROWS] * other_FI[row : row + ROWS])
            for row in range(0, len(one_FI), ROWS)
        ]
    )


def _sum_by_halves(terms_FI: np.ndarray) -> np.ndarray:
    while terms_FI.shape[1] > 1:
        half = terms_FI.shape[1] // 2
        summed = terms_FI[:, :half] + terms_FI[:, half : 2 * half]
        terms_FI = np.concatenate([summed, terms_FI[:, 2 * half :]], axis=1)
    return terms_FI[:, 0]


def _is_unpadded(node: Node) -> bool:
    return node.op == "Gemm" or (node.op == "Conv" and not node.is_padded())


def _subsamples(node: Node) -> bool:
    return node.op == "MaxPool" and node.attributes["kernel_shape"] == [1, 1]
