"""Enrols people from photos and identifies them.

python facebank.py enrol --bank office.db --model model.onnx --images people/
python facebank.py calibrate --bank office.db --model model.onnx --pairs lfw.bin
python facebank.py identify --bank office.db --model model.onnx --images photo.jpg --far 1e-3
python facebank.py erase "Jane Doe" --bank office.db
"""

import dataclasses
import json
import logging
import os
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np
from tqdm import tqdm

from data.eval_data_reader import decode_images, read_pairs
from faces.cropping import SMALLEST_FACE
from faces.photo import PhotoError
from runtime.cli import run
from runtime.flags import flag, parse_command
from serving import import_export
from serving.enrolment import BATCH, ENDINGS, enrol_directory
from serving.face_bank import FaceBank
from serving.identification import identify
from serving.index import EXACT, SEARCHES, TEMPLATES, Index
from serving.recognizer import Recognizer, read_file
from serving.thresholds import Calibration, Threshold, calibrate, resolve

REQUIRED = dataclasses.MISSING


@dataclasses.dataclass(frozen=True)
class BankConfig:
    """A bank and how the answer is printed."""

    bank: str = flag(REQUIRED, "the bank's file")
    json: bool = flag(False, "print JSON", late=True)


@dataclasses.dataclass(frozen=True)
class ListConfig(BankConfig):
    """Everyone in the bank."""


@dataclasses.dataclass(frozen=True)
class CheckConfig(BankConfig):
    """Reads the whole bank and prints what is wrong with it; exit code 1 if anything is."""


@dataclasses.dataclass(frozen=True)
class RemoveConfig(BankConfig):
    """Removes a person; copies may stay in unused parts of the file, see erase.

    python facebank.py remove "Jane Doe" --bank office.db"""

    name: str = flag(REQUIRED, "the person's name", positional=True)


@dataclasses.dataclass(frozen=True)
class EraseConfig(RemoveConfig):
    """Removes a person without leaving a byte of name or embeddings in the bank's files.

    python facebank.py erase "Jane Doe" --bank office.db"""


@dataclasses.dataclass(frozen=True)
class ModelConfig(BankConfig):
    """A bank and the model that it belongs to."""

    model: str = flag(REQUIRED, "an exported model (.onnx, ...) or a checkpoint's prefix")
    detector: str = flag("auto", "a YuNet .onnx, mtcnn, auto or none", "photos")
    flip: bool = flag(True, "add the mirrored image's embedding", "photos")
    largest: bool = flag(False, "of several faces take the largest", "photos")
    smallest_face: int = flag(SMALLEST_FACE, "pixels of the smallest face", "photos", low=1)


@dataclasses.dataclass(frozen=True)
class EnrolConfig(ModelConfig):
    """Photos in <name>/<image> -> samples of the bank, which is created where it is not there.

    python facebank.py enrol --bank office.db --model model.onnx --images people/"""

    images: str = flag(REQUIRED, "directory of <name>/<image>")


@dataclasses.dataclass(frozen=True)
class ThresholdConfig(ModelConfig):
    """From where on two faces count as one person."""

    threshold: Optional[str] = flag(
        None, "squared L2 (1.54) or cosine (cosine:0.23) of one person", "threshold"
    )
    far: Optional[float] = flag(
        None, "share of other people accepted, by the bank's calibration", "threshold"
    )


@dataclasses.dataclass(frozen=True)
class IdentifyConfig(ThresholdConfig):
    """Photos -> the name of the person on each, or "unknown".

    python facebank.py identify --bank office.db --model model.onnx --images photo.jpg --far 1e-3"""

    images: str = flag(REQUIRED, "a photo, or a directory of photos")
    template: str = flag("best", "a person's score: best sample or mean", choices=TEMPLATES)
    search: str = flag(EXACT, "exact, or approximate for millions of samples", choices=SEARCHES)
    top: int = flag(5, "candidates in the JSON", low=1, high=100)


@dataclasses.dataclass(frozen=True)
class VerifyConfig(ThresholdConfig):
    """Two photos -> whether they show one person.

    python facebank.py verify a.jpg b.jpg --model model.onnx --threshold 1.54"""

    first: str = flag(REQUIRED, "one photo", positional=True)
    second: str = flag(REQUIRED, "the other photo", positional=True)
    bank: str = flag("", "the bank that has the calibration for --far")


@dataclasses.dataclass(frozen=True)
class CalibrateConfig(ModelConfig):
    """Embeds a verification set's pairs and keeps their cosines in the bank for --far.

    python facebank.py calibrate --bank office.db --model model.onnx --pairs lfw.bin"""

    pairs: str = flag(REQUIRED, "a verification set, such as lfw.bin")


