"""Names of weights in other projects: ours <-> theirs, and the net that a list of names is of.

"Ours" are the variable names that nets/ makes, which are InsightFace_TF's. A translation is a table
of (part of our name, its part), so that a new project is a new table.
"""

import re
from typing import Any, Dict, Mapping, Optional, Set, Tuple

from nets.lineages import LINEAGES, NetSpec

Shapes = Mapping[str, Any]  # tensor name -> its shape

BATCH_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
MXNET_NORM = {name: name for name in ("gamma", "beta", "moving_mean")}
MXNET_NORM["moving_variance"] = "moving_var"

_UNIT = re.compile(r"block(\d+)/unit_(\d+)/bottleneck_v1/(.+)")

IRESNET = {
    "conv1": "conv1",
    "bn0": "bn1",
    "prelu0": "prelu",
    "E_BN1": "bn2",
    "E_DenseLayer": "fc",
    "E_BN2": "features",
}
IRESNET_UNIT = {
    "conv1_bn1": "bn1",
    "conv1": "conv1",
    "conv1_bn2": "bn2",
    "prelu_layer": "prelu",
    "conv2": "conv2",
    "conv2_bn/BatchNorm": "bn3",
    "shortcut_conv": "downsample.0",
    "shortcut_bn/BatchNorm": "downsample.1",
}
IR_BODY = {
    "conv1": "input_layer.0",
    "bn0": "input_layer.1",
    "prelu0": "input_layer.2",
    "E_BN1": "output_layer.0",
    "E_DenseLayer": "output_layer.3",
    "E_BN2": "output_layer.4",
}
MXNET = {
    "conv1": "conv0",
    "bn0": "bn0",
    "prelu0": "relu0",
    "E_BN1": "bn1",
    "E_DenseLayer": "pre_fc1",
    "E_BN2": "fc1",
}
MXNET_UNIT = {
    "conv1_bn1": "bn1",
    "conv1": "conv1",
    "conv1_bn2": "bn2",
    "prelu_layer": "relu1",
    "conv2": "conv2",
    "conv2_bn/BatchNorm": "bn3",
    "excitation_1": "se_conv1",
    "excitation_prelu": "se_relu1",
    "excitation_2": "se_conv2",
    "shortcut_conv": "conv1sc",
    "shortcut_bn/BatchNorm": "sc",
}
MBF_STAGES = ("conv1", "conv2_dw", "conv_23", "conv_3", "conv_34", "conv_4", "conv_45", "conv_5")
MBF_PARTS = {"conv": "0", "conv_dw": "1", "project": "2"}
MBF_LAYERS = {"conv": "0", "bn": "1", "prelu": "2"}


def their_name(ours: str, spec: NetSpec) -> str:
    """Our variable's name -> the name of the same tensor in the lineage's own files."""
    return _SCHEMES[spec.row.names](ours, spec)


def _split(ours):
    """ "a/b/W" -> ("b" and what stands before it, without the net's scope; "W")."""
    path, leaf = ours.rsplit("/", 1)
    return path.split("/", 1)[1], leaf


def _iresnet(ours, spec):
    path, leaf = _split(ours)
    unit = _UNIT.match(path)
    if unit:
        stage, number, part = unit.groups()
        layer = f"layer{stage}.{int(number) - 1}.{IRESNET_UNIT[part]}"
    else:
        layer = IRESNET[path]
    return f"{layer}.{_torch_leaf(leaf)}"


def _torch_leaf(leaf):
    return {"W_conv2d": "weight", "alphas": "weight", "W": "weight", "b": "bias", **BATCH_NORM}[
        leaf
    ]


def _ir_body(ours, spec):
    path, leaf = _split(ours)
    unit = _UNIT.match(path)
    if not unit:
        return f"{IR_BODY[path]}.{_torch_leaf(leaf)}"
    stage, number, part = unit.groups()
    index = sum(spec.row.units[spec.net_depth][: int(stage) - 1]) + int(number) - 1
    return f"body.{index}.{_ir_body_part(part, spec)}.{_torch_leaf(leaf)}"


def _ir_body_part(part, spec):
    if part.startswith("shortcut_"):
        return "shortcut_layer." + ("0" if part == "shortcut_conv" else "1")
    if part.startswith("excitation_"):
        gate = "se_block" if spec.row.norm_after_conv1 else "5"
        return f"res_layer.{gate}.fc{part[-1]}"
    return f"res_layer.{_residual_order(spec).index(part)}"


def _residual_order(spec):
    if spec.net_depth in spec.row.bottlenecks:
        inner = ["conv2", "conv2_bn/BatchNorm", "prelu_layer2", "conv3", "conv3_bn/BatchNorm"]
    else:
        inner = ["conv2", "conv2_bn/BatchNorm"]
    between = ["conv1_bn2"] if spec.row.norm_after_conv1 else []
    return ["conv1_bn1", "conv1"] + between + ["prelu_layer"] + inner


