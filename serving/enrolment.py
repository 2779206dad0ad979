"""A directory of <name>/<image> -> samples in a bank, photo by photo decoded ahead of the model."""

import concurrent.futures
import os
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from faces.cropping import Crop
from serving.face_bank import FaceBank, NewSample
from serving.index import Index
from serving.person_names import checked_name
from serving.recognizer import Recognizer, digest, read_file
from serving.thresholds import Threshold

BATCH = 32  # crops in one run of the model, and samples in one transaction
DECODERS = 2  # threads that read, detect and align
ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".heic", ".tif", ".tiff")


class EnrolmentReport(NamedTuple):
    """What became of every photo of a directory."""

    added: int  # new samples
    known: int  # photos that are in the bank already
    people: int  # people of the directory
    unusable: List[Tuple[str, str]]  # (path, why)
    similar: List[Tuple[str, str, float]]  # (new person, other person, cosine) above the threshold


class _Prepared(NamedTuple):
    name: str
    path: str
    source_digest: str
    crop: Optional[Crop]  # None: unusable, or known
    fault: Optional[str]


def photos_of(directory: str) -> List[Tuple[str, str]]:
    """[(name, path)] of <name>/<image>, in order; names are checked before anything is embedded."""
    if not os.path.isdir(directory):
        raise ValueError(f"--images {directory} is not a directory; give one of <name>/<image>.")
    found = []
    for folder in sorted(os.listdir(directory)):
        path = os.path.join(directory, folder)
        if not os.path.isdir(path) or folder.startswith("."):
            continue
        name = checked_name(folder)
        images = [n for n in sorted(os.listdir(path)) if n.lower().endswith(ENDINGS)]
        found += [(name, os.path.join(path, image)) for image in images]
    if not found:
        raise ValueError(
            f"--images {directory} holds no <name>/<image>; give each person a folder."
        )
    return found


def enrol_directory(
    bank: FaceBank,
    recognizer: Recognizer,
    directory: str,
    threshold: Optional[Threshold] = None,
    progress: Optional[Callable[[int], object]] = None,
) -> EnrolmentReport:
    """Adds every usable photo. threshold: reports new people who are similar to others."""
    photos = photos_of(directory)
    added = known = 0
    unusable: List[Tuple[str, str]] = []
    batch: List[_Prepared] = []
    units: Dict[str, List[np.ndarray]] = {}
    for prepared in _prepare_ahead(bank, recognizer, photos):
        if progress is not None:
            progress(1)
        if prepared.fault:
            unusable.append((prepared.path, prepared.fault))
        elif prepared.crop is None:
            known += 1
        else:
            batch.append(prepared)
        if len(batch) == BATCH:
            added += _add(bank, recognizer, batch, units)
            batch = []
    if batch:
        added += _add(bank, recognizer, batch, units)
    similar = _similar_people(bank, units, threshold) if threshold and units else []
    return EnrolmentReport(added, known, len({name for name, _ in photos}), unusable, similar)


def _prepare_ahead(bank, recognizer, photos) -> Iterator[_Prepared]:
    with concurrent.futures.ThreadPoolExecutor(DECODERS) as pool:
        waiting = []
        for name, path in photos:
            waiting.append(pool.submit(_prepare, bank, recognizer, name, path))
            if len(waiting) > 2 * BATCH:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def _prepare(bank, recognizer, name, path):
    try:
        encoded = read_file(path)
        source_digest = digest(encoded)
        if bank.has_source(name, source_digest):
            return _Prepared(name, path, source_digest, None, None)
        return _Prepared(name, path, source_digest, recognizer.crop(encoded), None)
    except OSError as error:
        return _Prepared(name, path, "", None, f"cannot be read: {error.strerror}")
    except ValueError as error:
        return _Prepared(name, path, "", None, str(error))


def _add(bank, recognizer, batch, units):
    units_ND = recognizer.embed_crops(np.stack([item.crop.image_HWC for item in batch]))
    for item, unit_D in zip(batch, units_ND):
        units.setdefault(item.name, []).append(unit_D)
    return bank.add(
        [
            NewSample(item.name, unit_D, item.source_digest, item.crop.quality)
            for item, unit_D in zip(batch, units_ND)
        ]
    )


def _similar_people(bank, units, threshold):
    """New people who resemble another person: perhaps one person, two names."""
    index, found = Index(bank), {}
    for name, rows in units.items():
        for candidates in index.top(np.stack(rows), 2):
            for match in candidates:
                if match.name != name and match.cosine >= threshold.cosine:
                    pair = tuple(sorted((name, match.name)))
                    found[pair] = max(found.get(pair, -1.0), match.cosine)
    return [pair + (cosine,) for pair, cosine in sorted(found.items())]
