"""Trains a face-recognition net on one device: python3 train_nets.py --config configs/demo.yaml."""

from runtime.cli import run
from runtime.flags import parse_flags
from training.config import TrainConfig
from training.train import train


def main(argv=None):
    return train(parse_flags(TrainConfig, argv, __doc__))


if __name__ == "__main__":
    run(main)
