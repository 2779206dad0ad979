"""Compares an exported file with the checkpoint's own graph, image by image.

Letters: N images, H W pixels, D embedding.
"""

import os
from typing import Dict, List, NamedTuple, Optional, Sequence

import cv2
import numpy as np

from data.eval_data_reader import decode_images, read_pairs
from data.synthetic_faces.head import draw_identity
from data.synthetic_faces.portrait import Portrait, draw_shot
from export.runtimes import Open, Run, Runtime, input_of
from nets.lineages import NetSpec

TOLERANCE = 1e-4  # largest relative difference of an fp32 file
BATCH = 16  # of the images behind the first three
IMAGES = 64
IDENTITIES, SHOTS = 4, 4  # of the drawn faces; turned and brightened into the other images
ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


class Proof(NamedTuple):
    """How a file differs from the checkpoint in one runtime."""

    runtime: str  # its name and version
    images: int  # compared
    batches: List[int]  # sizes of batches that were run
    largest_difference: float  # of any number of an embedding, over the embedding's largest
    lowest_cosine: float  # between the two embeddings of an image


class Reference(NamedTuple):
    """Images and what the checkpoint's own graph makes of them."""

    images_NHWC: np.ndarray  # uint8 RGB
    expected_ND: np.ndarray  # float32

    def share(self, number: int, sharers: int) -> "Reference":
        """A runtime's share of the images: all images have a runtime, and each runtime has images
        enough for its first three batches."""
        images = len(self.images_NHWC)
        count = max(-(-images // sharers), min(images, 3 + BATCH))
        chosen = (np.arange(count) + number * images // sharers) % images
        return Reference(self.images_NHWC[chosen], self.expected_ND[chosen])


def compare(
    opened: Dict[str, Open],
    reference: Reference,
    spec: NetSpec,
    input_form: str,
    batch_size: Optional[int],
) -> List[Proof]:
    """A Proof per runtime, which share the images. batch_size: of a file whose batch is fixed."""
    return [
        _compare(open_file(), reference.share(number, len(opened)), spec, input_form, batch_size)
        for number, open_file in enumerate(opened.values())  # one in memory, the next after it
    ]


def _compare(
    runtime: Runtime,
    reference: Reference,
    spec: NetSpec,
    input_form: str,
    batch_size: Optional[int],
) -> Proof:
    batch = input_of(reference.images_NHWC, spec, input_form)
    sizes = batch_sizes(len(batch), batch_size)
    found_ND = run_batches(runtime.run, batch, sizes)
    return proof_of(runtime.name, found_ND, reference.expected_ND, sizes)


def proof_of(name: str, found_ND: np.ndarray, expected_ND: np.ndarray, sizes: List[int]) -> Proof:
    """The Proof of a runtime's embeddings."""
    difference, cosine = differences(found_ND, expected_ND)
    return Proof(name, len(found_ND), sorted(set(sizes)), float(difference), float(cosine))


def check(proofs: Sequence[Proof], path: str, tolerance: float = TOLERANCE) -> None:
    """Refuses a file that differs from its checkpoint."""
    for proof in proofs:
        if not proof.largest_difference <= tolerance:  # not: NaN is a difference, too
            raise ValueError(
                f"{path} was not written: its embeddings in {proof.runtime} differ from the "
                f"checkpoint's by {proof.largest_difference:.2g} (limit {tolerance:g}), lowest "
                f"cosine {proof.lowest_cosine:.6f}; report this with the checkpoint's .json."
            )


def differences(found_ND: np.ndarray, expected_ND: np.ndarray) -> Sequence[float]:
    """(largest relative difference, lowest cosine) of two lists of embeddings."""
    found_ND, expected_ND = found_ND.astype(np.float64), expected_ND.astype(np.float64)
    largest_N = np.abs(expected_ND).max(axis=1)
    difference = (np.abs(found_ND - expected_ND).max(axis=1) / largest_N).max()
    lengths_N = np.linalg.norm(found_ND, axis=1) * np.linalg.norm(expected_ND, axis=1)
    return difference, ((found_ND * expected_ND).sum(axis=1) / lengths_N).min()


def batch_sizes(images: int, fixed: Optional[int]) -> List[int]:
    """Batches of 1, 2 and then 16 images, or of one size where it is fixed."""
    if fixed:
        return [fixed] * -(-images // fixed)
    sizes = [1, 2][: min(images, 2)]
    while sum(sizes) < images:
        sizes.append(min(BATCH, images - sum(sizes)))
    return sizes


def run_batches(run: Run, batch: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Embeddings of all images; a short last batch is filled with its last image."""
    parts, start = [], 0
    for size in sizes:
        part = batch[start : start + size]
        filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
        parts.append(np.array(run(filled))[: len(part)])
        start += size
    return np.concatenate(parts)


def proof_images(path: Optional[str], spec: NetSpec, count: int = IMAGES) -> np.ndarray:
    """uint8 RGB [N, H, W, 3] of a directory or a .bin, or drawn faces where path is None."""
    if path is None:
        return drawn_faces(spec, count)
    return read_images(path, spec, count, "--proof")


def read_images(path: str, spec: NetSpec, count: int, flag: str) -> np.ndarray:
    """Up to `count` images of a directory of aligned images or of a .bin, of the network's size."""
    if os.path.isdir(path):
        encoded = list(_files(path, count))
    elif path.endswith(".bin"):
        encoded = read_pairs(path)[0][:count]
    else:
        raise ValueError(f"{flag} {path} is neither a directory of images nor a .bin.")
    if not encoded:
        raise ValueError(f"{flag} {path} holds no image ({', '.join(ENDINGS)}).")
    first = cv2.imdecode(np.frombuffer(encoded[0], np.uint8), cv2.IMREAD_COLOR)
    if first is not None and first.shape[:2] != tuple(spec.image_size):
        raise ValueError(
            f"{flag} {path}: its images are {first.shape[0]} x {first.shape[1]}, but the network "
            f"takes {spec.image_size[0]} x {spec.image_size[1]}; pass aligned images of that size."
        )
    return decode_images(encoded, spec.image_size, f"{path}: image")


def _files(directory: str, count: int) -> List[bytes]:
    found = []
    for folder, folders, names in os.walk(directory):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(ENDINGS) and len(found) < count:
                with open(os.path.join(folder, name), "rb") as stream:
                    found.append(stream.read())
    return found


def drawn_faces(spec: NetSpec, count: int) -> np.ndarray:
    """Drawn faces: a few shots, mirrored and brightened to as many images as needed."""
    rng = np.random.RandomState(0)
    height, width = spec.image_size
    people = [Portrait(draw_identity(rng)) for _ in range(min(IDENTITIES, count))]
    shots = [person.take(draw_shot(rng, "frontal")) for person in people for _ in range(SHOTS)]
    images_NHWC = np.empty((count, height, width, 3), np.uint8)
    for number in range(count):
        turn, shot = divmod(number, len(shots))
        image = cv2.resize(shots[shot], (width, height), interpolation=cv2.INTER_AREA)
        image = image[:, ::-1] if turn % 2 else image
        images_NHWC[number] = np.clip(image * (1.0 - 0.15 * (turn // 2)), 0, 255)
    return images_NHWC
