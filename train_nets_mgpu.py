"""Trains a face-recognition net on many devices and hosts:
python3 train_nets_mgpu.py --num_devices 8 --device gpu --config configs/ms1mv3_r50.yaml."""

from runtime.cli import run
from runtime.flags import parse_flags
from training.config import MultiDeviceConfig
from training.many import run_multi_device


def main(argv=None):
    return run_multi_device(parse_flags(MultiDeviceConfig, argv, __doc__))


if __name__ == "__main__":
    run(main)
