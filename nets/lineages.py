"""Whose network exactly: one row per published net, and the spec that names one net of a row.

Every difference between the published forms is a field here; the builders read fields, never
names. docs/lineages.md, generated from this table, names the source of each number.
"""

import dataclasses
import difflib
from typing import Any, Dict, Mapping, Optional, Tuple

UNITS = {
    10: (1, 1, 1, 1),  # published by none of the projects: for small data and tests
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
    152: (3, 8, 36, 3),
}
_PUBLISHED = {depth: UNITS[depth] for depth in (50, 100, 152)}
_BASIC = ("conv", "dense", "gamma", "alphas")


@dataclasses.dataclass(frozen=True)
class Lineage:
    """A row of the table. `decays` holds the kinds of weight that its own trainer decays."""

    name: str
    source: str  # the project and its network
    family: str = "ir"  # the builder: ir, mobilefacenet, vgg, resnet_v1
    units: Mapping[int, Tuple[int, ...]] = dataclasses.field(default_factory=lambda: UNITS)
    aliases: Mapping[int, int] = dataclasses.field(default_factory=dict)  # other names of a depth
    scopes: Mapping[int, int] = dataclasses.field(default_factory=dict)  # depth in variable names
    blocks: Tuple[str, ...] = ("ir", "se")
    widths: Tuple[int, ...] = (64, 128, 256, 512)
    expansion: int = 1  # a unit's outputs over its inner channels
    bottlenecks: Tuple[int, ...] = ()  # depths whose units are 1x1, 3x3, 1x1 with expansion 4
    first_shortcut: str = "conv"  # of stage 1, unit 1: conv, or pool where no channel is added
    norm_after_conv1: bool = True
    norm: str = "batch"  # batch, group, renorm
    eps: float = 1e-5
    unbiased: bool = True  # whether moving_variance follows n/(n-1) times the batch's variance
    gamma_init: str = "one"  # one, or near_one: N(1, 0.002)
    last_gamma: str = (
        "one"  # of the norm behind the dense layer: one, frozen, trained, none, absent
    )
    identity_carries_norm: bool = False  # identity shortcuts start behind the unit's first norm
    se_bias: bool = True
    se_activation: str = "relu"
    relu_after_add: bool = False  # in se blocks
    prelu_init: float = 0.25
    conv_init: str = "xavier"  # see nets.layers.initializer
    dense_init: str = "xavier"
    decays: Tuple[str, ...] = _BASIC
    flatten: str = "CHW"  # of the source's first dense layer; here it is always HWC
    dropout: float = 0.0
    l2: bool = False  # whether embeddings come out with length 1
    pixels: str = "RGB"
    mean: Tuple[float, ...] = (127.5,)
    divisor: float = 127.5
    names: str = ""  # the tensor names in the source's files (weights/name_maps.py); "": ours
    checked: str = ""  # against what the row was compared


_INSIGHTFACE_TF = Lineage(
    name="insightface_tf",
    source="InsightFace_TF: L_Resnet_E_IR_fix_issue9, _MGPU",
    first_shortcut="pool",
    eps=2e-5,
    unbiased=False,
    gamma_init="near_one",
    last_gamma="frozen",
    relu_after_add=True,
    prelu_init=0.0,
    flatten="HWC",
    dropout=0.6,
    pixels="BGR",
    divisor=128.0,
    checked="a PyTorch net written from its source",
)

_INSIGHTFACE_TF_WIDE = dataclasses.replace(
    _INSIGHTFACE_TF,
    name="insightface_tf_wide",
    source="InsightFace_TF: L_Resnet_E_IR",
    units=_PUBLISHED,
    aliases={101: 100},
    scopes={100: 101},
    expansion=4,
)

_INSIGHTFACE_TF_GN = dataclasses.replace(
    _INSIGHTFACE_TF_WIDE,
    name="insightface_tf_gn",
    source="InsightFace_TF: L_Resnet_E_IR_GBN",
    norm="group",
    eps=1e-5,
    last_gamma="absent",
    decays=("conv", "dense", "alphas"),
)

_INSIGHTFACE_TF_RENORM = dataclasses.replace(
    _INSIGHTFACE_TF_WIDE,
    name="insightface_tf_renorm",
    source="InsightFace_TF: L_Resnet_E_IR_RBN",
    norm="renorm",
    eps=1e-3,
    blocks=("ir",),
    gamma_init="one",
    last_gamma="trained",
    identity_carries_norm=True,
)

