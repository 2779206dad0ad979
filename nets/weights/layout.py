"""Another project's tensors <-> the variables of a net here, each one accounted for.

Convolutions are OIHW there and HWIO here, dense weights transposed, and the first dense layer's
inputs run C,H,W there and H,W,C here. Letters: D embedding.
"""

import re
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from nets.lineages import NetSpec
from nets.weights.name_maps import recognise, their_name

COUNTERS = re.compile(r"(.*\.)?num_batches_tracked")
HEADS = re.compile(r"fc7(_\d+)?_weight|(.*\.)?(head|kernel|classifier)(\..*)?|weight|bn_data_.*")
LISTED = 10  # names of each kind in an error

Shape = Sequence[int]


def feature_map(spec: NetSpec) -> Tuple[int, ...]:
    """Height and width of the last feature map: the net halves the image four times."""
    return tuple(-(-side // 16) for side in spec.image_size)


def arrays_of(
    tensors: Mapping[str, np.ndarray], spec: NetSpec, shapes: Mapping[str, Shape], source: str
) -> Tuple[Dict[str, np.ndarray], List[str]]:
    """({our name: float32 array}, [names left out]) from another project's {name: array}.

    shapes: {our name: shape} of the net. Counters of batches and class weights are left out; any
    other tensor that is missing, extra or of another shape is a ValueError that lists them."""
    theirs = {their_name(ours, spec): ours for ours in shapes}
    expected = {name: _their_shape(shapes[ours], ours, spec) for name, ours in theirs.items()}
    left_out = [
        n for n in tensors if n not in expected and (COUNTERS.match(n) or HEADS.fullmatch(n))
    ]
    found = {name: array.shape for name, array in tensors.items() if name not in left_out}
    if spec.block == "se":
        found = {name: _without_ones(shape, expected.get(name)) for name, shape in found.items()}
    wrong = differences(expected, found)
    if wrong:
        hint = _better(tensors, spec)
        raise ValueError(f"{source} does not hold {describe(spec)}: {wrong}.{hint}")
    return {
        ours: to_ours(tensors[name], ours, shapes[ours], spec) for name, ours in theirs.items()
    }, left_out


def tensors_of(arrays: Mapping[str, np.ndarray], spec: NetSpec) -> Dict[str, np.ndarray]:
    """{our name: array} -> {their name: float32 array}, as the lineage's own project has them."""
    return {their_name(ours, spec): to_theirs(array, ours, spec) for ours, array in arrays.items()}


def differences(expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> str:
    """Two {name: shape} -> a list of what differs, the first ten of each kind; "" where nothing."""
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    both = [name for name in expected if name in found]
    differing = [
        f"{name} {_spell(found[name])} instead of {_spell(expected[name])}"
        for name in both
        if tuple(found[name]) != tuple(expected[name])
    ]
    kinds = (("missing", missing), ("extra", extra), ("of another shape", differing))
    return "; ".join(
        f"{len(names)} {word}: {', '.join(names[:LISTED])}" + (", ..." if names[LISTED:] else "")
        for word, names in kinds
        if names
    )


def describe(spec: NetSpec) -> str:
    """A spec as the flags that select it."""
    se = " --se" if spec.block == "se" else ""
    depth = f" --net_depth {spec.net_depth}" if spec.net_depth else ""
    width = f" --width {spec.width:g}" if spec.width != 1.0 else ""
    size = "" if spec.image_size == (112, 112) else " --image_size %d,%d" % spec.image_size
    embedding = f" --embedding_size {spec.embedding_size}" if spec.embedding_size != 512 else ""
    return f"--lineage {spec.lineage}{depth}{se}{width}{embedding}{size}"


def to_ours(array: np.ndarray, ours: str, shape: Shape, spec: NetSpec) -> np.ndarray:
    """One tensor of theirs as our variable `ours` of `shape`: float32."""
    array = np.asarray(array, np.float32)
    leaf = ours.rsplit("/", 1)[1]
    if spec.row.names == "":
        return array
    if leaf == "W_conv2d":
        depthwise = shape[-1] == 1
        return np.ascontiguousarray(array.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0)))
    if leaf == "W" and "E_DenseLayer" in ours:
        height, width = feature_map(spec)
        array = array.reshape(shape[1], -1, height, width).transpose(2, 3, 1, 0)
        return np.ascontiguousarray(array.reshape(shape))
    if leaf == "W":
        return np.ascontiguousarray(array.reshape(shape[::-1]).T)
    if leaf == "gamma" and "E_BN2" in ours and spec.row.names == "mxnet":
        return np.ones(shape, np.float32)  # MXNet's fix_gamma: whatever is stored counts as 1
    return array


def to_theirs(array: np.ndarray, ours: str, spec: NetSpec) -> np.ndarray:
    """The inverse of to_ours."""
    array = np.asarray(array, np.float32)
    leaf = ours.rsplit("/", 1)[1]
    if spec.row.names == "":
        return array
    if leaf == "W_conv2d":
        depthwise = array.shape[-1] == 1
        return np.ascontiguousarray(array.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1)))
    if leaf == "W" and "E_DenseLayer" in ours:
        height, width = feature_map(spec)
        size = array.shape[1]
        array = array.reshape(height, width, -1, size).transpose(3, 2, 0, 1)
        return np.ascontiguousarray(array.reshape(size, -1))
    if leaf == "W":
        gate = "excitation_" in ours
        return np.ascontiguousarray(array.T.reshape(array.shape[::-1] + ((1, 1) if gate else ())))
    return array


def _their_shape(shape: Shape, ours: str, spec: NetSpec) -> Tuple[int, ...]:
    """The shape that to_theirs would give, without the array."""
    shape, leaf = tuple(shape), ours.rsplit("/", 1)[1]
    if spec.row.names == "" or leaf not in ("W_conv2d", "W"):
        return shape
    if leaf == "W":
        return shape[::-1] + ((1, 1) if "excitation_" in ours else ())
    height, width, inputs, filters = shape
    return (inputs, 1, height, width) if filters == 1 else (filters, inputs, height, width)


def _without_ones(shape: Shape, expected: Optional[Shape]) -> Shape:
    """`expected` where only sizes of 1 differ: a gate is a 1x1 convolution or a dense layer."""
    if expected and [s for s in shape if s != 1] == [s for s in expected if s != 1]:
        return expected
    return shape


def _better(tensors: Mapping[str, np.ndarray], spec: NetSpec) -> str:
    found = recognise({name: array.shape for name, array in tensors.items()})
    if found is None:
        return " Its names fit no lineage that is known here."
    if found == spec:
        return ""
    return f" Its names and shapes fit {describe(found)}."


def _spell(shape: Shape) -> str:
    return "x".join(map(str, shape)) if len(shape) else "scalar"
