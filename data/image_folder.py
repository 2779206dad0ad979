"""Your own images -> TFRecord shards, a .rec for the peers, or a .bin verification set.

python data/image_folder.py --image_path faces --output_path tfrecords/faces
python data/image_folder.py --image_path faces --to rec --output_path faces_emore_like
python data/image_folder.py --image_path lfw --pairs_path pairs.txt --to bin --output_path lfw.bin
"""

import concurrent.futures
import dataclasses
import logging
import os
import shutil
import sys
from typing import Optional, Tuple

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from data import mx2tfrecords  # noqa: E402
from data.convert.atomic_directory import work_directory  # noqa: E402
from data.convert.near_duplicates import difference_hash, near_pairs  # noqa: E402
from data.convert.worker_pool import cores  # noqa: E402
from data.formats.image_headers import JPEG, PNG, decoded, image_fault  # noqa: E402
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
from runtime.cli import run  # noqa: E402
from runtime.flags import flag, parse_flags  # noqa: E402

CHUNK = 256  # images that are prepared ahead
REPORT, NAMES = "images.csv", "identities.txt"


@dataclasses.dataclass(frozen=True)
class FolderConfig:
    """Flags of data/image_folder.py."""

    image_path: str = flag(
        dataclasses.MISSING, "folder of <identity>/<image>, or what a .lst is relative to", "files"
    )
    output_path: str = flag(dataclasses.MISSING, "directory (or .bin file) to write", "files")
    to: str = flag("shards", "what to write", "files", choices=("shards", "rec", "bin"))
    lst_path: Optional[str] = flag(None, "a .lst of im2rec or face2rec instead of folders", "files")
    landmarks_path: Optional[str] = flag(
        None, "CSV of path,x1,y1,...,x5,y5: eyes, nose, mouth corners", "files"
    )
    pairs_path: Optional[str] = flag(None, "LFW's pairs.txt, for --to bin", "files")
    image_size: Tuple[int, ...] = flag((112, 112), "height and width of the crops", low=16)
    fit: str = flag(
        "refuse",
        "images of another size: refuse them, align them by their landmarks, or resize them whole",
        choices=("refuse", "align", "resize"),
    )
    quality: int = flag(95, "JPEG quality of crops that are made here", low=1, high=100)
    on_error: str = flag(
        "stop", "what an unusable image does: end, or be skipped", choices=("stop", "skip")
    )
    max_errors: int = flag(1000, "unusable images that --on_error skip puts up with", low=0)
    duplicates: bool = flag(True, "look for images that are nearly the same, and list them")
    shards: int = flag(0, "as in data/mx2tfrecords.py", "shards", low=0)
    shuffle_seed: int = flag(0, "as in data/mx2tfrecords.py", "shards", low=0, high=2**32 - 1)
    workers: int = flag(0, "processor cores to use; 0: all, at most 4", low=0)


def main(argv=None):
    config = parse_flags(FolderConfig, argv, __doc__)
    if len(config.image_size) != 2:
        raise ValueError(f"--image_size takes a height and a width, not {config.image_size}.")
    if (config.to == "bin") != bool(config.pairs_path):
        raise ValueError("--to bin and --pairs_path belong together: pass both or neither.")
    dict(shards=_to_shards, rec=_to_rec, bin=_to_bin)[config.to](config)


def _to_bin(config):
    from data.eval_data_reader import write_pairs

    paths, issame = read_pair_list(config.pairs_path, config.image_path)
    items = _with_landmarks([Item(path, 0, None, False) for path in paths], config)
    config = dataclasses.replace(config, on_error="stop")  # a pair without an image is no pair
    encoded = [encoded for _, encoded, _, _ in _prepared(items, config)]
    write_pairs(config.output_path, encoded, issame)
    print(f"{config.output_path}: {len(issame)} pairs, {sum(issame)} of them the same person.")


def _to_rec(config):
    target = os.path.abspath(config.output_path)
    if os.path.exists(target) and (not os.path.isdir(target) or os.listdir(target)):
        raise ValueError(f"--output_path {config.output_path} is not empty; give a new directory.")
    items, names = _items(config)
    with work_directory(target, _bytes(items)) as work:
        images = _write_rec(config, items, names, work)
    print(f"{config.output_path}: train.rec with {images} images.")


