"""Near-duplicates: copies that were re-encoded, resized or brightened are found, others are not."""

import cv2
import numpy as np

from data.convert.near_duplicates import difference_hash, near_pairs


def smooth(seed):
    """A picture of soft blobs, as photographs are."""
    noise = np.random.RandomState(seed).randint(0, 256, (7, 7, 3), np.uint8)
    return cv2.resize(noise, (112, 112), interpolation=cv2.INTER_CUBIC)


def test_changed_copies_are_near_and_other_pictures_are_not():
    pictures = [smooth(seed) for seed in range(60)]
    jpeg = cv2.imencode(".jpg", pictures[3], [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    pictures += [cv2.imdecode(jpeg, 1), cv2.resize(pictures[7], (96, 96)), pictures[9] // 2 + 20]
    hashes = np.array([difference_hash(picture) for picture in pictures])
    assert near_pairs(hashes) == [(3, 60), (7, 61), (9, 62)]


def test_all_pairs_within_seven_bits_are_found():
    rng = np.random.RandomState(0)
    first = rng.randint(0, 2**32, 8, np.uint64).astype(np.uint32)
    hashes = [first]
    for bits in range(1, 10):
        flipped = np.unpackbits(first.view(np.uint8))
        flipped[rng.permutation(256)[:bits]] ^= 1
        hashes.append(np.packbits(flipped).view(np.uint32))
    assert [pair for pair in near_pairs(np.array(hashes)) if pair[0] == 0] == [
        (0, bits) for bits in range(1, 8)
    ]
