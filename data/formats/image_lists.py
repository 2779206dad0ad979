"""Lists of images and their identities: folders, both dialects of .lst, landmarks, pairs."""

import csv
import os
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

NO_IMAGE = "is no image file"
SPARE_LABELS = 100000  # without an image, for a .lst that is part of a larger list
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class Item(NamedTuple):
    """One image of a list."""

    path: str
    label: int
    points_52: Optional[np.ndarray] = None  # landmarks, float64 [5, 2]
    aligned: bool = False  # the list marks it as a finished crop


def folder_items(
    root: str, omitted: Optional[List[Tuple[str, str]]] = None
) -> Tuple[List[Item], List[str]]:
    """<root>/<identity>/<image> -> ([Item], [names]); labels number the sorted names from 0.

    omitted: a list that takes (path, reason) of each file and folder that is not used. Hidden ones,
    such as .DS_Store, are not named."""
    names, items = [], []  # type: Tuple[List[str], List[Item]]
    omitted = [] if omitted is None else omitted
    loose = [name for name in os.listdir(root) if _is_image(os.path.join(root, name))]
    if loose:
        raise ValueError(
            f"{os.path.join(root, loose[0])} lies in no identity's folder; put each person's "
            f"images into a folder of their own: {root}/<identity>/<image>."
        )
    for name in sorted(os.listdir(root)):
        folder = os.path.join(root, name)
        if name.startswith("."):
            continue
        if not os.path.isdir(folder):
            omitted.append((folder, NO_IMAGE))
            continue
        if len(name.splitlines()) > 1:
            raise ValueError(
                f"{root}: the folder {name!r} has a line break in its name; rename it, because "
                "names are written one a line."
            )
        files = [file for file in sorted(os.listdir(folder)) if not file.startswith(".")]
        paths = [os.path.join(folder, file) for file in files]
        images = [path for path in paths if _is_image(path)]
        omitted += [(path, NO_IMAGE) for path in paths if not _is_image(path)]
        items += [Item(path, len(names)) for path in images]
        names += [name] if images else []
        omitted += [] if images else [(folder, "holds no image")]
    if not items:
        raise ValueError(f"{root} has no images in folders of identities: <identity>/<image>.jpg.")
    return items, names


def list_items(path: str, root: str) -> List[Item]:
    """A .lst of either dialect -> [Item]; image paths are relative to root.

    im2rec: index, label..., path. face2rec: aligned (0 or 1), path, label, then perhaps a box of 4
    and landmarks x1 ... x5 y1 ... y5. Fields are parted by tabs."""
    items = []
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                items.append(_list_item(line.rstrip("\r\n").split("\t"), root))
            except ValueError as error:
                raise ValueError(f"{path}: line {number} {error}.") from None
    if not items:
        raise ValueError(f"{path} lists no image.")
    largest = max(item.label for item in items)
    if largest > SPARE_LABELS + 10 * len(items):
        raise ValueError(
            f"{path} has {len(items)} images and labels up to {largest}; number the identities "
            "from 0 without gaps."
        )
    return items


def _list_item(fields, root):
    if len(fields) >= 3 and _is_number(fields[0]) and not _is_number(fields[-1]):
        return Item(os.path.join(root, fields[-1]), _label(fields[1]), None, False)
    if len(fields) in (3, 7, 17) and fields[0] in ("0", "1") and not _is_number(fields[1]):
        points = None
        if len(fields) == 17:
            points = _numbers(fields[7:]).reshape(2, 5).T
        return Item(os.path.join(root, fields[1]), _label(fields[2]), points, fields[0] == "1")
    raise ValueError(
        f"has {len(fields)} fields that are neither index, label, path (im2rec) nor aligned, path, "
        "label and perhaps a box and landmarks (face2rec), parted by tabs"
    )


