"""Reads the lists of IJB-B and IJB-C in InsightFace's release: images, templates, pairs, galleries.

N images, M templates, P pairs. Templates become indices 0 ... M - 1.
"""

import dataclasses
import os
import warnings
from typing import Any, Callable, Dict, Iterator, List, Tuple

import numpy as np

CHUNK = 1 << 25  # bytes of a block of the pair list, which has 15.7 million lines
GALLERIES = {"IJBC": ("G1", "G2"), "IJBB": ("S1", "S2")}
SUBSETS = tuple(GALLERIES)


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of a subset, in the order of the lists."""

    names: List[str]  # of the files, N
    landmarks_N52: np.ndarray  # float32 (x, y)
    scores_N: np.ndarray  # float32, of the detector
    template_N: np.ndarray  # int32 index into template_ids
    weight_N: np.ndarray  # float32: 1 / (number of images of the same template and medium)
    template_ids: np.ndarray  # [M], sorted

    def templates(self, ids: np.ndarray, path: str) -> np.ndarray:
        """Template ids of the list at `path` -> int32 indices; each must have an image."""
        index = np.searchsorted(self.template_ids, ids)
        index[index == len(self.template_ids)] = 0
        unknown = np.flatnonzero(self.template_ids[index] != ids)
        if len(unknown):
            raise ValueError(
                f"{path}: template {ids[unknown[0]]} has no image in the list of faces "
                f"({len(unknown)} entries like it); both lists must be of one release."
            )
        return index.astype(np.int32)


def meta_path(data_path: str, subset: str, ending: str) -> str:
    """<data_path>/meta/ijbc_<ending>, or <data_path>/<subset>/meta/... where that exists."""
    inside = os.path.join(data_path, subset)
    base = inside if os.path.isdir(inside) else data_path
    path = os.path.join(base, "meta", f"{subset.lower()}_{ending}")
    if not os.path.exists(path):
        raise ValueError(
            f"{path} does not exist; --data_path must hold meta/ and loose_crop/ of {subset}."
        )
    return path


def image_directory(data_path: str, subset: str) -> str:
    """The directory of the image files."""
    return os.path.join(os.path.dirname(os.path.dirname(meta_path(data_path, subset, FACES))), CROP)


FACES, POINTS, PAIRS = "face_tid_mid.txt", "name_5pts_score.txt", "template_pair_label.txt"
CROP = "loose_crop"


def read_images(data_path: str, subset: str) -> Images:
    """Both lists of images -> Images; they must have the same images in the same order."""
    points_path = meta_path(data_path, subset, POINTS)
    faces_path = meta_path(data_path, subset, FACES)
    names, landmarks_N52, scores_N = _read_points(points_path)
    face_names, templates_N, media_N = _read_faces(faces_path)
    _check_same_images(points_path, names, faces_path, face_names)
    template_ids, template_N = np.unique(templates_N, return_inverse=True)
    return Images(
        names,
        landmarks_N52,
        scores_N,
        template_N.astype(np.int32),
        media_weights(template_N, media_N),
        template_ids,
    )


def media_weights(template_N: np.ndarray, media_N: np.ndarray) -> np.ndarray:
    """float32 [N]: 1 / (images of the same template and medium). The weighted sum over a template's
    images is then the sum over its media of their means, as the protocol defines it."""
    media_index = np.unique(media_N, return_inverse=True)[1].astype(np.int64)
    key_N = template_N.astype(np.int64) * (media_index.max() + 1) + media_index
    _, group_N, counts = np.unique(key_N, return_inverse=True, return_counts=True)
    return (1.0 / counts[group_N]).astype(np.float32)


def _check_same_images(
    points_path: str, names: List[str], faces_path: str, face_names: List[str]
) -> None:
    if len(names) != len(face_names):
        raise ValueError(
            f"{points_path} lists {len(names)} images, {faces_path} {len(face_names)}; "
            "both must be of one release."
        )
    for line, (one, other) in enumerate(zip(names, face_names), start=1):
        if one != other:
            raise ValueError(
                f"line {line} is {one} in {points_path} and {other} in {faces_path}; the lists "
                "must have the same images in the same order."
            )


def _read_points(path: str) -> Tuple[List[str], np.ndarray, np.ndarray]:
    """Lines `name x1 y1 ... x5 y5 score`."""
    names, lines = [], []
    for line, fields in _lines(path, 12, "a name, ten coordinates and a score"):
        names.append(fields[0])
        lines.append(_numbers(path, line, fields[1:], float))
    rows = np.array(lines, np.float32)
    return names, rows[:, :10].reshape(-1, 5, 2), rows[:, 10].copy()


def _read_faces(path: str) -> Tuple[List[str], np.ndarray, np.ndarray]:
    """Lines `name template medium`."""
    names, lines = [], []
    for line, fields in _lines(path, 3, "a name, a template and a medium"):
        names.append(fields[0])
        lines.append(_numbers(path, line, fields[1:], int))
    rows = np.array(lines, np.int64)
    return names, rows[:, 0], rows[:, 1]


def _lines(path: str, count: int, what: str) -> Iterator[Tuple[int, List[str]]]:
    """(number, fields) of each line that is not empty."""
    found = False
    with open(path, encoding="utf-8") as stream:
        for line, text in enumerate(stream, start=1):
            fields = text.split()
            if not fields:
                continue
            if len(fields) != count:
                raise ValueError(f"{path}: line {line} has {len(fields)} fields, not {what}.")
            found = True
            yield line, fields
    if not found:
        raise ValueError(f"{path} is empty.")


def _numbers(path: str, line: int, fields: List[str], kind: Callable[[str], Any]) -> List[Any]:
    try:
        return [kind(field) for field in fields]
    except ValueError:
        raise ValueError(f"{path}: line {line} holds text where numbers must be.") from None


def read_pair_list(
    data_path: str, subset: str, images: Images
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lines `template template label` -> (first_P, second_P int32 indices, issame_P bool)."""
    path = meta_path(data_path, subset, PAIRS)
    columns = [np.concatenate(parts) for parts in zip(*_pair_chunks(path))]
    first_P, second_P = (images.templates(ids, path) for ids in columns[:2])
    issame_P = columns[2].astype(bool)
    if issame_P.all() or not issame_P.any():
        raise ValueError(
            f"{path}: every pair has the label {columns[2][0]}; both kinds are needed."
        )
    return first_P, second_P, issame_P


