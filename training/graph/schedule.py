"""Time in steps: durations as people say them, and the learning rate at each step."""

import math
import re

from runtime.tf1 import tf

SCHEDULES = ("piecewise", "multistep", "polynomial", "cosine", "constant")
REFERENCE_BATCH = 512  # the batch at which --lr_steps and the default learning rate are said
REFERENCE_RATE = 0.1
_DURATION = re.compile(r"^([0-9.]+(?:e[0-9]+)?)(k|M)?(step|ep|img)?s?$")
_UNITS = {None: 1, "k": 1000, "M": 1000000}


def steps_of(duration, images, batch_size, plain="step", flag="duration"):
    """`2000`, `0.5ep`, `1Mimg` -> whole steps, rounded up. plain: the unit of a bare number."""
    match = _DURATION.match(str(duration).strip())
    try:
        amount = float(match.group(1)) * _UNITS[match.group(2)]
    except (AttributeError, ValueError):
        raise ValueError(
            f"--{flag} {duration} is not a duration; write 2000 (a count of {plain}s), 500step, "
            "0.5ep or 1Mimg."
        ) from None
    steps = {"step": 1.0, "ep": images / batch_size, "img": 1.0 / batch_size}
    return int(math.ceil(round(amount * steps[match.group(3) or plain], 6)))


def default_rate(batch_size):
    """The linear rule: as much faster as the batch is larger."""
    return REFERENCE_RATE * batch_size / REFERENCE_BATCH


def boundaries(lr_steps, images, batch_size):
    """--lr_steps -> steps of this run. A bare number is said at batch 512 and rescaled, as the
    original did, but in floating point, so that a batch above 512 does not collapse them to 0."""
    scale = REFERENCE_BATCH / batch_size
    found = []
    for said in lr_steps:
        bare = re.match(r"^[0-9.]+[kM]?$", said.strip())
        count = steps_of(said, images, batch_size, flag="lr_steps")
        found.append(max(1, int(round(count * scale))) if bare else count)
    if sorted(set(found)) != found:
        raise ValueError(
            f"--lr_steps {','.join(lr_steps)} become steps {found} at batch {batch_size}; "
            "they must rise."
        )
    return found


def learning_rate(step, schedule, peak, total_steps, warmup_steps=0, changes=(), factors=(1.0,)):
    """float32 scalar: the rate of the step whose number, counted from 0, is the int64 `step`.
    changes, factors: the steps where piecewise and multistep change, and their shares of peak."""
    step = tf.cast(step, tf.float32)
    course = _course(step, schedule, peak, total_steps, warmup_steps, changes, factors)
    if not warmup_steps:
        return course
    rise = peak * (step + 1.0) / float(warmup_steps)
    return tf.where(step < float(warmup_steps), tf.minimum(rise, peak), course)


def _course(step, schedule, peak, total_steps, warmup_steps, changes, factors):
    if schedule in ("piecewise", "multistep"):
        if len(factors) != len(changes) + 1:
            raise ValueError(
                f"--lr_factors has {len(factors)} values for {len(changes)} --lr_steps; "
                f"pass {len(changes) + 1}."
            )
        rate = tf.constant(peak * factors[0], tf.float32)
        for change, factor in zip(changes, factors[1:]):
            rate = tf.where(step > change - 0.5, tf.constant(peak * factor, tf.float32), rate)
        return rate
    left = 1.0 - (step - warmup_steps) / float(max(total_steps - warmup_steps, 1))
    left = tf.clip_by_value(left, 0.0, 1.0)
    if schedule == "polynomial":
        return peak * left
    if schedule == "cosine":
        return peak * 0.5 * (1.0 - tf.cos(math.pi * left))
    return tf.fill([], peak)
