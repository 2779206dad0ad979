"""A .bin verification set, opened once: its images, its pairs, and how a network scores on them.

N = 2 P images (2i and 2i + 1 are pair i), U distinct images, P pairs, D embedding.
"""

import contextlib
import os
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

import verification
from data.eval_data_reader import decode_images, read_pairs
from evaluation import saved_pairs
from evaluation.quality import image_measures
from evaluation.saved_pairs import SavedPairs
from inference.batches import embed_images, prefetch

EmbedBatch = Callable[[np.ndarray], Tuple[np.ndarray, np.ndarray]]  # (plain, mirrored) [B, D]
HARDEST = 8  # pairs of each kind whose images are kept: impostors most alike, genuine least alike


class NetFunction(NamedTuple):
    """The part of an embedder that a VerificationSet uses; an Embedder has the same attributes."""

    embed_batch: EmbedBatch
    image_size: Tuple[int, int]  # (height, width)
    batch_size: int  # images in one call, exactly


class SetResult(NamedTuple):
    """The score of a set. Everything but `plain` is of plain + mirrored embeddings, as
    Accuracy-Flip."""

    name: str
    plain: verification.Verification
    flip: verification.Verification
    distances_P: np.ndarray  # squared, of unit embeddings
    issame_P: np.ndarray  # bool
    xnorm: float  # mean length of the embeddings, plain and mirrored
    norms_N: np.ndarray  # length of each image's plain + mirrored embedding
    hardest: Dict[int, Tuple[bytes, bytes]]  # pair -> its two encoded images
    synthetic: bool = False  # generated faces, not photographs
    identity_N: Optional[np.ndarray] = None  # int, as far as the pairs imply it

    def row(self) -> Dict[str, Any]:
        """The metrics as a line of metrics.jsonl, a table or a JSON list."""
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
            "tar_at_far": _text_keys(flip.tar_at_far),
            "tar_std": _text_keys(flip.tar_std),
            "achieved_far": _text_keys(flip.achieved_far),
            "auc": flip.auc,
            "eer": flip.eer,
            "xnorm": self.xnorm,
            "genuine": flip.genuine,
            "impostor": flip.impostor,
            "genuine_cosine": 1.0 - float(genuine.mean()) / 2.0,
            "impostor_cosine": 1.0 - float(impostor.mean()) / 2.0,
        }

    def save(self, path: str, step: Optional[int] = None) -> None:
        """Writes the scores and the hardest pairs' images, from which report.html is drawn."""
        saved_pairs.save(path, self.saved(step))

    def saved(self, step: Optional[int] = None) -> SavedPairs:
        """The part of the result that a report draws."""
        return SavedPairs(
            dict(self.row(), step=step),
            self.distances_P,
            self.issame_P,
            self.hardest,
            self.norms_N,
            self.identity_N,
        )


class VerificationSet:
    """The pairs of a .bin. `VerificationSet.open(path).evaluate(embedder)`.

    An image that occurs several times is kept, decoded and embedded once: lfw.bin has 12,000
    entries and 7,701 images, cfp_fp.bin 14,000 and 5,890."""

    def __init__(
        self, path: str, encoded: Sequence[bytes], issame_P: np.ndarray, folds: int = 10
    ) -> None:
        self.path, self.folds = path, folds
        self.name = os.path.splitext(os.path.basename(path))[0]
        self.synthetic = is_synthetic(path)
        with self._named_errors():
            self.issame_P = verification.check_issame(issame_P, folds)
        row_of: Dict[bytes, int] = {}
        self.row_N = np.array([row_of.setdefault(image, len(row_of)) for image in encoded], int)
        self.images: List[bytes] = list(row_of)  # U of them, in order of their first entry
        # int [N]: the identity of each image, as far as the set implies it
        self.identity_N = identities_of(self.row_N, self.issame_P)

    @classmethod
    def open(cls, path: str, folds: int = 10) -> "VerificationSet":
        """Reads a .bin and checks that an accuracy over `folds` folds can be computed from it."""
        encoded, issame_P = read_pairs(path)
        return cls(path, encoded, issame_P, folds)

    def __len__(self) -> int:
        """Pairs."""
        return len(self.issame_P)

    def image_names(self) -> List[str]:
        """What a file of groups calls each of the N entries: the lines of <set>.names.txt next to
        the .bin, which has no names itself, or the entries' numbers."""
        path = f"{os.path.splitext(self.path)[0]}.names.txt"
        if not os.path.exists(path):
            return [str(number) for number in range(len(self.row_N))]
        with open(path, encoding="utf-8") as stream:
            names = stream.read().splitlines()
        if len(names) != len(self.row_N):
            raise ValueError(
                f"{path} has {len(names)} lines for {len(self.row_N)} images; write one per image, "
                "in the order of the .bin."
            )
        return names

    def image(self, number: int) -> bytes:
        """The encoded image of entry `number` of the .bin."""
        return self.images[self.row_N[number]]

    def pair(self, number: int) -> Tuple[bytes, bytes]:
        """The two encoded images of a pair."""
        return self.image(2 * number), self.image(2 * number + 1)

    def decode(self, rows: Sequence[int], image_size: Tuple[int, int]) -> np.ndarray:
        """uint8 RGB [len(rows), H, W, 3] of distinct images; a broken one is named by its entry."""
        encoded = [self.images[row] for row in rows]
        try:
            return decode_images(encoded, image_size)
        except ValueError:
            for row, image in zip(rows, encoded):
                entry = int(np.argmax(self.row_N == row))
                decode_images([image], image_size, f"{self.path}: image", entry)
            raise

    def measures(self, image_size: Tuple[int, int]) -> Dict[str, np.ndarray]:
        """{measure: float64 [N]} of the images without a network, see quality.image_measures."""
        blocks = [
            image_measures(self.decode(range(start, min(start + 64, len(self.images))), image_size))
            for start in range(0, len(self.images), 64)
        ]
        names = list(blocks[0])
        return {
            name: np.concatenate([block[name] for block in blocks])[self.row_N] for name in names
        }

    def embed(
        self, embedder: Any, progress: Optional[Callable[[int], Any]] = None
    ) -> Tuple[np.ndarray, np.ndarray]:
        """float32 (plain [N, D], mirrored [N, D]). embedder: a NetFunction or an Embedder.
        progress: called with the number of images after each batch, `len(self.images)` in all."""
        size, total = embedder.batch_size, len(self.images)

        def decode(start: int) -> np.ndarray:
            return self.decode(range(start, min(start + size, total)), embedder.image_size)

        batches = prefetch(decode, range(0, total, size))
        both = embed_images(embedder.embed_batch, batches, total, size, progress)
        plain_UD, mirrored_UD = both
        return plain_UD[self.row_N], mirrored_UD[self.row_N]

    def evaluate(self, embedder: Any, progress: Optional[Callable[[int], Any]] = None) -> SetResult:
        """Embeds the images and scores the pairs; arguments as in `embed`."""
        return self.score(*self.embed(embedder, progress))

    def score(self, plain_ND: np.ndarray, mirrored_ND: np.ndarray) -> SetResult:
        """SetResult of embeddings of all N images."""
        with self._named_errors():
            plain_P = verification.pair_distances(plain_ND)
            distances_P = verification.pair_distances(plain_ND, mirrored_ND)
        lengths = [np.linalg.norm(part, axis=1).mean() for part in (plain_ND, mirrored_ND)]
        return SetResult(
            name=self.name,
            plain=verification.evaluate_distances(plain_P, self.issame_P, self.folds),
            flip=verification.evaluate_distances(distances_P, self.issame_P, self.folds),
            distances_P=distances_P,
            issame_P=self.issame_P,
            xnorm=float(np.mean(lengths)),
            norms_N=np.linalg.norm(plain_ND.astype(np.float64) + mirrored_ND, axis=1),
            hardest={pair: self.pair(pair) for pair in hardest_pairs(distances_P, self.issame_P)},
            synthetic=self.synthetic,
            identity_N=self.identity_N,
        )

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Puts the file's name before an error of verification.py."""
        try:
            yield
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None


