"""Margin losses as pure functions: cosines and labels -> logits. N images, K identities.

cosine_NK is float32 in [-1, 1], up to rounding. labels_N is of any integer type, each in [0, K),
or -1 where a row has no true identity here: such a row's cosines get no margin. Every function
returns float32 [N, K], and its gradient is finite at every cosine.

theta is the angle to the centre of the true identity. Every loss takes the same LogitOptions.
"""

import difflib
import math
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence, Tuple, Union

from losses.choices import LOSS_NAMES, MARGIN_GRADIENTS, PAST_PI
from runtime.device import current
from runtime.tf1 import tf

SCALE = 64.0  # of every loss here, as arXiv:1801.07698
SINE_FLOOR = 1e-4  # the smallest sine above 0 of a float32 cosine is 3.5e-4
NORM_RANGE = (10.0, 110.0)  # MagFace's l_a and u_a, arXiv:2103.06627, section 4.1


class LogitOptions(NamedTuple):
    """What all losses share; softmax and cosface, which never pass pi, use the scale alone."""

    scale: float = SCALE
    # Where angle + margin passes pi the cosine would rise again. "line" decreases further, parallel
    # to cos(theta) (with one angle m: cos(theta) - m * sin(m), as MXNet's ArcFace); "none" lets it
    # rise, as arcface_torch.
    past_pi: str = "line"
    # "exact" differentiates the margin; "straight_through" treats it as a constant, as
    # arcface_torch.
    margin_gradient: str = "exact"


class NormStatistics(NamedTuple):
    """The norms of the embeddings, for AdaFace."""

    norms_N: tf.Tensor  # float32; no gradient flows into them
    mean: tf.Tensor  # scalar: moving mean
    std: tf.Tensor  # scalar: moving standard deviation


DEFAULTS = LogitOptions()


def softmax(
    cosine_NK: tf.Tensor, labels_N: tf.Tensor, options: LogitOptions = DEFAULTS
) -> tf.Tensor:
    """scale * cos(theta): normalised softmax (NormFace, arXiv:1704.06369), no margin."""
    del labels_N
    return options.scale * cosine_NK


def arcface(
    cosine_NK: tf.Tensor,
    labels_N: tf.Tensor,
    margin: float = 0.5,
    options: LogitOptions = DEFAULTS,
) -> tf.Tensor:
    """scale * cos(theta + margin) for the true identity. arXiv:1801.07698, section 3.1."""
    return combined(cosine_NK, labels_N, 1.0, margin, 0.0, options)


def cosface(
    cosine_NK: tf.Tensor,
    labels_N: tf.Tensor,
    margin: float = 0.35,
    options: LogitOptions = DEFAULTS,
) -> tf.Tensor:
    """scale * (cos(theta) - margin) for the true identity. arXiv:1801.09414."""
    return options.scale * _with_true(cosine_NK, labels_N, lambda cosine_N: cosine_N - margin)


def sphereface(
    cosine_NK: tf.Tensor,
    labels_N: tf.Tensor,
    margin: float = 1.35,
    options: LogitOptions = DEFAULTS,
) -> tf.Tensor:
    """scale * cos(margin * theta) for the true identity. arXiv:1704.08063; the default is the
    normalised form's in arXiv:1801.07698 (the first paper: 4, annealed, unnormalised)."""
    return combined(cosine_NK, labels_N, margin, 0.0, 0.0, options)


def combined(
    cosine_NK: tf.Tensor,
    labels_N: tf.Tensor,
    m1: float = 1.0,
    m2: float = 0.3,
    m3: float = 0.2,
    options: LogitOptions = DEFAULTS,
) -> tf.Tensor:
    """scale * (cos(m1 * theta + m2) - m3) for the true identity. arXiv:1801.07698, equation 4;
    the defaults are its CM1. "line" never lies above the value where the angle passes pi."""

    def bent(cosine_N):
        return _turned(cosine_N, m1, m2, options.past_pi) - m3

    return options.scale * _with_true(cosine_NK, labels_N, bent, options.margin_gradient)