@dataclasses.dataclass(frozen=True)
class ImportConfig(ModelConfig):
    """Adds the embeddings of another program's bank; they must be of this --model.

    python facebank.py import --bank office.db --model model.onnx --source data/facebank"""

    source: str = flag(REQUIRED, "directory of facebank.pth and names.npy, or an .npz")


@dataclasses.dataclass(frozen=True)
class ExportConfig(BankConfig):
    """Writes the bank's embeddings for Keras_insightface (.npz) or the PyTorch port (directory).

    python facebank.py export --bank office.db --output facebank.npz"""

    output: str = flag(REQUIRED, "an .npz, or a directory for facebank.pth and names.npy")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Runs the verb that argv starts with; the exit code."""
    verb, config = parse_command(COMMANDS, argv, __doc__ or "")
    return VERBS[verb](config)


def enrol(config: EnrolConfig) -> int:
    """Photos in <name>/<image> -> samples of the bank, which is created where it is not there."""
    recognizer = _recognizer(config)
    bank = FaceBank.open_or_create(config.bank, recognizer.contract)
    calibration = _calibration(bank)
    threshold = resolve(None, None, calibration) if calibration else None
    with tqdm(unit="photo", disable=None) as bar:
        report = enrol_directory(bank, recognizer, config.images, threshold, bar.update)
    people, samples = bank.counts()
    for path, why in report.unusable:
        logging.warning("%s %s.", path, why)
    for name, other, cosine in report.similar:
        logging.warning(
            "%s and %s are similar (cosine %.3f): one person, or two names?", name, other, cosine
        )
    answer = dict(report._asdict(), bank_people=people, bank_samples=samples)
    _print(
        config,
        answer,
        f"{config.bank}: {report.added} samples added, {report.known} known, "
        f"{len(report.unusable)} photos unusable; {people} people, {samples} samples.",
    )
    if report.added + report.known == 0:
        raise ValueError(f"--images {config.images}: none of the photos can be used.")
    return 0


def identify_photos(config: IdentifyConfig) -> int:
    """Photos -> the name of the person on each, or "unknown"."""
    recognizer = _recognizer(config)
    bank = FaceBank(config.bank, recognizer.contract)
    threshold = resolve(config.threshold, config.far, _calibration(bank))
    index = Index(bank, config.template, config.search)
    answers = []
    for path in _photos(config.images):
        try:
            photo = recognizer.embed_photo(read_file(path))
        except PhotoError as error:
            if path == config.images:
                raise ValueError(f"{path} {error}.") from None
            answers.append({"photo": path, "error": error.code, "message": f"{path} {error}."})
            _print_line(config, f"{path} {error}.")
            continue
        (answer,) = identify(index, photo.unit_D[None], threshold, config.top)
        answers.append(dict(answer.to_dict(), photo=path, quality=photo.crop.quality))
        _print_line(config, f"{path}: {answer.sentence()}")
    _print(config, {"photos": answers})
    return 0


def verify(config: VerifyConfig) -> int:
    """Two photos -> whether they show one person."""
    recognizer = _recognizer(config)
    calibration = None
    if config.bank:
        calibration = _calibration(FaceBank(config.bank, recognizer.contract))
    threshold = resolve(config.threshold, config.far, calibration)
    units = []
    for path in (config.first, config.second):
        try:
            units.append(recognizer.embed_photo(read_file(path)).unit_D)
        except PhotoError as error:
            raise ValueError(f"{path} {error}.") from None
    cosine = float(np.clip(units[0] @ units[1], -1, 1))
    same = cosine >= threshold.cosine
    answer = {"same": same, "cosine": cosine, "squared_l2": 2 - 2 * cosine}
    text = (
        f"{'same person' if same else 'different people'} (cosine {cosine:.3f}, squared L2 "
        f"{2 - 2 * cosine:.3f}; threshold: cosine {threshold.cosine:.3f}{_far(threshold)})"
    )
    _print(config, dict(answer, threshold=threshold.describe(1)), text)
    return 0


def list_people(config: ListConfig) -> int:
    """Everyone in the bank."""
    persons = FaceBank(config.bank).persons()
    lines = [f"{person.name}  {person.samples} samples  {person.created}" for person in persons]
    lines.append(f"{config.bank}: {len(persons)} people.")
    _print(config, {"people": [person._asdict() for person in persons]}, "\n".join(lines))
    return 0


def remove(config: RemoveConfig) -> int:
    """Removes a person."""
    person = FaceBank(config.bank).remove(config.name)
    _print(
        config, {"removed": person._asdict()}, f"{person.name}: {person.samples} samples removed."
    )
    return 0


def erase(config: EraseConfig) -> int:
    """Removes a person from every file of the bank."""
    person = FaceBank(config.bank).erase(config.name)
    _print(config, {"erased": person._asdict()}, f"{person.name}: {person.samples} samples erased.")
    return 0


def check(config: CheckConfig) -> int:
    """Reads the whole bank and prints what is wrong with it."""
    bank = FaceBank(config.bank)
    faults = bank.check()
    people, samples = bank.counts()
    text = "\n".join(faults) or f"{config.bank} is sound: {people} people, {samples} samples."
    _print(config, {"faults": faults, "people": people, "samples": samples}, text)
    return 1 if faults else 0


def import_bank(config: ImportConfig) -> int:
    """Adds the embeddings of another program's bank; they must be of this --model."""
    recognizer = _recognizer(config)
    bank = FaceBank.open_or_create(config.bank, recognizer.contract)
    added = import_export.import_bank(bank, config.source)
    _print(config, {"added": added}, f"{config.bank}: {added} samples added from {config.source}.")
    return 0