def _mxnet(ours, spec):
    path, leaf = _split(ours)
    unit = _UNIT.match(path)
    if unit:
        stage, number, part = unit.groups()
        layer = f"stage{stage}_unit{number}_{MXNET_UNIT[part]}"
    else:
        layer = MXNET[path]
    leaves = {"W_conv2d": "weight", "W": "weight", "b": "bias", "alphas": "gamma", **MXNET_NORM}
    return f"{layer}_{leaves[leaf]}"


def _mobilefacenet(ours, spec):
    path, leaf = _split(ours)
    numbered = re.sub(r"/unit_(\d+)/", lambda found: f"/model/{int(found.group(1)) - 1}/", path)
    return f"{numbered.replace('/', '.')}.{_torch_leaf(leaf)}"


def _mbf(ours, spec):
    path, leaf = _split(ours)
    leaf = _torch_leaf(leaf)
    if path in ("linear", "bn"):
        return f"features.layers.{2 if path == 'linear' else 3}.{leaf}"
    stage, rest = path.split("/", 1)
    if stage in ("conv_6_sep", "conv_6_dw"):
        start = "conv_sep" if stage == "conv_6_sep" else "features.layers.0"
        return f"{start}.layers.{MBF_LAYERS[rest]}.{leaf}"
    start = f"layers.{MBF_STAGES.index('conv2_dw' if stage == 'conv_2' else stage)}"
    unit = re.match(r"unit_(\d+)/(.+)", rest)
    if unit:
        start, rest = f"{start}.layers.{int(unit.group(1)) - 1}", unit.group(2)
    if "/" in rest:
        part, rest = rest.split("/")
        start = f"{start}.layers.{MBF_PARTS[part]}"
    return f"{start}.layers.{MBF_LAYERS[rest]}.{leaf}"


_SCHEMES = {
    "": lambda ours, spec: ours,
    "iresnet": _iresnet,
    "ir_body": _ir_body,
    "mxnet": _mxnet,
    "mbf": _mbf,
    "mobilefacenet": _mobilefacenet,
}

# --- InsightFace_TF's own checkpoints, as several TensorLayers spelled them ---


def canonical(name: str) -> str:
    """A variable's name in a checkpoint -> the same in this repository's spelling.
    TensorLayer 1.8 and later wrote PReluLayer/alpha, kernel and bias."""
    parts = name.split("/")
    parts = ["prelu_layer" if re.fullmatch(r"p_?relu_?layer", p, re.I) else p for p in parts]
    owner, leaf = (parts[-2] if len(parts) > 1 else ""), parts[-1]
    dense = owner.startswith(("E_DenseLayer", "excitation_")) or owner.endswith("_relu")
    if leaf in ("alpha", "alpha_w"):
        parts[-1] = "alphas"
    elif leaf in ("kernel", "weights"):
        parts[-1] = "W" if dense else "W_conv2d"
    elif leaf in ("bias", "biases") and len(parts) > 1:
        parts[-1] = "b" if dense else "b_conv2d"
    return "/".join(parts)


# --- the net that tensors are of ---


def recognise(shapes: Shapes) -> Optional[NetSpec]:
    """{tensor name: shape} of any source -> the NetSpec that has these names and widths, or None.
    Shapes are the source's own; prefixes such as `module.` are removed before."""
    for seen in (_seen_iresnet, _seen_ir_body, _seen_mxnet, _seen_mobile, _seen_tensorflow):
        found = seen(shapes)
        if found:
            return found
    return None


def _spec(row, counts, block, stem, embedding, pixels=None):
    """The NetSpec of what was seen, or None where the row has no such net. pixels: of the last
    feature map."""
    depths = [depth for depth, units in row.units.items() if tuple(units) == tuple(counts)]
    if not depths or block not in row.blocks:
        return None
    side = 16 * int(round(pixels**0.5)) if pixels else 112
    try:
        return NetSpec(row.name, depths[0], block, stem / 64.0, embedding, (side, side))
    except ValueError:
        return None


def _counts(shapes: Shapes, pattern: str) -> Tuple[int, ...]:
    """Units of each stage, by a pattern with the groups stage and unit."""
    seen: Dict[int, Set[str]] = {}
    for name in shapes:
        found = re.fullmatch(pattern, name)
        if found:
            seen.setdefault(int(found.group(1)), set()).add(found.group(2))
    return tuple(len(seen[stage]) for stage in sorted(seen))


