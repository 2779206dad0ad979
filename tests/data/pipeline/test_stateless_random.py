"""Stateless draws against splitmix64 in Python's whole numbers."""

import numpy as np

from data.pipeline.stateless_random import hashed, shuffle_seed, uniform
from runtime.tf1 import tf

BITS = (1 << 64) - 1


def reference(*keys):
    value = 0
    for key in keys:
        value = ((value ^ key) + 0x9E3779B97F4A7C15) & BITS
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & BITS
        value = (value ^ value >> 27) * 0x94D049BB133111EB & BITS
        value ^= value >> 31
    return value


def evaluated(build):
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(build(tf.constant([0, 1, -1 & BITS >> 1, 12345], tf.int64)))


KEYS = [0, 1, BITS >> 1, 12345]


def test_hashes_are_those_of_splitmix64():
    found = evaluated(lambda x: hashed(7, 2, x))
    assert (found.astype(np.uint64) == np.array([reference(7, 2, k) for k in KEYS], "u8")).all()


def test_uniform_takes_the_upper_24_bits():
    found = evaluated(lambda x: uniform(3, x))
    assert found.dtype == np.float32
    assert found.tolist() == [(reference(3, key) >> 40) * 2.0**-24 for key in KEYS]


def test_a_shuffle_seed_has_31_bits_and_is_never_zero():
    found = evaluated(lambda x: shuffle_seed(5, x))
    assert found.tolist() == [(reference(5, key) >> 33) + 1 for key in KEYS]