def export_bank(config: ExportConfig) -> int:
    """Writes the bank's embeddings for Keras_insightface (.npz) or the PyTorch port (directory)."""
    samples = import_export.samples_of(FaceBank(config.bank))
    if config.output.endswith(".npz"):
        path = config.output
        import_export.write_keras_bank(path, samples)
    else:
        means = import_export.means_of(samples)
        path = import_export.write_port_bank(config.output, means)
    _print(config, {"output": path}, f"{path}: {len(samples.names)} samples.")
    return 0


def calibrate_bank(config: CalibrateConfig) -> int:
    """Embeds a verification set's pairs and keeps their cosines in the bank for --far."""
    recognizer = _recognizer(config)
    bank = FaceBank.open_or_create(config.bank, recognizer.contract)
    encoded, issame_P = read_pairs(config.pairs)
    units, where = [], f"{config.pairs}: image"
    for start in tqdm(range(0, len(encoded), BATCH), unit="batch", disable=None):
        part = encoded[start : start + BATCH]
        images_NHWC = decode_images(part, recognizer.image_size, where, start)
        units.append(recognizer.embed_crops(images_NHWC))
    name = os.path.basename(config.pairs)
    result = calibrate(name, np.concatenate(units), np.asarray(issame_P, bool))
    bank.set_calibration(*result)
    rows = [_calibration_row(result, far) for far in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)]
    rows = [row for row in rows if row]
    lines = [
        f"{config.bank}: {len(result.genuine)} genuine, {len(result.impostor)} impostor pairs."
    ]
    lines += [
        f"  FAR {row['far']:g}: cosine {row['cosine']:.4f} (squared L2 {row['squared_l2']:.4f}), "
        f"TAR {row['tar']:.4f}"
        for row in rows
    ]
    _print(config, {"set": name, "thresholds": rows}, "\n".join(lines))
    return 0


def _calibration_row(calibration, far):
    if far < calibration.smallest_far():
        return None
    cosine = calibration.cosine_at_far(far)
    row = {"far": far, "cosine": cosine, "squared_l2": 2 - 2 * cosine}
    return dict(row, tar=calibration.tar(cosine))


def _recognizer(config):
    return Recognizer(
        config.model, config.detector, config.flip, config.largest, config.smallest_face
    )


def _calibration(bank) -> Optional[Calibration]:
    stored = bank.calibration()
    return Calibration(*stored) if stored else None


def _photos(path) -> List[str]:
    if os.path.isfile(path):
        return [path]
    if not os.path.isdir(path):
        raise ValueError(f"--images {path} is neither a file nor a directory.")
    names = [name for name in sorted(os.listdir(path)) if name.lower().endswith(ENDINGS)]
    if not names:
        raise ValueError(f"--images {path} holds no photo ({', '.join(ENDINGS[:3])}, ...).")
    return [os.path.join(path, name) for name in names]


def _far(threshold: Threshold) -> str:
    return "" if threshold.far is None else f", FAR {threshold.far:.2g}"


def _print_line(config, text):
    if not config.json:
        print(text)


def _print(config, answer: Dict[str, Any], text: str = "") -> None:
    if config.json:
        print(json.dumps(answer, ensure_ascii=False))
    elif text:
        print(text)


COMMANDS = {
    "enrol": EnrolConfig,
    "identify": IdentifyConfig,
    "verify": VerifyConfig,
    "list": ListConfig,
    "remove": RemoveConfig,
    "erase": EraseConfig,
    "check": CheckConfig,
    "import": ImportConfig,
    "export": ExportConfig,
    "calibrate": CalibrateConfig,
}
VERBS: Dict[str, Callable[[Any], int]] = {
    "enrol": enrol,
    "identify": identify_photos,
    "verify": verify,
    "list": list_people,
    "remove": remove,
    "erase": erase,
    "check": check,
    "import": import_bank,
    "export": export_bank,
    "calibrate": calibrate_bank,
}

if __name__ == "__main__":
    run(main)