def _seen_iresnet(shapes):
    counts = _counts(shapes, r"layer(\d)\.(\d+)\.bn3\.weight")
    if not counts or "fc.weight" not in shapes or "conv1.weight" not in shapes:
        return None
    embedding, features = shapes["fc.weight"]
    stem, last = shapes["conv1.weight"][0], shapes["bn2.weight"][0]
    return _spec(LINEAGES["arcface_torch"], counts, "ir", stem, embedding, features // last)


def _seen_ir_body(shapes):
    if "output_layer.3.weight" not in shapes or "input_layer.0.weight" not in shapes:
        return None
    total = len([name for name in shapes if re.fullmatch(r"body\.\d+\.res_layer\.0\.weight", name)])
    row = LINEAGES[
        "cvlface" if "body.0.res_layer.5.running_mean" in shapes else "insightface_pytorch"
    ]
    counts = next((units for units in row.units.values() if sum(units) == total), ())
    block = "se" if any(".fc1.weight" in name for name in shapes) else "ir"
    embedding, features = shapes["output_layer.3.weight"]
    last = shapes["output_layer.0.weight"][0]
    stem = shapes["input_layer.0.weight"][0]
    return _spec(row, counts, block, stem, embedding, features // last)


def _seen_mxnet(shapes):
    counts = _counts(shapes, r"stage(\d)_unit(\d+)_bn1_gamma")
    if not counts or "pre_fc1_weight" not in shapes or "bn1_gamma" not in shapes:
        return None
    block = "se" if any("_se_conv1_" in name for name in shapes) else "ir"
    embedding, features = shapes["pre_fc1_weight"]
    pixels = features // shapes["bn1_gamma"][0]
    row = LINEAGES["insightface_mxnet"]
    return _spec(row, counts, block, shapes["conv0_weight"][0], embedding, pixels)


def _seen_mobile(shapes):
    for row in (row for row in LINEAGES.values() if row.family == "mobilefacenet"):
        mine = row.names == "mobilefacenet"
        stem = "conv1.conv.weight" if mine else "layers.0.layers.0.weight"
        last = "linear.weight" if mine else "features.layers.2.weight"
        unit = r"conv_(4)\.model\.(\d+)\.conv\.bn\.bias"
        unit = unit if mine else r"layers\.(5)\.layers\.(\d+)\.layers\.0\.layers\.1\.bias"
        counts = row.units[0]
        if stem in shapes and last in shapes and _counts(shapes, unit) == (counts[2],):
            spec = NetSpec(row.name, 0, "ir", shapes[stem][0] / row.widths[0], shapes[last][0])
            return spec
    return None


def _seen_tensorflow(shapes):
    shapes = {re.sub(r"^resnet_v1_\d+/", "", canonical(name)): s for name, s in shapes.items()}
    if "conv1_1/W_conv2d" in shapes and "fc3_relu/W" in shapes:
        counts = _counts(shapes, r"conv(\d)_(\d)/W_conv2d")
        stem, embedding = shapes["conv1_1/W_conv2d"][-1], shapes["fc3_relu/W"][-1]
        return _spec(LINEAGES["insightface_tf_vgg"], counts, "ir", stem, embedding)
    counts = _counts(shapes, r"block(\d)/unit_(\d+)/bottleneck_v1/conv1/W_conv2d")
    block = "se" if any("/excitation_1/" in name for name in shapes) else "ir"
    if not counts or "conv1/W_conv2d" not in shapes:
        return None
    stem = shapes["conv1/W_conv2d"][-1]
    if "logits/W_conv2d" in shapes:
        row, embedding = LINEAGES["insightface_tf_resnet"], shapes["logits/W_conv2d"][-1]
        return _spec(row, counts, block, stem, embedding)
    row = _tensorflow_row(shapes)
    if row is None or "E_DenseLayer/W" not in shapes:
        return None
    features, embedding = shapes["E_DenseLayer/W"]
    last = shapes[f"block4/unit_{counts[-1]}/bottleneck_v1/conv2/W_conv2d"][-1]
    return _spec(row, counts, block, stem, embedding, features // last)


def _tensorflow_row(shapes):
    """Which of InsightFace_TF's five files, or None where the names are another lineage's."""
    first = "block1/unit_1/bottleneck_v1/"
    if "group_norm_0/scale" in shapes:
        return LINEAGES["insightface_tf_gn"]
    if "bn0/renorm_mean" in shapes:
        return LINEAGES["insightface_tf_renorm"]
    inner, outer = shapes.get(first + "conv1/W_conv2d"), shapes.get(first + "conv2/W_conv2d")
    if not inner or not outer or "E_BN2/gamma" not in shapes:
        return None
    if outer[-1] == 4 * inner[-1]:
        return LINEAGES["insightface_tf_wide"]
    own = first + "conv1_bn2/gamma" in shapes and first + "shortcut_conv/W_conv2d" not in shapes
    return LINEAGES["insightface_tf"] if own else None
