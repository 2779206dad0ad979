"""Images that look the same, by a difference hash: which of 16 x 16 neighbours is brighter.

N images, each a hash of 256 bits kept as 8 uint32. Pairs of up to 7 differing bits agree in at
least one of the 8 words, so only those that share a word are compared.
"""

from typing import List, Tuple

import numpy as np

SIDE, WORDS, NEAR = 16, 8, 7
CROWD = 64  # images sharing a word; more of them are flat or black images, not one photograph


def difference_hash(image_HWC: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] or [H, W] -> uint32 [8]."""
    import cv2

    gray = cv2.cvtColor(image_HWC, cv2.COLOR_BGR2GRAY) if image_HWC.ndim == 3 else image_HWC
    small = cv2.resize(gray, (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA)
    return np.packbits(small[:, 1:] > small[:, :-1]).view(np.uint32)


def near_pairs(hash_N8: np.ndarray, near: int = NEAR) -> List[Tuple[int, int]]:
    """Sorted [(i, j)], i < j, of images whose hashes differ in at most `near` (<= 7) bits."""
    found = set()
    for word in range(WORDS):
        order = np.argsort(hash_N8[:, word], kind="stable")
        values = hash_N8[order, word]
        for step in range(1, CROWD):
            left = np.flatnonzero(values[step:] == values[:-step])
            if not len(left):
                break
            i, j = order[left], order[left + step]
            close = _differing_bits(hash_N8[i] ^ hash_N8[j]) <= near
            found.update(zip(np.minimum(i, j)[close].tolist(), np.maximum(i, j)[close].tolist()))
    return sorted(found)


def _differing_bits(words_N8):
    return np.unpackbits(words_N8.view(np.uint8), axis=1).sum(axis=1)
