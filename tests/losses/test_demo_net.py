"""Every loss, through a net of the demo's family and the optimizer: the loss falls."""

import numpy as np
import pytest

from losses.face_losses import LOSSES
from nets.build import embeddings
from nets.lineages import NetSpec
from runtime.tf1 import tf
from tests.losses.tiny_heads import head_of
from training.graph.optimizer import apply_gradients

SPEC = NetSpec(net_depth=18, width=0.25, embedding_size=32, image_size=(32, 32))
IMAGES, IDENTITIES, STEPS = 8, 20, 6


@pytest.fixture(scope="module")
def losses():
    """{loss: its value at each step, alone with the net}: one graph, in which a weight of 1 or 0
    chooses the loss that trains."""
    random = np.random.RandomState(0)
    images_NHWC = random.randint(0, 256, (IMAGES, 32, 32, 3)).astype(np.uint8)
    labels_N = random.randint(0, IDENTITIES, IMAGES)
    followed = {}
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        embedded_ND = embeddings(tf.constant(images_NHWC), SPEC, training=True)
        chosen_L = tf.placeholder(tf.float32, [len(LOSSES)])
        each = []
        for name in LOSSES:
            with tf.variable_scope(name):
                each.append(head_of(embedded_ND, tf.constant(labels_N), IDENTITIES, loss=name))
        total = tf.reduce_sum(chosen_L * tf.stack([head.loss for head in each]))
        variables = tf.trainable_variables()
        pairs = list(zip(tf.gradients(total, variables), variables))
        move = apply_gradients(pairs, 0.01, weight_decay=5e-4)
        for name, one_L in zip(LOSSES, np.eye(len(LOSSES))):
            session.run(tf.global_variables_initializer())
            steps = [session.run([total, move], {chosen_L: one_L}) for _ in range(STEPS)]
            followed[name] = [total for total, _ in steps]
    return followed


@pytest.mark.parametrize("name", LOSSES)
def test_loss_falls_in_six_steps(name, losses):
    assert np.isfinite(losses[name]).all()
    assert losses[name][-1] < 0.9 * losses[name][0], losses[name]
