"""Sanity checks before the first step.

Nothing here changes a result of the run: the checks read the data by themselves and update no
variable. N images of a batch, H W pixels, D embedding dimension, P pairs of a verification set.
"""

import logging
import math
import time
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from data.eval_data_reader import decode_images
from data.formats.image_headers import image_size as image_size_of
from evaluation.verification_set import VerificationSet
from inference.batches import pad_batch
from nets.build import IMAGES, PIXELS
from runtime.tf1 import tf
from training.config import TrainConfig
from training.graph.step import StepOps
from training.plan import Plan
from training.preflight.expected_loss import expected_loss
from training.preflight.findings import write_findings
from training.preflight.first_batch import first_batch, warn_of_overlap
from training.preflight.geometry import warn_of_shifts

PAIRS = 20  # of each set
SPREAD = 1e-6  # of embeddings relative to their length; below it they are the same
NEAR = 0.15  # relative difference to the expected loss that is still as expected
DEFAULT_SCALE = 64.0  # of the losses, where --scale is not given


class PreflightRun(NamedTuple):
    """The run that is checked."""

    config: TrainConfig
    plan: Plan
    first_step: int  # steps that were made before
    memory: Optional[str] = None  # how much the run needs, for the log

    @property
    def restored(self) -> bool:
        """Whether the weights are those of a checkpoint."""
        return bool(self.config.finetune or self.first_step)


def preflight(
    session: tf.Session, ops: StepOps, element: Tuple[tf.Tensor, ...], run: PreflightRun
) -> None:
    """Refuses a run that cannot succeed; logs what was checked. element: the graph's (images,
    labels) of a part of a batch, which are fed here."""
    begun = time.perf_counter()
    config, plan = run.config, run.plan
    images_NHWC, labels_N = first_batch(config, plan, element[0].shape.as_list()[0])
    check_preprocessing_matches(session, images_NHWC)
    loss, length = _try_batch(session, ops, element, (images_NHWC, labels_N), run)
    size = (config.image_size[0], config.image_size[1])
    encoded = {name: _look_at_set(path, size) for name, path in plan.sets.items()}
    overlaps = warn_of_overlap(config, plan, encoded)
    write_findings(config.output_path, overlaps, warn_of_shifts(config, plan, encoded))
    sets = f"{PAIRS} pairs of {', '.join(encoded)}" if encoded else "no verification set"
    logging.info(
        "checked in %.1f s: %d images of %d identities have different embeddings and a loss of "
        "%.2f; training and evaluation preprocess alike; %s can be evaluated%s.",
        time.perf_counter() - begun,
        len(labels_N),
        len(set(labels_N.tolist())),
        loss,
        sets,
        f"; memory needed is about {run.memory}" if run.memory else "",
    )
    if not run.first_step:
        explain_loss(loss, expected_loss(config, plan.identities, length), config, plan.identities)


def check_preprocessing_matches(session: tf.Session, images_NHWC: np.ndarray) -> None:
    """Refuses a graph in which two towers preprocess an image differently."""
    images, pixels = map(session.graph.get_collection, (IMAGES, PIXELS))
    sizes = [tensor.shape.as_list()[0] for tensor in images]
    feed = {tensor: pad_batch(images_NHWC[:size], size) for tensor, size in zip(images, sizes)}
    found = session.run(pixels, feed)
    for other, tensor in zip(found[1:], pixels[1:]):
        rows = min(len(found[0]), len(other), len(images_NHWC))
        if not np.array_equal(found[0][:rows], other[:rows]):
            raise ValueError(
                f"{tensor.op.name} makes other pixels of an image than {pixels[0].op.name}: "
                "training and evaluation preprocess images differently; see nets/build.py."
            )