def adaface(
    cosine_NK: tf.Tensor,
    labels_N: tf.Tensor,
    norms: NormStatistics,
    margin: float = 0.4,
    concentration: float = 0.333,
    options: LogitOptions = DEFAULTS,
) -> tf.Tensor:
    """scale * (cos(theta - margin * q) - margin * (1 + q)) for the true identity, where the image
    quality q = concentration * (norm - mean) / std is clipped to [-1, 1]. arXiv:2204.00964. A
    negative angle counts as 0, as published."""
    norms_N = tf.clip_by_value(tf.stop_gradient(norms.norms_N), 1e-3, 100.0)
    spread_N = (norms_N - norms.mean) / (norms.std + 1e-3)
    quality_N = tf.clip_by_value(concentration * spread_N, -1.0, 1.0)

    def bent(cosine_N):
        turned_N = _turned(cosine_N, 1.0, -margin * quality_N, options.past_pi)
        return turned_N - margin * (1.0 + quality_N)

    return options.scale * _with_true(cosine_NK, labels_N, bent, options.margin_gradient)


def curricularface(
    cosine_NK: tf.Tensor,
    labels_N: tf.Tensor,
    progress: tf.Tensor,
    margin: float = 0.5,
    options: LogitOptions = DEFAULTS,
    known: Optional[Tuple[tf.Tensor, tf.Tensor]] = None,
) -> tf.Tensor:
    """ArcFace whose hard negatives, those above cos(theta + margin), count cos * (progress + cos).
    arXiv:2004.00288. progress: float32 scalar, the moving mean of the true identities' cosines,
    0 at the start; see `curricular_progress`. A row without a true identity has no hard ones.
    known: (float32 [N], bool [N]), the cosine to each row's true identity and whether it has one,
    where cosine_NK are some of the identities and a label of -1 may have its own elsewhere."""
    cosine_NK, cosine_N = take_true(cosine_NK, labels_N)
    true_N, has_N = known or (cosine_N, labels_N >= 0)
    margined_N = tf.stop_gradient(_turned(true_N, 1.0, margin, "none"))
    hard_above_N = tf.where(has_N, margined_N, 2.0 * tf.ones_like(cosine_N))
    hardened_NK = tf.where(
        cosine_NK > hard_above_N[:, None], cosine_NK * (progress + cosine_NK), cosine_NK
    )
    hardened_NK, hardened_N = take_true(hardened_NK, labels_N)  # of a label -1: identity 0's
    target_N = _turned(cosine_N, 1.0, margin, options.past_pi)
    target_N = _passing(cosine_N, target_N, options.margin_gradient)
    target_N = tf.where(labels_N >= 0, target_N, hardened_N)
    return options.scale * put_true(hardened_NK, labels_N, target_N)


def curricular_progress(
    cosine_N: tf.Tensor, has_N: tf.Tensor, progress: tf.Tensor, share: float = 0.01
) -> tf.Tensor:
    """The scalar that follows `progress` after this batch: share of it is the mean cosine_N of the
    rows that have a true identity, has_N. A batch without any leaves it where it is."""
    has_N = tf.cast(has_N, tf.float32)
    count = tf.reduce_sum(has_N)
    mean = tf.reduce_sum(cosine_N * has_N) / tf.maximum(count, 1.0)
    return tf.stop_gradient(tf.where(count > 0, share * mean + (1.0 - share) * progress, progress))


