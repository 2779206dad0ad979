"""Scores of sets with Gaussian distances, for the report's figures."""

import numpy as np

import verification
from evaluation.verification_set import SetResult


def gaussian_result(name="lfw", pairs=2000, seed=0, identities=200):
    """A SetResult without images: identities of 10 pairs each; norms rise with the cosine."""
    random = np.random.RandomState(seed)
    issame_P = np.arange(pairs) % 2 == 0
    first = np.arange(pairs) % identities
    second = np.where(issame_P, first, (first + random.randint(1, identities, pairs)) % identities)
    distances_P = np.clip(random.normal(np.where(issame_P, 1.0, 1.8), 0.25), 0, 4)
    norms_N = random.normal(20, 1, 2 * pairs) - 4 * np.repeat(distances_P - 1, 2)
    result = verification.evaluate_distances(distances_P, issame_P)
    return SetResult(
        name=name,
        plain=result,
        flip=result,
        distances_P=distances_P,
        issame_P=issame_P,
        xnorm=20.0,
        norms_N=norms_N,
        hardest={},
        identity_N=np.stack([first, second], axis=1).ravel(),
    )