def _pair_chunks(path: str) -> Iterator[np.ndarray]:
    """int32 [3, P] of each block of the list."""
    rest = b""
    with open(path, "rb") as stream:
        while True:
            block = stream.read(CHUNK)
            text = rest + block
            cut = text.rfind(b"\n") + 1 if block else len(text)
            text, rest = text[:cut], text[cut:]
            if text.strip():
                yield _pair_columns(path, text)
            if not block:
                return


def _pair_columns(path: str, text: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy only warns of text that is not numeric
        try:
            values = np.fromstring(text, np.int32, sep=" ")
        except (DeprecationWarning, ValueError):
            raise ValueError(f"{path} holds text where whole numbers must be.") from None
    if len(values) % 3 or len(values) == 0:
        raise ValueError(f"{path} does not have three numbers per line; it may be truncated.")
    return values.reshape(-1, 3).T


def read_galleries(
    data_path: str, subset: str, images: Images
) -> List[Tuple[np.ndarray, np.ndarray]]:
    """[(template index int32, subject int64)] of both galleries, then of the mixed probes."""
    first, second = GALLERIES[subset]
    endings = [f"1N_gallery_{first}.csv", f"1N_gallery_{second}.csv", "1N_probe_mixed.csv"]
    paths = [meta_path(data_path, subset, ending) for ending in endings]
    return [_read_subjects(path, images) for path in paths]


def _read_subjects(path: str, images: Images) -> Tuple[np.ndarray, np.ndarray]:
    """CSV with a header: TEMPLATE_ID, SUBJECT_ID, ...; one line per image, so templates repeat."""
    rows: Dict[int, int] = {}
    with open(path, encoding="utf-8") as stream:
        next(stream, None)
        for line, text in enumerate(stream, start=2):
            fields = text.replace(",", " ").split()
            if not fields:
                continue
            template, subject = _numbers(path, line, fields[:2], int)
            if rows.setdefault(template, subject) != subject:
                raise ValueError(
                    f"{path}: line {line} assigns template {template} to subject {subject}, but an "
                    f"earlier line assigns it to {rows[template]}."
                )
    if not rows:
        raise ValueError(f"{path} has no templates.")
    templates = np.array(sorted(rows))
    subjects = np.array([rows[template] for template in templates.tolist()])
    return images.templates(templates, path), subjects