def magface(
    cosine_NK: tf.Tensor,
    labels_N: tf.Tensor,
    norms_N: tf.Tensor,
    low_margin: float = 0.45,
    high_margin: float = 0.8,
    options: LogitOptions = DEFAULTS,
) -> tf.Tensor:
    """ArcFace with a margin that is linear in the embedding's norm, from low_margin to high_margin
    over NORM_RANGE. arXiv:2103.06627. norms_N: float32 norms of the embeddings, with gradient; the
    loss also needs `magface_regulariser`."""
    low_norm, high_norm = NORM_RANGE
    share_N = (tf.clip_by_value(norms_N, low_norm, high_norm) - low_norm) / (high_norm - low_norm)
    margin_N = low_margin + (high_margin - low_margin) * share_N

    def bent(cosine_N):
        return _turned(cosine_N, 1.0, margin_N, options.past_pi)

    return options.scale * _with_true(cosine_NK, labels_N, bent, options.margin_gradient)


def magface_regulariser(norms_N: tf.Tensor) -> tf.Tensor:
    """norm / high^2 + 1 / norm, with high the end of NORM_RANGE, which norms approach: float32 [N].
    arXiv:2103.06627, times 20 or 35 in its experiments."""
    low_norm, high_norm = NORM_RANGE
    norms_N = tf.clip_by_value(norms_N, low_norm, high_norm)
    return norms_N / high_norm**2 + 1.0 / norms_N


