"""The lists of IJB-B and IJB-C as the peers pack them: images, templates, pairs, galleries.

N images, M templates, P pairs. Read once, as arrays; templates become indices 0 ... M - 1.
"""

import dataclasses
import os
import warnings
from typing import List

import numpy as np

CHUNK = 1 << 25  # bytes of the pair list parsed at a time
GALLERIES = {"IJBC": ("G1", "G2"), "IJBB": ("S1", "S2")}
SUBSETS = tuple(GALLERIES)


@dataclasses.dataclass(frozen=True)
class Images:
    """names [N], landmarks_N52 float32, scores_N float32 (the detector's), template_N int32 index,
    weight_N: 1 over the images that share its template and medium, template_ids [M] sorted."""

    names: List[str]
    landmarks_N52: np.ndarray  # noqa: N815
    scores_N: np.ndarray  # noqa: N815
    template_N: np.ndarray  # noqa: N815
    weight_N: np.ndarray  # noqa: N815
    template_ids: np.ndarray

    def templates(self, ids, path):
        """Template ids of a list -> indices; one without an image is a ValueError."""
        index = np.searchsorted(self.template_ids, ids)
        index[index == len(self.template_ids)] = 0
        unknown = np.flatnonzero(self.template_ids[index] != ids)
        if len(unknown):
            raise ValueError(
                f"{path}: template {ids[unknown[0]]} has no image in the list of faces "
                f"({len(unknown)} entries like it); both lists must be of one release."
            )
        return index.astype(np.int32)


def meta_path(data_path, subset, ending):
    """<data_path>/meta/ijbc_<ending>, with or without a directory named like the subset."""
    inside = os.path.join(data_path, subset)
    base = inside if os.path.isdir(inside) else data_path
    path = os.path.join(base, "meta", f"{subset.lower()}_{ending}")
    if not os.path.exists(path):
        raise ValueError(
            f"{path} is not there; --data_path must hold meta/ and loose_crop/ of {subset}."
        )
    return path


def image_directory(data_path, subset):
    return os.path.join(os.path.dirname(os.path.dirname(meta_path(data_path, subset, FACES))), CROP)


FACES, POINTS, PAIRS = "face_tid_mid.txt", "name_5pts_score.txt", "template_pair_label.txt"
CROP = "loose_crop"


def read_images(data_path, subset):
    """Both lists of images -> Images; they must name the same images in the same order."""
    points_path = meta_path(data_path, subset, POINTS)
    faces_path = meta_path(data_path, subset, FACES)
    names, landmarks_N52, scores_N = _read_points(points_path)
    face_names, templates_N, media_N = _read_faces(faces_path)
    _agree(points_path, names, faces_path, face_names)
    template_ids, template_N = np.unique(templates_N, return_inverse=True)
    return Images(
        names,
        landmarks_N52,
        scores_N,
        template_N.astype(np.int32),
        media_weights(template_N, media_N),
        template_ids,
    )


def media_weights(template_N, media_N):
    """float32 [N]: 1 over how many images share template and medium, so that a sum over a
    template's images is the sum over its media of their means."""
    media_index = np.unique(media_N, return_inverse=True)[1].astype(np.int64)
    key_N = template_N.astype(np.int64) * (media_index.max() + 1) + media_index
    _, group_N, counts = np.unique(key_N, return_inverse=True, return_counts=True)
    return (1.0 / counts[group_N]).astype(np.float32)


def _agree(points_path, names, faces_path, face_names):
    if len(names) != len(face_names):
        raise ValueError(
            f"{points_path} lists {len(names)} images, {faces_path} {len(face_names)}; "
            "both must be of one release."
        )
    for line, (one, other) in enumerate(zip(names, face_names), start=1):
        if one != other:
            raise ValueError(
                f"line {line} is {one} in {points_path} and {other} in {faces_path}; the lists "
                "must name the same images in the same order."
            )


def _read_points(path):
    """Lines `name x1 y1 ... x5 y5 score`."""
    names, rows = [], []
    for line, fields in _lines(path, 12, "a name, ten coordinates and a score"):
        names.append(fields[0])
        rows.append(_numbers(path, line, fields[1:], float))
    rows = np.array(rows, np.float32)
    return names, rows[:, :10].reshape(-1, 5, 2), rows[:, 10].copy()


def _read_faces(path):
    """Lines `name template medium`."""
    names, rows = [], []
    for line, fields in _lines(path, 3, "a name, a template and a medium"):
        names.append(fields[0])
        rows.append(_numbers(path, line, fields[1:], int))
    rows = np.array(rows, np.int64)
    return names, rows[:, 0], rows[:, 1]


def _lines(path, count, what):
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


def _numbers(path, line, fields, kind):
    try:
        return [kind(field) for field in fields]
    except ValueError:
        raise ValueError(f"{path}: line {line} holds text where numbers must be.") from None


def read_pair_list(data_path, subset, images):
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


def _pair_chunks(path):
    """int32 columns of a few million pairs at a time: the list has 15.7 million lines."""
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


def _pair_columns(path, text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy only warns of text that is no number
        try:
            values = np.fromstring(text, np.int32, sep=" ")
        except (DeprecationWarning, ValueError):
            raise ValueError(f"{path} holds text where whole numbers must be.") from None
    if len(values) % 3 or len(values) == 0:
        raise ValueError(f"{path} is not three numbers a line; it may be cut short.")
    return values.reshape(-1, 3).T


def read_galleries(data_path, subset, images):
    """[(template_M int32, subject_M int64)] of the two galleries, then of the mixed probes."""
    first, second = GALLERIES[subset]
    endings = [f"1N_gallery_{first}.csv", f"1N_gallery_{second}.csv", "1N_probe_mixed.csv"]
    paths = [meta_path(data_path, subset, ending) for ending in endings]
    return [_read_subjects(path, images) for path in paths]


def _read_subjects(path, images):
    """CSV with a head: TEMPLATE_ID, SUBJECT_ID, ...; one line an image, so templates repeat."""
    rows = {}
    with open(path, encoding="utf-8") as stream:
        next(stream, None)
        for line, text in enumerate(stream, start=2):
            fields = text.replace(",", " ").split()
            if not fields:
                continue
            template, subject = _numbers(path, line, fields[:2], int)
            if rows.setdefault(template, subject) != subject:
                raise ValueError(
                    f"{path}: line {line} gives template {template} the subject {subject}, an "
                    f"earlier line {rows[template]}."
                )
    if not rows:
        raise ValueError(f"{path} lists no template.")
    templates = np.array(sorted(rows))
    subjects = np.array([rows[template] for template in templates.tolist()])
    return images.templates(templates, path), subjects