class OpenSets:
    """Sets that are read once and kept, as far as their encoded images fit into `limit` bytes; the
    others are read again at each use."""

    def __init__(self, limit: Optional[int] = None) -> None:
        """limit: by default an eighth of the memory that is available now."""
        self.limit = available_memory() // 8 if limit is None else limit
        self._kept: Dict[str, VerificationSet] = {}

    def open(self, path: str) -> VerificationSet:
        """The set of a .bin."""
        if path in self._kept:
            return self._kept[path]
        pairs = VerificationSet.open(path)
        size = sum(map(len, pairs.images))
        if size <= self.limit:
            self.limit -= size
            self._kept[path] = pairs
        return pairs


def available_memory() -> int:
    """Bytes of main memory that new data can use; 2 GiB on systems without /proc/meminfo."""
    try:
        with open("/proc/meminfo", encoding="ascii") as stream:
            values = dict(line.split(":") for line in stream)
        return int(values["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return 2 << 30


def find_sets(eval_db_path: str, names: Optional[Sequence[str]] = None) -> Dict[str, str]:
    """{name: path} of the .bin sets in a directory: the named ones, or all."""
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
                f"{os.path.join(eval_db_path, name)}.bin is missing; {eval_db_path} holds "
                f"{', '.join(there)}: pass some of these to --eval_datasets."
            )
    return {name: there[name] for name in wanted}


def identities_of(row_N: Sequence[int], issame_P: np.ndarray) -> np.ndarray:
    """int [N]: the identity of each image, as far as the pairs imply it. A .bin has no names, but
    the images of a genuine pair, and equal images in several pairs, are of one identity.

    row_N: a number per image, equal for equal images."""
    first_of: Dict[int, int] = {}
    parent = [first_of.setdefault(int(row), i) for i, row in enumerate(row_N)]

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for pair in np.flatnonzero(issame_P).tolist():
        parent[root(2 * pair)] = root(2 * pair + 1)
    numbers: Dict[int, int] = {}
    return np.array([numbers.setdefault(root(i), len(numbers)) for i in range(len(parent))])


def is_synthetic(path: str) -> bool:
    """Whether data/synthetic.py generated the set: it writes its settings to the same directory."""
    return os.path.exists(os.path.join(os.path.dirname(os.path.abspath(path)), "synthetic.json"))


def hardest_pairs(distances_P: np.ndarray, issame_P: np.ndarray, count: int = HARDEST) -> List[int]:
    """The impostor pairs that look most alike, then the genuine pairs that look least alike."""
    impostor, genuine = np.flatnonzero(~issame_P), np.flatnonzero(issame_P)
    alike = impostor[np.argsort(distances_P[impostor], kind="stable")[:count]]
    unlike = genuine[np.argsort(-distances_P[genuine], kind="stable")[:count]]
    return alike.tolist() + unlike.tolist()


def _text_keys(rates: Dict[float, float]) -> Dict[str, float]:
    return {f"{far:g}": rate for far, rate in rates.items()}


def evaluate_set(
    embed_batch: EmbedBatch, path: str, name: str, image_size: Tuple[int, int], batch_size: int
) -> SetResult:
    """SetResult of the .bin at `path`, for callers that evaluate a set once."""
    net = NetFunction(embed_batch, image_size, batch_size)
    return VerificationSet.open(path).evaluate(net)._replace(name=name)
