"""A .bin verification set and a net -> what it scores, and the pairs that it finds hardest.

N images, P = N / 2 pairs, D embedding.
"""

import contextlib
import dataclasses
import os
from typing import Dict, Tuple

import numpy as np

import verification
from data.eval_data_reader import read_pairs
from evaluation import saved_pairs
from evaluation.saved_pairs import SavedPairs
from inference.batches import embed_encoded

HARDEST = 8  # of each kind: false accepts and false rejects


@dataclasses.dataclass(frozen=True)
class SetResult:
    """A set's score. Everything but `plain` is of plain + mirrored embeddings, as Accuracy-Flip.
    distances_P: squared, of unit embeddings."""

    name: str
    plain: verification.Verification
    flip: verification.Verification
    distances_P: np.ndarray  # noqa: N815
    issame_P: np.ndarray  # noqa: N815
    xnorm: float  # mean length of the embeddings, plain and mirrored
    hardest: Dict[int, Tuple[bytes, bytes]]  # pair -> its two encoded images
    synthetic: bool = False  # drawn people, not photographs

    def row(self):
        """The numbers of a line in metrics.jsonl, a table or a JSON list."""
        plain, flip = self.plain, self.flip
        genuine = self.distances_P[self.issame_P]
        impostor = self.distances_P[~self.issame_P]
        return {
            "set": self.name,
            "synthetic": self.synthetic,
            "accuracy": plain.accuracy,
            "accuracy_std": plain.accuracy_std,
            "accuracy_flip": flip.accuracy,
            "accuracy_flip_std": flip.accuracy_std,
            "accuracy_flip_interval": list(flip.accuracy_interval),
            "threshold": flip.threshold,
            "cosine": flip.cosine,
            "tar_at_far": {f"{far:g}": tar for far, tar in flip.tar_at_far.items()},
            "auc": flip.auc,
            "eer": flip.eer,
            "xnorm": self.xnorm,
            "genuine": flip.genuine,
            "impostor": flip.impostor,
            "genuine_cosine": 1.0 - float(genuine.mean()) / 2.0,
            "impostor_cosine": 1.0 - float(impostor.mean()) / 2.0,
        }

    def save(self, path, step=None):
        """Scores and the hardest pairs' images to a file, from which report.html is drawn."""
        row = dict(self.row(), step=step)
        saved_pairs.save(path, SavedPairs(row, self.distances_P, self.issame_P, self.hardest))


def find_sets(eval_db_path, names=None):
    """{name: path} of the .bin sets in a directory: those named, or all."""
    if not os.path.isdir(eval_db_path):
        raise ValueError(
            f"--eval_db_path {eval_db_path} is not a directory; pass the one with lfw.bin in it."
        )
    there = {
        entry[: -len(".bin")]: os.path.join(eval_db_path, entry)
        for entry in sorted(os.listdir(eval_db_path))
        if entry.endswith(".bin")
    }
    if not there:
        raise ValueError(f"{eval_db_path} holds no verification set (no .bin file).")
    wanted = [name[: -len(".bin")] if name.endswith(".bin") else name for name in names or there]
    for name in wanted:
        if name not in there:
            raise ValueError(
                f"{os.path.join(eval_db_path, name)}.bin is not there; {eval_db_path} holds "
                f"{', '.join(there)}: pass some of these to --eval_datasets."
            )
    return {name: there[name] for name in wanted}


def evaluate_set(embed_batch, path, name, image_size, batch_size, folds=10, progress=None):
    """SetResult of the .bin at `path`. embed_batch, image_size, batch_size: see embed_encoded."""
    encoded, issame_P = read_pairs(path)
    with _naming(path):
        issame_P = verification.checked_issame(issame_P, folds)  # before the net runs, not after
    plain_ND, mirrored_ND = embed_encoded(
        embed_batch, encoded, image_size, batch_size, progress, where=f"{path}: image"
    )
    with _naming(path):
        return judge(name, encoded, issame_P, plain_ND, mirrored_ND, folds, is_synthetic(path))


def is_synthetic(path):
    """Whether data/synthetic.py drew the set: it leaves its recipe beside what it draws."""
    return os.path.exists(os.path.join(os.path.dirname(os.path.abspath(path)), "synthetic.json"))


def check_set(path, folds=10):
    """Refuses a set that no accuracy can be said of, before anything else is done."""
    _, issame_P = read_pairs(path)
    with _naming(path):
        verification.checked_issame(issame_P, folds)


def judge(name, encoded, issame_P, plain_ND, mirrored_ND, folds=10, synthetic=False):
    """SetResult of embeddings that are there already."""
    plain_P = verification.pair_distances(plain_ND)
    distances_P = verification.pair_distances(plain_ND, mirrored_ND)
    lengths = [np.linalg.norm(part, axis=1).mean() for part in (plain_ND, mirrored_ND)]
    return SetResult(
        name=name,
        plain=verification.evaluate_distances(plain_P, issame_P, folds),
        flip=verification.evaluate_distances(distances_P, issame_P, folds),
        distances_P=distances_P,
        issame_P=issame_P,
        xnorm=float(np.mean(lengths)),
        hardest={
            pair: (bytes(encoded[2 * pair]), bytes(encoded[2 * pair + 1]))
            for pair in hardest_pairs(distances_P, issame_P)
        },
        synthetic=synthetic,
    )


def hardest_pairs(distances_P, issame_P, count=HARDEST):
    """The impostor pairs that look most alike, then the genuine pairs that look least alike."""
    impostor, genuine = np.flatnonzero(~issame_P), np.flatnonzero(issame_P)
    alike = impostor[np.argsort(distances_P[impostor], kind="stable")[:count]]
    unlike = genuine[np.argsort(-distances_P[genuine], kind="stable")[:count]]
    return alike.tolist() + unlike.tolist()


@contextlib.contextmanager
def _naming(path):
    """Puts the file's name before what verification.py says is wrong with its pairs."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
