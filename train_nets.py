"""Trains a face recognition network on one device.

    python3 train_nets.py --config configs/demo.yaml
    python3 train_nets.py --config configs/own.yaml --tfrecords_file_path data/mine --device gpu
    python3 train_nets.py --config configs/demo.yaml --resume

Durations: 2000 (steps), 0.5ep, 1Mimg or 0.1run; --epoch without a unit is in epochs.
"""

from typing import Optional, Sequence

from runtime.cli import run
from runtime.flags import parse_flags
from training.config import TrainConfig


def main(argv: Optional[Sequence[str]] = None) -> int:
    config = parse_flags(TrainConfig, argv, __doc__)
    from training.trainer import Trainer  # after the flags, whose mistakes need no graph code

    with Trainer(config) as trainer:
        return trainer.run()


if __name__ == "__main__":
    run(main)