def take_true(score_NK: tf.Tensor, labels_N: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
    """-> (score_NK, each row's score of its true identity: float32 [N]; of identity 0 where the
    label is -1). Whatever needs both takes both from here: their gradients then become one matrix,
    where a plain gather's would be a second one of zeros."""
    return current().take_and_keep(score_NK, labels_N)


def true_scores(score_NK: tf.Tensor, labels_N: tf.Tensor) -> tf.Tensor:
    """Each row's score of its true identity, float32 [N], of identity 0 where the label is -1."""
    return current().take(score_NK, labels_N)


def _turned(cosine_N, factor, angle, past_pi):
    """cos(factor * theta + angle), continued by `past_pi` where that angle is past pi, and
    is held at 1 where it is below 0. factor: a float; angle: a float or float32 [N]."""
    sine_N = _sine(cosine_N)
    angle = tf.convert_to_tensor(angle, tf.float32)
    if factor == 1.0:  # no arc cosine, which would cost digits near 0 and pi
        turned_N = cosine_N * tf.cos(angle) - sine_N * tf.sin(angle)
    else:
        turned_N = tf.cos(factor * tf.atan2(sine_N, cosine_N) + angle)
    below_zero_N = tf.logical_and(angle < 0.0, cosine_N > tf.cos(angle))
    turned_N = tf.where_v2(below_zero_N, tf.ones_like(turned_N), turned_N)
    if past_pi == "none":
        return turned_N
    last = tf.cos(tf.minimum((math.pi - angle) / factor, math.pi))
    drop = tf.maximum(tf.maximum(angle, 0.0) * tf.sin(angle), 1.0 + last)
    return tf.where_v2(cosine_N > last, turned_N, cosine_N - drop)


def _sine(cosine_N):
    """sin(theta) in [0, 1], with a finite slope at both ends. (1-c)(1+c) keeps the small angles
    that 1-c*c rounds away."""
    cosine_N = tf.clip_by_value(cosine_N, -1.0, 1.0)
    return tf.sqrt(tf.maximum((1.0 - cosine_N) * (1.0 + cosine_N), SINE_FLOOR**2))


def _with_true(cosine_NK, labels_N, bent, margin_gradient="exact"):
    """cosine_NK with bent(cosine_N) in the place of each row's true identity."""
    cosine_NK, cosine_N = take_true(cosine_NK, labels_N)
    target_N = _passing(cosine_N, bent(cosine_N), margin_gradient)
    return put_true(cosine_NK, labels_N, tf.where(labels_N >= 0, target_N, cosine_N))


def _passing(cosine_N, target_N, margin_gradient):
    """target_N, through which the gradient passes exactly or as if it were cosine_N."""
    if margin_gradient == "straight_through":
        return cosine_N + tf.stop_gradient(target_N - cosine_N)
    return target_N


def put_true(score_NK: tf.Tensor, labels_N: tf.Tensor, true_N: tf.Tensor) -> tf.Tensor:
    """score_NK with true_N at each row's true identity, at identity 0 where the label is -1."""
    return current().put(score_NK, labels_N, true_N)


class Margin(NamedTuple):
    """What one margin may be."""

    default: float  # as published
    low: float
    high: float


class Loss(NamedTuple):
    """A loss and the arguments that it takes."""

    function: Callable[..., tf.Tensor]
    margins: Dict[str, Margin]  # in the order of --margin
    measured: Tuple[str, ...] = ()  # arguments that are computed in each step


_ANGLE = Margin(0.5, 0.0, 1.57)
SCALES = (1.0, 1000.0)

LOSSES = {
    "softmax": Loss(softmax, {}),
    "arcface": Loss(arcface, {"margin": _ANGLE}),
    "cosface": Loss(cosface, {"margin": Margin(0.35, 0.0, 1.0)}),
    "sphereface": Loss(sphereface, {"margin": Margin(1.35, 1.0, 4.0)}),
    "combined": Loss(
        combined,
        {"m1": Margin(1.0, 0.5, 4.0), "m2": Margin(0.3, 0.0, 1.57), "m3": Margin(0.2, 0.0, 1.0)},
    ),
    "adaface": Loss(adaface, {"margin": Margin(0.4, 0.0, 1.0)}, ("norms",)),
    "curricularface": Loss(curricularface, {"margin": _ANGLE}, ("progress", "known")),
    "magface": Loss(
        magface,
        {"low_margin": Margin(0.45, 0.0, 1.57), "high_margin": Margin(0.8, 0.0, 1.57)},
        ("norms_N",),
    ),
}
assert tuple(LOSSES) == LOSS_NAMES


def find_loss(
    name: str,
    margin: Union[None, float, Sequence[float]] = None,
    scale: Optional[float] = None,
    past_pi: str = "line",
    margin_gradient: str = "exact",
) -> Tuple[Loss, Dict[str, Any]]:
    """The flags of a loss -> (Loss, its keyword arguments), or a ValueError.
    margin: a number, or as many as the loss has margins; None or an empty tuple is the default."""
    if name not in LOSSES:
        near = difflib.get_close_matches(name, LOSSES, 1, cutoff=0.0)
        raise ValueError(
            f"--loss {name} is not known; did you mean {near[0]}? Known are {', '.join(LOSSES)}."
        )
    loss = LOSSES[name]
    arguments: Dict[str, Any] = _margins(name, loss.margins, margin)
    options = LogitOptions(SCALE if scale is None else float(scale), past_pi, margin_gradient)
    if not SCALES[0] <= options.scale <= SCALES[1]:
        raise ValueError(f"--scale {scale} is out of range: it must be 1 or more and 1000 or less.")
    for option, value, known in (
        ("past_pi", past_pi, PAST_PI),
        ("margin_gradient", margin_gradient, MARGIN_GRADIENTS),
    ):
        if value not in known:
            raise ValueError(f"--{option} {value} is not known; choose one of {', '.join(known)}.")
    return loss, dict(arguments, options=options)


def _margins(
    name: str, margins: Dict[str, Margin], given: Union[None, float, Sequence[float]]
) -> Dict[str, float]:
    """{margin's name: value}, each checked against its range."""
    if given is None or (isinstance(given, (tuple, list)) and not given):
        return {margin: bounds.default for margin, bounds in margins.items()}
    values = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    if len(values) != len(margins):
        raise ValueError(
            f"--margin {' '.join(map(str, values))}: the loss {name} takes {len(margins)} of them"
            f" ({', '.join(margins) or 'it has no margin'}), and this is {len(values)}."
        )
    for value, (margin, (_, low, high)) in zip(values, margins.items()):
        if not low <= value <= high:
            raise ValueError(
                f"--margin {value} is out of range: {margin} of {name} must be {low:g} or more and "
                f"{high:g} or less."
            )
    return {margin: float(value) for margin, value in zip(margins, values)}
