"""Durations in steps, and the learning rate at each step."""

import math
import re
from typing import List, NamedTuple, Optional, Sequence

from runtime.tf1 import tf

REFERENCE_BATCH = 512  # the batch size of bare --lr_steps and of the default learning rate
REFERENCE_RATE = 0.1
_DURATION = re.compile(
    r"^([0-9.]+(?:e[0-9]+)?)(k|M)?(?:(steps?)|(ep|eps|epochs?)|(img|imgs|images?)|(run))?$"
)
_KINDS = ("step", "ep", "img", "run")  # of the groups 3 to 6
_UNITS = {None: 1, "k": 1000, "M": 1000000}


def steps_of(
    duration: str,
    images: int,
    batch_size: int,
    plain: str = "step",
    flag: str = "duration",
    total_steps: Optional[int] = None,
) -> int:
    """`2000`, `500steps`, `0.5ep`, `3epochs`, `1Mimg`, `0.1run` -> steps, rounded up.

    images: of an epoch. plain: the unit of a bare number. total_steps: of the run, for `run`."""
    match = _DURATION.match(str(duration).strip())
    try:
        amount = float(match.group(1)) * _UNITS[match.group(2)]  # type: ignore[union-attr]
    except (AttributeError, ValueError):
        raise ValueError(
            f"--{flag} {duration} is not a duration; write 2000 (a number of {_plural(plain)}), "
            f"500step, 0.5ep{', 0.1run' if total_steps else ''} or 1Mimg."
        ) from None
    assert match is not None
    kind = next((k for k, text in zip(_KINDS, match.groups()[2:]) if text), plain)
    if kind == "run" and total_steps is None:
        raise ValueError(
            f"--{flag} {duration} is a fraction of the run, whose length it would define; write it "
            "in epochs, steps or images."
        )
    steps = {
        "step": 1.0,
        "ep": images / batch_size,
        "img": 1.0 / batch_size,
        "run": float(total_steps or 0),
    }
    return int(math.ceil(round(amount * steps[kind], 6)))


def _plural(unit: str) -> str:
    return {"step": "steps", "ep": "epochs", "img": "images"}[unit]


def default_rate(batch_size: int) -> float:
    """The linear scaling rule: the learning rate is proportional to the batch size."""
    return REFERENCE_RATE * batch_size / REFERENCE_BATCH


def boundaries(
    lr_steps: Sequence[str], images: int, batch_size: int, total_steps: Optional[int] = None
) -> List[int]:
    """--lr_steps -> steps of this run. A bare number is at batch 512 and is rescaled, as in the
    original, but in floating point, so that a batch above 512 does not round it to 0."""
    scale = REFERENCE_BATCH / batch_size
    found: List[int] = []
    for text in lr_steps:
        bare = re.match(r"^[0-9.]+[kM]?$", text.strip())
        count = steps_of(text, images, batch_size, flag="lr_steps", total_steps=total_steps)
        found.append(max(1, int(round(count * scale))) if bare else count)
    if sorted(set(found)) != found:
        raise ValueError(
            f"--lr_steps {','.join(lr_steps)} are steps {found} at batch size {batch_size}; "
            "they must increase."
        )
    return found


class RateSettings(NamedTuple):
    """The learning rate over a run."""

    schedule: str = "constant"
    peak_rate: float = REFERENCE_RATE
    total_steps: int = 1
    warmup_steps: int = 0
    changes: Sequence[int] = ()  # steps at which piecewise and multistep change
    factors: Sequence[float] = (1.0,)  # multipliers of peak_rate between them


def learning_rate(step: tf.Tensor, rates: RateSettings) -> tf.Tensor:
    """float32 scalar: the rate of a step. step: int64 scalar, counted from 0."""
    step = tf.cast(step, tf.float32)
    scheduled = _scheduled(step, rates)
    if not rates.warmup_steps:
        return scheduled
    warm = rates.peak_rate * (step + 1.0) / float(rates.warmup_steps)
    return tf.where(step < float(rates.warmup_steps), tf.minimum(warm, rates.peak_rate), scheduled)


def _scheduled(step: tf.Tensor, rates: RateSettings) -> tf.Tensor:
    peak, changes, factors = rates.peak_rate, rates.changes, rates.factors
    if rates.schedule in ("piecewise", "multistep"):
        if len(factors) != len(changes) + 1:
            raise ValueError(
                f"--lr_factors has {len(factors)} values for {len(changes)} --lr_steps; "
                f"pass {len(changes) + 1}."
            )
        rate = tf.constant(peak * factors[0], tf.float32)
        for change, factor in zip(changes, factors[1:]):
            rate = tf.where(step > change - 0.5, tf.constant(peak * factor, tf.float32), rate)
        return rate
    decaying_steps = float(max(rates.total_steps - rates.warmup_steps, 1))
    left = 1.0 - (step - rates.warmup_steps) / decaying_steps
    left = tf.clip_by_value(left, 0.0, 1.0)
    if rates.schedule == "polynomial":
        return peak * left
    if rates.schedule == "cosine":
        return peak * 0.5 * (1.0 - tf.cos(math.pi * left))
    return tf.fill([], peak)
