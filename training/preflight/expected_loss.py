"""The expected loss of an untrained network.

N images, D embedding, R identities that a step reads. Its cosines to the class centers
are normal, of mean 0 and deviation 1 / sqrt(D). For ArcFace at scale s and margin m that makes a
loss near s sin(m) + log(R) + s^2 / (2 D): the part of the margin, that of the softmax, and that of
the nearest of many centers.
"""

import numpy as np

from losses.class_centres import MAGFACE_REGULARISER
from losses.face_losses import NormStatistics, find_loss, magface_regulariser
from runtime.session import session_config
from runtime.tf1 import tf
from training.config import TrainConfig

CELLS, ROWS = 2000000, 64  # at most, of the random cosines


def expected_loss(config: TrainConfig, identities: int, length: float) -> float:
    """The mean loss over random cosines, each loss by its own function. length: of the embeddings,
    which some losses read."""
    drawn = max(2, int(round(identities * config.sample_rate)))
    cosine_NR = _cosines(drawn, config.embedding_size, config.sub_centers)
    loss, arguments = find_loss(config.loss, config.margin, config.scale, config.past_pi)
    lengths_N = np.full(len(cosine_NR), length, np.float32)
    norms = NormStatistics(lengths_N, 20.0, 100.0)
    known = {"norms_N": lengths_N, "norms": norms, "progress": 0.0}
    arguments.update((name, known[name]) for name in loss.measured if name in known)
    with tf.Graph().as_default(), tf.Session(config=session_config("cpu")) as session:
        labels_N = tf.zeros([len(cosine_NR)], tf.int64)
        logits_NR = loss.function(tf.constant(cosine_NR), labels_N, **arguments)
        extra_N = tf.zeros_like(lengths_N)
        if config.loss == "magface":
            extra_N = MAGFACE_REGULARISER * magface_regulariser(tf.constant(lengths_N))
        logits_NR, extra_N = session.run((logits_NR, extra_N))
    logits_NR = logits_NR.astype(np.float64)
    highest_N = logits_NR.max(axis=1)
    total_N = np.log(np.exp(logits_NR - highest_N[:, None]).sum(axis=1)) + highest_N
    return float(np.mean(total_N - logits_NR[:, 0] + extra_N))


def _cosines(identities: int, size: int, sub_centers: int) -> np.ndarray:
    """float32 [N, R], the same each time."""
    rows = int(np.clip(CELLS // (identities * sub_centers), 1, ROWS))
    draw = np.random.RandomState(0).standard_normal((rows, identities, sub_centers))
    cosine_NRS = np.clip(draw / np.sqrt(size), -1.0, 1.0).astype(np.float32)
    return cosine_NRS.max(axis=2)
