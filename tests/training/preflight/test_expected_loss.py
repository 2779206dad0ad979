"""The expected loss of an untrained network, against its head and a closed form."""

import numpy as np
import pytest

from losses.face_losses import LOSSES
from runtime.tf1 import tf
from tests.losses.tiny_heads import head_of
from tests.training.graph.test_step import config_of, run  # noqa: F401
from training.preflight.expected_loss import expected_loss


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_chance_is_what_an_untrained_head_gives(small, tmp_path, loss):
    config = config_of(small, tmp_path, loss=loss, embedding_size=64, scale=20.0)
    noise = np.random.RandomState(1).standard_normal((50, 64)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        labels = tf.constant(np.arange(50), tf.int64)
        head = head_of(tf.constant(noise), labels, 300, loss=loss, scale=20.0)
        session.run(tf.global_variables_initializer())
        expected = session.run(head.loss)
    length = np.linalg.norm(noise, axis=1).mean()
    assert expected_loss(config, 300, length) == pytest.approx(expected, rel=0.1)


def test_chance_for_arcface_is_its_closed_form(small, tmp_path):
    config = config_of(small, tmp_path, embedding_size=512)
    closed = 64.0 * np.sin(0.5) + np.log(10000) + 64.0**2 / (2 * 512)
    assert expected_loss(config, 10000, 20.0) == pytest.approx(closed, rel=0.02)
