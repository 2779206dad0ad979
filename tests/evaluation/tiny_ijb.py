"""A release of the IJB layout, a hundred thousand times smaller: lists, galleries, images."""

import os

import cv2
import numpy as np

from faces.alignment import TEMPLATE_52

IMAGES, TEMPLATES, SUBJECTS, DIMENSIONS = 41, 12, 6, 5


def lists(seed=0):
    """dict of what the lists say: templates and media of images, subjects of templates, pairs."""
    random = np.random.RandomState(seed)
    template_N = np.append(np.arange(TEMPLATES), random.randint(0, TEMPLATES, IMAGES - TEMPLATES))
    template_N = random.permutation(template_N)
    media_N = 7 * template_N + random.randint(0, 3, IMAGES)  # a few images share a medium
    subject_M = np.arange(TEMPLATES) % SUBJECTS
    first, second = np.triu_indices(TEMPLATES, 1)
    return dict(
        template_N=template_N,
        media_N=media_N,
        scores_N=np.round(0.2 + 0.8 * random.rand(IMAGES), 3),
        subject_M=subject_M,
        pairs=list(zip(first, second, subject_M[first] == subject_M[second])),
    )


def template_id(template):
    """As in the release: not from 0 and with gaps."""
    return 3 * int(template) + 5


def embeddings(seed=0):
    """float32 (plain [N, D], mirrored [N, D]); images of one subject are alike."""
    said = lists(seed)
    random = np.random.RandomState(seed + 1)
    faces = random.randn(SUBJECTS, DIMENSIONS)
    base = faces[said["subject_M"][said["template_N"]]]
    return tuple(
        ((base + 0.9 * random.randn(*base.shape)) * (1 + random.rand(IMAGES, 1))).astype(np.float32)
        for _ in range(2)
    )


def write(path, seed=0, images=False, side=150):
    """Writes <path>/meta (and loose_crop); returns the path as text."""
    said, meta = lists(seed), os.path.join(str(path), "meta")
    os.makedirs(meta)
    names = [f"{i + 1}.jpg" for i in range(IMAGES)]
    points = " ".join(f"{value:.3f}" for value in (TEMPLATE_52 + 19).ravel())
    _write(
        meta, "name_5pts_score.txt", [f"{n} {points} {s}" for n, s in zip(names, said["scores_N"])]
    )
    _write(
        meta,
        "face_tid_mid.txt",
        [
            f"{n} {template_id(t)} {m}"
            for n, t, m in zip(names, said["template_N"], said["media_N"])
        ],
    )
    _write(
        meta,
        "template_pair_label.txt",
        [f"{template_id(a)} {template_id(b)} {int(same)}" for a, b, same in said["pairs"]],
    )
    head = "TEMPLATE_ID,SUBJECT_ID,FILENAME"
    rows = [f"{template_id(t)},{100 + said['subject_M'][t]},img/{t}.jpg" for t in range(TEMPLATES)]
    _write(meta, "1N_gallery_G1.csv", [head] + rows[:3] + rows[:1])
    _write(meta, "1N_gallery_G2.csv", [head] + rows[3:6])
    _write(meta, "1N_probe_mixed.csv", [head] + rows[6:])
    if images:
        os.makedirs(os.path.join(str(path), "loose_crop"))
        random = np.random.RandomState(seed)
        for name in names:
            picture = random.randint(0, 255, (side, side, 3)).astype(np.uint8)
            cv2.imwrite(os.path.join(str(path), "loose_crop", name), picture)
    return str(path)


def _write(meta, name, lines):
    with open(os.path.join(meta, f"ijbc_{name}"), "w") as stream:
        stream.write("\n".join(lines) + "\n")