def _to_shards(config):
    """Through a .rec of its own, so that one converter shuffles, checks and describes all."""
    target = os.path.abspath(config.output_path)
    stage, rest = target + ".images", ("train.rec", "train.idx", "property", REPORT, NAMES)
    if os.path.exists(stage):  # left by a run that was killed
        for name in rest:
            if os.path.exists(os.path.join(stage, name)):
                os.remove(os.path.join(stage, name))
        os.rmdir(stage)
    items, names = _items(config)
    try:
        with work_directory(stage, _bytes(items)) as work:
            _write_rec(config, items, names, work)
        words = ["--bin_path", os.path.join(stage, "train.rec"), "--tfrecords_file_path", target]
        words += ["--shards", str(config.shards), "--shuffle_seed", str(config.shuffle_seed)]
        mx2tfrecords.main(words + ["--workers", str(config.workers)])
        for name in (REPORT, NAMES):
            if os.path.exists(os.path.join(stage, name)):
                shutil.move(os.path.join(stage, name), os.path.join(target, name))
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _items(config):
    """([Item] by label, [name of each label] or None)."""
    if not os.path.isdir(config.image_path):
        raise ValueError(f"--image_path {config.image_path} is not a directory.")
    if config.lst_path is None:
        items, names = folder_items(config.image_path)
    else:
        items, names = list_items(config.lst_path, config.image_path), None
    return _with_landmarks(sorted(items, key=lambda item: item.label), config), names


def _with_landmarks(items, config):
    if config.landmarks_path is None:
        return items
    points = read_landmarks(config.landmarks_path, config.image_path)
    return [
        item._replace(points_52=points.get(os.path.normpath(item.path), item.points_52))
        for item in items
    ]


def _write_rec(config, items, names, folder):
    """train.rec, .idx and property as InsightFace lays them out; returns the count of images."""
    rec, idx = os.path.join(folder, "train.rec"), os.path.join(folder, "train.idx")
    labels, kept, hashes, faults = [], [], [], []
    with RecordWriter(rec, idx) as writer:
        for item, encoded, image_hash, why in _prepared(items, config):
            if why:
                faults.append((item.path, why))
                _too_many(faults, config)
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
        with open(os.path.join(folder, NAMES), "w", errors="surrogateescape") as stream:
            stream.writelines(f"{name}\n" for name in names)
    _write_report(config, folder, kept, labels, hashes, faults)
    return len(labels)


def _write_ranges(writer, labels):
    """A record for each label with its images' keys, and record 0 with where those records are."""
    keys = np.searchsorted(labels, np.arange(max(labels) + 2)) + 1
    first = len(labels) + 1
    for label, (begin, end) in enumerate(zip(keys[:-1], keys[1:])):
        writer.write(first + label, pack_header([begin, end], first + label))
    writer.write(0, pack_header([first, first + max(labels) + 1], 0, 1))


def _write_report(config, folder, paths, labels, hashes, faults):
    """images.csv: unusable images and near-duplicates; nothing if there are none."""
    pairs = near_pairs(np.array(hashes)) if config.duplicates else []
    lines = [f'unusable,"{path}","{why}"\n' for path, why in faults]
    for i, j in pairs:
        kind = "near-duplicate" if labels[i] == labels[j] else "near-duplicate of another identity"
        lines.append(f'{kind},"{paths[i]}","{paths[j]}"\n')
    if not lines:
        return
    with open(os.path.join(folder, REPORT), "w", errors="surrogateescape") as stream:
        stream.writelines(lines)
    across = sum(labels[i] != labels[j] for i, j in pairs)
    logging.info(
        "%s: %d unusable images, %d near-duplicates, %d of them of two identities; see %s.",
        config.image_path,
        len(faults),
        len(pairs),
        across,
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
        return None, None, "is no image, or is cut off"
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
        if item.points_52 is None:
            raise ValueError(f"is {shape} pixels and has no landmarks to align it by")
        return align(image, item.points_52, size)
    raise ValueError(
        f"is {shape} pixels, not {size[0]}x{size[1]}: pass --fit align with landmarks, or --fit "
        "resize if it is cropped to the face already"
    )


def _encode(extension, image, quality):
    import cv2

    done, encoded = cv2.imencode(extension, image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, extension
    return encoded.tobytes()


def _too_many(faults, config):
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
