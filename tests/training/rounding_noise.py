"""How precisely a seeded result is defined on this machine: how far runs end apart when their first
weights differ by a rounding error. It differs between kinds of CPU and versions of TensorFlow, so
that no constant can be the limit."""

import contextlib
import functools

import numpy as np
import pytest

from runtime import variables
from runtime.tf1 import tf

NUDGE = 1e-7  # relative, about one rounding error of float32
NUDGES = 3  # runs that measure the noise
SLACK = 30.0  # single runs differ by a factor of 15: where a PReLU's input changes its sign


@contextlib.contextmanager
def nudged_weights(seed):
    """Within, a new variable's first value is changed by a random factor within 1 +- NUDGE."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variables, "_seeded", functools.partial(_nudged, seed, variables._seeded))
        yield


def _nudged(seed, seeded, initializer, name):
    exact = seeded(initializer, name)

    def start(shape, dtype=None, partition_info=None):
        value = exact(shape, dtype=dtype)
        return value * (1.0 + NUDGE * tf.random_uniform(value.shape, -1.0, 1.0, seed=seed + 1))

    return start


def assert_within_noise(found, expected, nudged, what="", slack=SLACK, rounding=1e-6):
    """Array found is as near to `expected` as `nudged`, results of nudged runs, are, times slack;
    or as near as rounding is. All by their norm: single elements may cancel to anything."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    noise = max(np.linalg.norm(np.asarray(run, np.float64) - expected) for run in nudged)
    apart = np.linalg.norm(found - expected)
    limit = slack * noise + rounding * np.linalg.norm(expected)
    assert apart <= limit, f"{what}: {apart:.3g} apart, of noise {noise:.3g} x {slack:g}"


def assert_values_within_noise(found, expected, nudged, slack=SLACK):
    """The same for {name: array} of all variables that are expected."""
    for name, value in expected.items():
        assert_within_noise(found[name], value, [run[name] for run in nudged], name, slack)