def read_landmarks(path: str, root: str) -> Dict[str, np.ndarray]:
    """CSV lines of path,x1,y1,...,x5,y5 -> {image path: float64 [5, 2]}; the first may be names."""
    points = {}
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        for number, line in enumerate(stream, start=1):
            fields = line.strip().replace("\t", ",").split(",")
            if not line.strip() or (number == 1 and not _is_number(fields[-1])):
                continue
            try:
                if len(fields) != 11:
                    raise ValueError(f"has {len(fields)} fields, not path and 10 numbers")
                points[os.path.normpath(os.path.join(root, fields[0]))] = _numbers(
                    fields[1:]
                ).reshape(5, 2)
            except ValueError as error:
                raise ValueError(f"{path}: line {number} {error}.") from None
    return points


def read_pair_list(path: str, root: str) -> Tuple[List[str], List[bool]]:
    """A list of pairs -> ([image paths, two a pair], [same?]). Paths are relative to root.

    LFW's pairs.txt: `name n1 n2` (same) or `name1 n1 name2 n2` (different) after a line of counts.
    CSV: `path1,path2,label` with label 1 (same) or 0; the first line may name the columns."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
        lines = stream.read().splitlines()
    filled = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    is_csv = bool(filled) and any("," in line for _, line in filled[:2])
    paths, issame = [], []  # type: Tuple[List[str], List[bool]]
    for first, second, same in (_csv_pairs if is_csv else _lfw_pairs)(path, root, filled):
        paths += [first, second]
        issame.append(same)
    if not issame:
        raise ValueError(f"{path} lists no pair.")
    return paths, issame


def _csv_pairs(
    path: str, root: str, lines: List[Tuple[int, str]]
) -> Iterator[Tuple[str, str, bool]]:
    for place, (number, line) in enumerate(lines):
        fields = [field.strip() for field in next(csv.reader([line]))]
        if place == 0 and len(fields) == 3 and not _is_number(fields[2]):
            continue  # names of the columns
        if len(fields) != 3 or fields[2] not in ("0", "1"):
            raise ValueError(
                f"{path}: line {number} is not `path1,path2,label` with label 1 for the same "
                "identity or 0."
            )
        images = [os.path.join(root, field) for field in fields[:2]]
        for image in images:
            if not os.path.isfile(image):
                raise ValueError(f"{path}: line {number} names {image}, which does not exist.")
        yield images[0], images[1], fields[2] == "1"


def _lfw_pairs(
    path: str, root: str, lines: List[Tuple[int, str]]
) -> Iterator[Tuple[str, str, bool]]:
    for number, line in lines:
        fields = line.split()
        if number == 1 and len(fields) <= 2:
            continue
        if len(fields) not in (3, 4) or not all(_is_count(fields[i]) for i in (1, -1)):
            raise ValueError(
                f"{path}: line {number} is neither `name n1 n2` nor `name1 n1 name2 n2`."
            )
        first, second = fields[:2], fields[-2:]
        second[0] = fields[0] if len(fields) == 3 else second[0]
        where = f"{path}: line {number}"
        images = [_lfw_image(root, name, int(count), where) for name, count in (first, second)]
        yield images[0], images[1], len(fields) == 3


def _is_count(text: str) -> bool:
    return text.isdecimal() and len(text) <= 9


def _lfw_image(root, name, number, where):
    stem = os.path.join(root, name, f"{name}_{number:04d}")
    for extension in EXTENSIONS:
        if os.path.exists(stem + extension):
            return stem + extension
    raise ValueError(f"{where} names {stem}.jpg (or .png, ...), which does not exist.")


def _is_image(path):
    hidden = os.path.basename(path).startswith(".")
    return not hidden and path.lower().endswith(EXTENSIONS) and os.path.isfile(path)


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _label(text):
    number = float(text) if _is_number(text) else -1.0
    if not 0 <= number < 2**24 or number != int(number):
        raise ValueError(f"has the label {text!r}, not a whole number from 0 to 2^24")
    return int(number)


def _numbers(fields):
    values = np.array([float(field) if _is_number(field) else np.nan for field in fields])
    if not np.isfinite(values).all():
        raise ValueError("has a landmark that is not a number")
    return values
