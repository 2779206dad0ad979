"""Which images there are and whose: folders, both dialects of .lst, landmarks, pairs.txt."""

import collections
import os

import numpy as np

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

# points_52: landmarks or None. aligned: whether the list says that it is a finished crop.
Item = collections.namedtuple("Item", "path label points_52 aligned")


def folder_items(root):
    """<root>/<identity>/<image> -> ([Item], [names]); labels number the sorted names from 0."""
    names, items = [], []
    loose = [name for name in os.listdir(root) if _is_image(os.path.join(root, name))]
    if loose:
        raise ValueError(
            f"{os.path.join(root, loose[0])} lies in no identity's folder; put each person's "
            f"images into a folder of their own: {root}/<identity>/<image>."
        )
    for name in sorted(os.listdir(root)):
        folder = os.path.join(root, name)
        if not os.path.isdir(folder) or name.startswith("."):
            continue
        paths = [os.path.join(folder, file) for file in sorted(os.listdir(folder))]
        paths = [path for path in paths if _is_image(path)]
        items += [Item(path, len(names), None, False) for path in paths]
        names += [name] if paths else []
    if not items:
        raise ValueError(f"{root} has no images in folders of identities: <identity>/<image>.jpg.")
    return items, names


def list_items(path, root):
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


def read_landmarks(path, root):
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


def read_pair_list(path, root):
    """LFW's pairs.txt -> ([image paths, two a pair], [same?]).

    Lines of `name n1 n2` (same) or `name1 n1 name2 n2` (different); a first line of counts."""
    paths, issame = [], []
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        for number, line in enumerate(stream, start=1):
            fields = line.split()
            if not fields or (number == 1 and len(fields) <= 2):
                continue
            if len(fields) not in (3, 4) or not all(fields[i].isdigit() for i in (1, -1)):
                raise ValueError(
                    f"{path}: line {number} is neither `name n1 n2` nor `name1 n1 name2 n2`."
                )
            first, second = fields[:2], fields[-2:]
            second[0] = fields[0] if len(fields) == 3 else second[0]
            for name, count in (first, second):
                paths.append(_lfw_image(root, name, int(count), f"{path}: line {number}"))
            issame.append(len(fields) == 3)
    if not issame:
        raise ValueError(f"{path} lists no pair.")
    return paths, issame


def _lfw_image(root, name, number, where):
    stem = os.path.join(root, name, f"{name}_{number:04d}")
    for extension in EXTENSIONS:
        if os.path.exists(stem + extension):
            return stem + extension
    raise ValueError(f"{where} names {stem}.jpg (or .png, ...), which is not there.")


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
