"""The PyTorch port's demo: a photo's embedding, and with --check 1 the name in a face bank.

python demo.py --weights_path model.onnx --data_path photo.jpg
python demo.py --weights_path model.onnx --data_path photo.jpg --check 1 --update 1
"""

import dataclasses
import logging
import os
from typing import NamedTuple, Optional, Sequence

import numpy as np

from faces.photo import PhotoError
from runtime.cli import run
from runtime.flags import flag, parse_flags
from serving.import_export import PLAIN_BANK, PORT_BANK, NamedEmbeddings, read_bank, write_port_bank
from serving.recognizer import Recognizer, read_file

STARS = "*" * 50
UNKNOWN = "Unknown"


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """Flags of demo.py, named as the port's."""

    weights_path: str = flag(
        "./work_space/save/model_ir_se100.onnx", "an exported model or a checkpoint's prefix"
    )
    data_path: str = flag("./demo_img.jpg", "the photo")
    check: int = flag(0, "1: print who of the bank it is", choices=(0, 1))
    update: int = flag(0, "1: build the bank from its directories of photos", choices=(0, 1))
    facebank_dir: str = flag("./data/facebank", "directory of <name>/<image> and of the bank")
    threshold: float = flag(1.54, "largest squared L2 of one person", low=0, high=4)
    detector: str = flag("auto", "a YuNet .onnx, mtcnn, auto or none")
    largest: bool = flag(False, "of several faces take the largest")


class Answer(NamedTuple):
    """The nearest person of the bank."""

    place: int  # row of the bank, -1 where nobody is near enough
    squared_l2: float  # to the nearest row, accepted or not


def main(argv: Optional[Sequence[str]] = None) -> int:
    config = parse_flags(DemoConfig, argv, __doc__.splitlines()[0])
    recognizer = Recognizer(config.weights_path, config.detector, largest=config.largest)
    try:
        unit_D = recognizer.embed_photo(read_file(config.data_path)).unit_D
    except PhotoError as error:
        raise ValueError(f"--data_path {config.data_path} {error}.") from None
    with np.printoptions(precision=4, threshold=10000, linewidth=100):
        print(f"emb_batch: {unit_D[None]}")
    if not config.check and not config.update:
        return 0
    bank = build_bank(config.facebank_dir, recognizer) if config.update else load_bank(config)
    if config.check:
        names = [UNKNOWN] + bank.names
        answer = nearest(unit_D, bank.embeddings_ND, config.threshold)
        print(STARS)
        print(f"facebank name list: {names}")
        print(f"result: tensor([{answer.place}])")
        print(f"name: {names[answer.place + 1]}")
        print(f"score: tensor([{answer.squared_l2:.4f}])")
        print(STARS)
    return 0


def build_bank(directory: str, recognizer: Recognizer) -> NamedEmbeddings:
    """Every sub-directory of photos -> the mean of its unit embeddings, as the port keeps it: not
    scaled to length 1. Writes facebank.pth and names.npy."""
    print("start building face_bank, Have a cup of coffee first ? ")
    if not os.path.isdir(directory):
        raise ValueError(f"--facebank_dir {directory} is no directory; put <name>/<image> there.")
    names, means = [], []
    for name in sorted(os.listdir(directory)):
        folder = os.path.join(directory, name)
        if not os.path.isdir(folder):
            continue
        units = []
        for image in sorted(os.listdir(folder)):
            path = os.path.join(folder, image)
            try:
                units.append(recognizer.embed_photo(read_file(path)).unit_D)
            except PhotoError as error:
                logging.warning("%s %s; it is skipped.", path, error)
        if units:
            names.append(name)
            means.append(np.mean(units, axis=0))
    if not names:
        raise ValueError(f"--facebank_dir {directory} holds no usable <name>/<image>.")
    bank = NamedEmbeddings(names, np.array(means, np.float32))
    write_port_bank(directory, bank)
    return bank


def load_bank(config: DemoConfig) -> NamedEmbeddings:
    """The bank that --update 1 or the port wrote."""
    print("start loading face_bank")
    there = os.listdir(config.facebank_dir) if os.path.isdir(config.facebank_dir) else []
    if PORT_BANK not in there and PLAIN_BANK not in there:
        raise ValueError(
            f"--facebank_dir {config.facebank_dir} has no {PORT_BANK}: please update facebank "
            "first (--update 1)."
        )
    return read_bank(config.facebank_dir)


def nearest(unit_D: np.ndarray, bank_ND: np.ndarray, threshold: float) -> Answer:
    """The row with the smallest squared distance; place -1 above the threshold, or without rows."""
    if not len(bank_ND):
        return Answer(-1, float("inf"))
    if bank_ND.shape[1] != len(unit_D):
        raise ValueError(
            f"the bank's embeddings have {bank_ND.shape[1]} numbers, the model's {len(unit_D)}; "
            "build the bank with this model (--update 1)."
        )
    distance_N = np.square(bank_ND.astype(np.float64) - unit_D).sum(axis=1)
    place = int(distance_N.argmin())
    accepted = distance_N[place] <= threshold
    return Answer(place if accepted else -1, float(distance_N[place]))


if __name__ == "__main__":
    run(main)
