"""What is tried before the first step, so that no week is lost to what a second can show.

Nothing here changes a number of the run: it reads data of its own, and moves no variable. N images
of a batch, H W pixels, D embedding, P pairs of a verification set.
"""

import logging
import math
import time

import numpy as np

from data.eval_data_reader import decode_images, read_pairs
from data.formats.image_headers import image_size
from evaluation.verification_set import check_set
from inference.batches import pad_batch
from nets.build import IMAGES, PIXELS
from training.preflight.expected_loss import expected_loss
from training.preflight.first_batch import first_batch, warn_of_overlap

PAIRS = 20  # of each set
SPREAD = 1e-6  # of embeddings, over their length; below it they are one and the same
NEAR = 0.15  # how far a first loss may be from chance's, over that, to be called as expected


def preflight(session, step, element, config, plan, first, fits=None):
    """Ends the run with a sentence where it could not end well; one line of the log says what was
    looked at. element: the graph's (images, labels) of a part of a batch, which are fed here.
    first: the steps that were made before. fits: the memory that the run needs, in words."""
    begun = time.perf_counter()
    images_NHWC, labels_N = first_batch(config, plan, element[0].shape.as_list()[0])
    check_preprocessing_matches(session, images_NHWC)
    loss, length = _try_batch(session, step, element, images_NHWC, labels_N, config, first)
    encoded = {name: _look_at_set(name, path, config) for name, path in plan.sets.items()}
    warn_of_overlap(config, plan, encoded)
    sets = f"{PAIRS} pairs of {', '.join(encoded)}" if encoded else "no verification set"
    logging.info(
        "checked in %.1f s: %d images of %d identities give different embeddings and a loss of "
        "%.2f; training and evaluation see the same pixels; %s can be judged%s.",
        time.perf_counter() - begun,
        len(labels_N),
        len(set(labels_N.tolist())),
        loss,
        sets,
        f"; memory needed is about {fits}" if fits else "",
    )
    if not first:
        explain_loss(loss, expected_loss(config, plan.identities, length), config, plan.identities)


def check_preprocessing_matches(session, images_NHWC):
    """Ends where one tower of the graph makes other pixels of an image than another does."""
    images, pixels = map(session.graph.get_collection, (IMAGES, PIXELS))
    sizes = [tensor.shape.as_list()[0] for tensor in images]
    feed = {tensor: pad_batch(images_NHWC[:size], size) for tensor, size in zip(images, sizes)}
    found = session.run(pixels, feed)
    for other, tensor in zip(found[1:], pixels[1:]):
        rows = min(len(found[0]), len(other), len(images_NHWC))
        if not np.array_equal(found[0][:rows], other[:rows]):
            raise ValueError(
                f"{tensor.op.name} makes other pixels of an image than {pixels[0].op.name}: "
                "training and evaluation prepare images differently; see nets/build.py."
            )


def _try_batch(session, step, element, images_NHWC, labels_N, config, first):
    """(loss, mean length of the embeddings) of a batch, if both mean something."""
    size = element[0].shape.as_list()[0]
    feed = {element[0]: pad_batch(images_NHWC, size), element[1]: pad_batch(labels_N, size)}
    losses, embedded = session.run(  # of all towers: a rank alone would wait for the others
        (
            [tower.scalars["inference_loss"] for tower in step.towers],
            [tower.embedded_nD for tower in step.towers],
        ),
        feed,
    )
    embedded_ND = np.concatenate(embedded)[: len(labels_N)].astype(np.float64)
    if not (math.isfinite(losses[0]) and np.isfinite(embedded_ND).all()):
        raise ValueError(
            f"before the first step the loss is {losses[0]} and {_bad_rows(embedded_ND)}: "
            f"{_why_no_number(config, first)}."
        )
    lengths_N = np.linalg.norm(embedded_ND, axis=1)
    spread = np.abs(embedded_ND - embedded_ND[0]).max() / max(lengths_N.max(), 1e-30)
    if len(embedded_ND) > 1 and spread < SPREAD:
        raise ValueError(
            f"the embeddings of {len(embedded_ND)} images are one and the same before the first "
            f"step: {_why_constant(images_NHWC, lengths_N, config, first)}."
        )
    return float(losses[0]), float(lengths_N.mean())


def _bad_rows(embedded_ND):
    bad = int((~np.isfinite(embedded_ND).all(axis=1)).sum())
    return f"{bad} of {len(embedded_ND)} embeddings are not finite"


def _why_no_number(config, first):
    if config.finetune or first:
        return "the checkpoint holds weights that are no numbers or too large; take an earlier one"
    if config.precision == "fp16":
        return "fp16 ends at 65504, and the net's activations go beyond; pass --precision bf16"
    return "the net overflows as it begins; try another --lineage, --net_depth or --precision"


def _why_constant(images_NHWC, lengths_N, config, first):
    if (images_NHWC == images_NHWC[0]).all():
        return "the images themselves are the same; look at the data with data/inspect_dataset.py"
    if config.finetune or first:
        return "the checkpoint's net gives nothing else; was it saved from a broken run?"
    if not lengths_N.any():
        return f"all are 0, as a net of --width {config.width:g} has too few channels, or is dead"
    return "the net passes nothing of an image on; try another --lineage, --width or --precision"


def _look_at_set(name, path, config):
    """All encoded images of a set whose pairs can be judged, and whose first can be decoded."""
    check_set(path)
    encoded, issame_P = read_pairs(path)
    pairs = chosen_pairs(issame_P)
    some = [encoded[2 * pair + side] for pair in pairs for side in (0, 1)]
    decode_images(some, tuple(config.image_size), f"{path}: image")
    sizes = [image_size(image) for image in some]
    other = next((size for size in sizes if size not in (None, tuple(config.image_size))), None)
    if other:
        logging.warning(
            "%s: its images are %d x %d, and the net takes %d x %d: they are resized and cut to "
            "that, which costs accuracy unless their faces are aligned to fill the same frame.",
            path,
            *other,
            *config.image_size,
        )
    return encoded


def chosen_pairs(issame_P, count=PAIRS):
    """The numbers of `count` pairs, half of them of one person, from all over the set."""
    found = []
    for same in (True, False):
        pairs = np.flatnonzero(np.asarray(issame_P) == same)
        at = np.unique(np.linspace(0, len(pairs) - 1, count // 2).astype(int))
        found += pairs[at].tolist()
    return sorted(found)


def explain_loss(loss, chance, config, identities):
    """Says whether a first loss is what it should be, since it looks alarming."""
    scale = 64.0 if config.scale is None else config.scale
    of = f"{config.loss} at scale {scale:g} over {identities} identities before it has learnt"
    if abs(loss - chance) <= NEAR * chance:
        logging.info(
            "the loss begins near %.1f, as it should: chance gives %s %.1f. An accuracy near 0 is "
            "usual, too, until the loss has fallen below about %.1f.",
            loss,
            of,
            chance,
            math.log(identities) + 1.0,
        )
    else:
        logging.warning(
            "the loss begins at %.1f, but chance gives %s %.1f: look at the labels, and at what "
            "was restored.",
            loss,
            of,
            chance,
        )
