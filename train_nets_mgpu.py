"""Trains a face recognition network on several devices and hosts.

    python3 train_nets_mgpu.py --device gpu --num_devices 8 --config configs/ms1mv3_r50.yaml
    python3 train_nets_mgpu.py --device gpu --worker_hosts a:2222,b:2222 --task_index 0 --config ...
    python3 train_nets_mgpu.py --plan --num_output 1000000 --num_devices 8 --batch_size 1024

Durations are as in train_nets.py.
"""

import os
from typing import Optional, Sequence

from runtime.cli import run
from runtime.flags import parse_flags
from training.config import MultiDeviceConfig

MISSING = "--tfrecords_file_path is missing: pass what data/mx2tfrecords.py wrote."


def main(argv: Optional[Sequence[str]] = None) -> int:
    config = parse_flags(MultiDeviceConfig, argv, __doc__)
    if config.tfrecords_file_path is None and not (config.plan and config.num_output):
        raise ValueError(
            "--tfrecords_file_path is missing: pass the directory that data/mx2tfrecords.py wrote."
        )
    from training.cost.table import print_plan
    from training.launcher import children_of, supervise
    from training.topology import find_ranks
    from training.trainer import Trainer  # all after the flags, whose mistakes need no TensorFlow

    if config.plan:
        return print_plan(config)
    children = children_of(config, os.environ)
    if children:
        return supervise(children, config.max_restarts if config.supervise else 0)
    with Trainer(config, find_ranks(config, os.environ)) as trainer:
        return trainer.run()


if __name__ == "__main__":
    run(main)
