"""What train_nets_mgpu.py does: reckon, supervise, or train on all ranks."""

import os

from training.members import find_ranks
from training.train import train


def train_many(config):
    """Does what a ManyConfig asks for; returns this process's exit code."""
    return train(config, find_ranks(config, os.environ))
