"""The memory of a run, estimated without one."""

import dataclasses

import numpy as np

from benchmarks.estimate import config_of
from runtime.tf1 import tf
from training.cost.estimate import device_uses, one_rank

IDENTITIES, BATCH, SIDE, D = 101, 8, 32, 24
VGG = dict(lineage="insightface_tf_vgg", net_depth=16)  # the fewest operations
R18 = dict(lineage="arcface_torch", net_depth=18)  # batch norm, so moving statistics


def small(**said):
    config = config_of(dict(VGG, width=0.125, batch_size=BATCH, num_output=IDENTITIES))
    return dataclasses.replace(config, image_size=(SIDE, SIDE), embedding_size=D, **said)


def sizes(variables):
    return sum(int(np.prod(variable.shape.as_list())) * 4 for variable in variables)


def test_what_stays_is_counted_by_the_variables_themselves():
    with tf.Graph().as_default():
        step = one_rank(small(ema=0.9, **R18), IDENTITIES, per_host=2)
        uses, tower = device_uses(step.towers[0], step), step.towers[0]
        centres = IDENTITIES // 2 * D * 4
        trained = sizes(variable for variable in tower.backbone if variable.trainable)
        assert uses["weights of the net"] == sizes(tower.backbone)
        assert uses["class centres"] == centres
        assert uses["optimizer's state"] == trained + centres
        assert uses["averaged weights"] == trained
        assert uses["activations"] > BATCH // 2 * SIDE * SIDE * 3 * 4