_ARCFACE_TORCH = Lineage(
    name="arcface_torch",
    source="insightface: arcface_torch, iresnet",
    units={**UNITS, 200: (6, 26, 60, 6)},
    blocks=("ir",),
    conv_init="normal",
    dense_init="torch",
    decays=_BASIC + ("beta", "bias"),
    names="iresnet",
    checked="a PyTorch net written from its source",
)

_INSIGHTFACE_MXNET = Lineage(
    name="insightface_mxnet",
    source="insightface: arcface_mxnet, fresnet, unit v3, output E",
    units={**UNITS, 101: (3, 4, 23, 3), 200: (3, 24, 36, 3)},
    eps=2e-5,
    se_activation="prelu",
    conv_init="fan_out",
    dense_init="fan_out",
    decays=_BASIC + ("se",),
    dropout=0.4,
    divisor=128.0,
    names="mxnet",
    checked="a PyTorch net written from its source",
)

_INSIGHTFACE_PYTORCH = Lineage(
    name="insightface_pytorch",
    source="InsightFace_Pytorch: Backbone ir, ir_se",
    units=_PUBLISHED,
    first_shortcut="pool",
    norm_after_conv1=False,
    last_gamma="trained",
    se_bias=False,
    conv_init="torch",
    dense_init="torch",
    decays=("conv", "dense", "bias", "se", "alphas"),
    dropout=0.6,
    l2=True,
    pixels="BGR",
    names="ir_body",
    checked="a PyTorch net written from its source",
)

_CVLFACE = Lineage(
    name="cvlface",
    source="CVLface: iresnet IR, IR_SE",
    units={**UNITS, 200: (3, 24, 36, 3)},
    aliases={101: 100},
    bottlenecks=(152, 200),
    first_shortcut="pool",
    last_gamma="none",
    se_bias=False,
    conv_init="fan_out",
    dense_init="fan_out",
    decays=("conv", "dense", "se"),
    dropout=0.4,
    names="ir_body",
    checked="a PyTorch net written from its source",
)

_ARCFACE_TORCH_MBF = Lineage(
    name="arcface_torch_mbf",
    source="insightface: arcface_torch, mbf",
    family="mobilefacenet",
    units={0: (1, 4, 6, 2)},
    blocks=("ir",),
    widths=(128, 128, 256, 256),
    last_gamma="trained",
    conv_init="fan_out",
    dense_init="fan_out",
    decays=_BASIC + ("beta",),
    names="mbf",
    checked="a PyTorch net written from its source",
)

_ARCFACE_TORCH_MBF_LARGE = dataclasses.replace(
    _ARCFACE_TORCH_MBF,
    name="arcface_torch_mbf_large",
    source="insightface: arcface_torch, mbf_large",
    units={0: (2, 8, 12, 4)},
    widths=(256, 256, 512, 512),
)

_INSIGHTFACE_PYTORCH_MBF = dataclasses.replace(
    _ARCFACE_TORCH_MBF,
    name="insightface_pytorch_mbf",
    source="InsightFace_Pytorch: MobileFaceNet",
    widths=(64, 64, 128, 128),
    conv_init="torch",
    dense_init="torch",
    decays=("conv", "dense", "alphas"),
    l2=True,
    pixels="BGR",
    names="mobilefacenet",
)

_VGG = Lineage(
    name="insightface_tf_vgg",
    source="InsightFace_TF: vgg16, vgg19",
    family="vgg",
    units={16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)},
    blocks=("ir",),
    widths=(64, 128, 256, 512, 512),
    conv_init="fan_out",  # ours: the original starts from downloaded weights
    dense_init="fan_out",
    decays=("conv", "dense"),
    flatten="HWC",
    mean=(123.68, 116.779, 103.939),
    divisor=1.0,
    checked="our reading of its source only",
)

_RESNET_V1 = Lineage(
    name="insightface_tf_resnet",
    source="InsightFace_TF: resnet, resnet_se",
    family="resnet_v1",
    units={50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)},
    expansion=4,
    unbiased=False,
    gamma_init="near_one",
    conv_init="truncated_0.02",
    dense_init="truncated_0.1",
    decays=("conv", "dense", "gamma"),
    mean=(128.0,),
    divisor=1.0,
    checked="our reading of its source only",
)