def _try_batch(
    session: tf.Session,
    ops: StepOps,
    element: Tuple[tf.Tensor, ...],
    batch: Tuple[np.ndarray, np.ndarray],
    run: PreflightRun,
) -> Tuple[float, float]:
    """(loss, mean length of the embeddings) of (images_NHWC, labels_N), if they are valid."""
    images_NHWC, labels_N = batch
    size = element[0].shape.as_list()[0]
    feed = {element[0]: pad_batch(images_NHWC, size), element[1]: pad_batch(labels_N, size)}
    losses, embedded = session.run(  # of all towers: a rank alone would wait for the others
        (
            [tower.scalars["inference_loss"] for tower in ops.towers],
            [tower.embedded_nD for tower in ops.towers],
        ),
        feed,
    )
    embedded_ND = np.concatenate(embedded)[: len(labels_N)].astype(np.float64)
    if not (math.isfinite(losses[0]) and np.isfinite(embedded_ND).all()):
        raise ValueError(
            f"before the first step the loss is {losses[0]} and {_bad_rows(embedded_ND)}: "
            f"{_why_not_finite(run)}."
        )
    lengths_N = np.linalg.norm(embedded_ND, axis=1)
    spread = np.abs(embedded_ND - embedded_ND[0]).max() / max(lengths_N.max(), 1e-30)
    if len(embedded_ND) > 1 and spread < SPREAD:
        raise ValueError(
            f"the embeddings of {len(embedded_ND)} images are the same before the first step: "
            f"{_why_constant(images_NHWC, lengths_N, run)}."
        )
    return float(losses[0]), float(lengths_N.mean())


def _bad_rows(embedded_ND: np.ndarray) -> str:
    bad = int((~np.isfinite(embedded_ND).all(axis=1)).sum())
    return f"{bad} of {len(embedded_ND)} embeddings are not finite"


def _why_not_finite(run: PreflightRun) -> str:
    if run.restored:
        return "the checkpoint's weights are not finite or too large; use an earlier one"
    if run.config.precision == "fp16":
        return "the activations exceed 65504, the largest fp16 number; pass --precision bf16"
    return "the network overflows; try another --lineage, --net_depth or --precision"


def _why_constant(images_NHWC: np.ndarray, lengths_N: np.ndarray, run: PreflightRun) -> str:
    if (images_NHWC == images_NHWC[0]).all():
        return "the images themselves are the same; check the data with data/inspect_dataset.py"
    if run.restored:
        return "the checkpoint's network ignores its input; was it saved by a broken run?"
    if not lengths_N.any():
        return f"all are 0, as a network of --width {run.config.width:g} has too few channels"
    return "the network ignores its input; try another --lineage, --width or --precision"


def _look_at_set(path: str, image_size: Tuple[int, int]) -> List[bytes]:
    """All encoded images of a set that can be evaluated and of which some can be decoded."""
    opened = VerificationSet.open(path)
    encoded = [opened.image(number) for number in range(2 * len(opened))]
    chosen = chosen_pairs(opened.issame_P)
    some = [encoded[2 * pair + side] for pair in chosen for side in (0, 1)]
    decode_images(some, image_size, f"{path}: image")
    sizes = [image_size_of(image) for image in some]
    other = next((size for size in sizes if size not in (None, image_size)), None)
    if other:
        logging.warning(
            "%s: its images are %d x %d, but the network takes %d x %d: they are resized and "
            "cropped, which costs accuracy unless their faces are aligned to the same frame.",
            path,
            *other,
            *image_size,
        )
    return encoded


def chosen_pairs(issame_P: Sequence[bool], count: int = PAIRS) -> List[int]:
    """The indices of `count` pairs, half of them of one person, spread over the set."""
    found: List[int] = []
    for same in (True, False):
        pairs = np.flatnonzero(np.asarray(issame_P) == same)
        at = np.unique(np.linspace(0, len(pairs) - 1, count // 2).astype(int))
        found += pairs[at].tolist()
    return sorted(found)


def explain_loss(loss: float, expected: float, config: TrainConfig, identities: int) -> None:
    """Logs whether a first loss is as expected, since it looks alarming."""
    scale = DEFAULT_SCALE if config.scale is None else config.scale
    of = f"{config.loss} at scale {scale:g} over {identities} identities"
    if abs(loss - expected) <= NEAR * expected:
        logging.info(
            "the loss starts near %.1f as expected: an untrained network has %.1f with %s. Its "
            "accuracy stays near 0 until the loss is below about %.1f.",
            loss,
            expected,
            of,
            math.log(identities) + 1.0,
        )
    else:
        logging.warning(
            "the loss starts at %.1f, but an untrained network has %.1f with %s: check the labels, "
            "and what was restored.",
            loss,
            expected,
            of,
        )