LINEAGES = {
    row.name: row
    for row in (
        _INSIGHTFACE_TF,
        _INSIGHTFACE_TF_WIDE,
        _INSIGHTFACE_TF_GN,
        _INSIGHTFACE_TF_RENORM,
        _ARCFACE_TORCH,
        _INSIGHTFACE_MXNET,
        _INSIGHTFACE_PYTORCH,
        _CVLFACE,
        _ARCFACE_TORCH_MBF,
        _ARCFACE_TORCH_MBF_LARGE,
        _INSIGHTFACE_PYTORCH_MBF,
        _VGG,
        _RESNET_V1,
    )
}


@dataclasses.dataclass(frozen=True)
class NetSpec:
    """One net: a lineage's row and the sizes that the row leaves open. width scales every layer."""

    lineage: str = "arcface_torch"
    net_depth: int = 100
    block: str = "ir"
    width: float = 1.0
    embedding_size: int = 512
    image_size: Tuple[int, int] = (112, 112)  # height, width

    def __post_init__(self) -> None:
        row = _row(self.lineage)
        depth = row.aliases.get(self.net_depth, self.net_depth)
        if len(row.units) == 1:  # a net of one form has no depth to choose
            depth = next(iter(row.units))
        object.__setattr__(self, "net_depth", depth)
        object.__setattr__(self, "image_size", tuple(int(side) for side in self.image_size))
        if depth not in row.units:
            raise ValueError(
                f"--net_depth {depth} is not built for lineage {row.name}; choose one of "
                f"{', '.join(map(str, sorted(row.units)))}."
            )
        if self.block not in row.blocks:
            raise ValueError(
                f"block {self.block} does not exist in lineage {row.name}; it has "
                f"{' and '.join(row.blocks)}."
            )
        if not 0 < self.width <= 4:
            raise ValueError(f"--width {self.width} is out of range: above 0, at most 4.")
        if self.embedding_size < 1:
            raise ValueError(f"--embedding_size {self.embedding_size} must be 1 or more.")
        if len(self.image_size) != 2 or min(self.image_size) < 16:
            raise ValueError(
                f"--image_size {','.join(map(str, self.image_size))} must be height,width of at "
                "least 16 pixels each."
            )

    @property
    def row(self) -> Lineage:
        """The lineage itself: a row of LINEAGES."""
        return LINEAGES[self.lineage]

    @property
    def scope_depth(self) -> int:
        """The depth as the lineage writes it in variable names."""
        return self.row.scopes.get(self.net_depth, self.net_depth)

    def channels(self, count: int) -> int:
        """A published channel count, scaled by width to a multiple of 8."""
        return count if self.width == 1.0 else max(8, int(round(count * self.width / 8)) * 8)

    def to_json(self) -> Dict[str, Any]:
        """What the record of a checkpoint holds of the net."""
        return dict(dataclasses.asdict(self), image_size=list(self.image_size))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "NetSpec":
        """The net of a record; a ValueError where a field is unknown or of another type."""
        known = {field.name for field in dataclasses.fields(cls)}
        extra = sorted(set(record) - known)
        if extra:
            raise ValueError(
                f"The net's record has the unknown field {extra[0]}; update this code."
            )
        for name, (accepts, expected) in _JSON_TYPES.items():
            if name in record and not accepts(record[name]):
                raise ValueError(f"{name} must be {expected}, and the record has another value.")
        return cls(**record)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_integer, value))


_JSON_TYPES = {
    "lineage": (lambda value: isinstance(value, str), "text"),
    "net_depth": (_is_integer, "an integer"),
    "block": (lambda value: isinstance(value, str), "text"),
    "width": (_is_number, "a number"),
    "embedding_size": (_is_integer, "an integer"),
    "image_size": (_is_size, "two integers"),
}


def _row(name: str, rows: Optional[Mapping[str, Lineage]] = None) -> Lineage:
    rows = LINEAGES if rows is None else rows
    if name not in rows:
        near = difflib.get_close_matches(str(name), list(rows), 1, cutoff=0.4)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"--lineage {name} is not known; choose one of {', '.join(sorted(rows))}.{hint}"
        )
    return rows[name]
