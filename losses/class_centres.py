"""Embeddings -> loss: the class centres, their cosines, and the softmax over them.

N images of all ranks, D embedding, K identities, R identities of this rank's slice of them that a
step reads (all, unless sampled), S centres of an identity. Everything here is float32, whatever
the backbone's type.
"""

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from losses import partial_fc
from losses.centre_cosines import centre_cosines, unit_rows
from losses.class_slices import first_rows, local_labels, slice_of
from losses.face_losses import (
    NormStatistics,
    curricular_progress,
    find_loss,
    magface_regulariser,
    put_true,
    take_true,
    true_scores,
)
from runtime.device import current
from runtime.tf1 import tf
from runtime.variables import weight

NORM_SHARE = 0.01  # AdaFace's t_alpha: the share of a batch in the moving mean and deviation
MAGFACE_REGULARISER = 35.0  # arXiv:2103.06627, lambda_g of its 100-layer nets

Drawn = Tuple[tf.Tensor, tf.Tensor]  # drawn_R and places_N of partial_fc.draw


class HeadConfig(NamedTuple):
    """A margin loss over class centres. margin to margin_gradient: see losses.face_losses."""

    identities: int  # K, of all ranks
    loss: str = "arcface"  # a key of losses.face_losses.LOSSES
    margin: Union[None, float, Sequence[float]] = None  # None: as published
    scale: Optional[float] = None
    past_pi: str = "line"
    margin_gradient: str = "exact"
    sample_rate: float = 1.0  # below 1: Partial FC, the share of the identities that a step reads
    draw_groups: Optional[int] = None  # groups that are sampled separately; None: one for each rank
    sub_centers: int = 1  # centres of an identity, of which the nearest counts (ECCV 2020)
    interclass_filtering_threshold: Optional[float] = None  # arcface_torch: 0.4
    seed: int = 0  # of the first centres, and of the sample
    check_finite: bool = True  # fail on an embedding that is not finite, instead of a NaN loss


class HeadInputs(NamedTuple):
    """What a head reads in one step: of all ranks, the same on each, in the same order."""

    embeddings_ND: tf.Tensor  # float; N and D static
    labels_N: tf.Tensor  # integers in [0, identities), or -1 for an image without a class
    step: Optional[tf.Tensor] = None  # integer scalar; None: the graph's global step
    drawn: Optional[Drawn] = None  # of this rank, where the input pipeline draws


class HeadOutputs(NamedTuple):
    """Scalars of a step, the same on every rank, and the variable."""

    loss: tf.Tensor
    accuracy: tf.Tensor  # of the cosines
    accuracy_margin: tf.Tensor  # of the logits
    centres: tf.Variable


class HeadParts(NamedTuple):
    """How the parts of one softmax, a slice of the centres on each rank, become one."""

    maximum: Callable[[tf.Tensor], tf.Tensor]  # float32 of a part -> of all parts, same shape
    total: Callable[[tf.Tensor], tf.Tensor]  # the same for the sum
    rank: int  # whose slice this part is
    rank_count: int


ONE_PART = HeadParts(maximum=tf.identity, total=tf.identity, rank=0, rank_count=1)


def class_centres_loss(
    inputs: HeadInputs, config: HeadConfig, parts: HeadParts = ONE_PART
) -> HeadOutputs:
    """The margin softmax loss of embeddings against class centres. An image without a class has no
    loss and counts in no mean.

    Inter-class filtering: a cosine to a wrong identity above the threshold counts as 0, since the
    label, not the net, is then likely wrong.

    Partial FC (arXiv:2203.15565): a step reads round(sample_rate * identities) identities, all of
    the batch's and others by (seed, step); the softmax, the gradient and the accuracies are over
    these alone. In the paper momentum and decay still move every centre at every step; here a
    centre that is not drawn keeps its value and its momentum, so that the cost of a step does not
    grow with K. Its decay is that much rarer, which changes only how fast it turns: a cosine does
    not depend on a centre's length. The same draw_groups give the same sample for any number of
    ranks that divides it.

    With several parts the gradient of the embeddings is this part's share: their sum over parts is
    the whole. A label out of range always fails the step (tf.errors.InvalidArgumentError).

    The variable `class_centres` is [identities * sub_centers, D], or the part's rows of that, an
    identity's centres together. It decays. Its gradient is IndexedSlices of unique rows
    (centre_cosines.RowGradient)."""
    chosen, arguments = find_loss(
        config.loss, config.margin, config.scale, config.past_pi, config.margin_gradient
    )
    _check_options(config.sub_centers, config.interclass_filtering_threshold)
    first, count = _slice(config.identities, parts)
    groups = _groups(inputs, config, parts)
    embeddings_ND = tf.cast(inputs.embeddings_ND, tf.float32)
    embeddings_ND = _finite(embeddings_ND) if config.check_finite else embeddings_ND
    labels_N = _checked_labels(inputs, config, parts)
    has_N = labels_N >= 0
    labels_N = local_labels(labels_N, first, count)
    centres = _centres_variable(config, parts, embeddings_ND.shape.as_list()[1])
    rows_R = None
    drawn = inputs.drawn or _draw(labels_N, groups, count, config.seed, inputs.step)
    if drawn is not None:
        drawn_R, labels_N = [tf.cast(tensor, tf.int64) for tensor in drawn]
        rows_R = _rows_of(drawn_R, config.sub_centers)
    units_ND, lengths_N = unit_rows(embeddings_ND)
    cosine_NR = _nearest(centre_cosines(units_ND, centres, rows_R), config.sub_centers)
    true_N = tf.stop_gradient(_everywhere(cosine_NR, labels_N, parts))
    logits_NR = chosen.function(
        _filtered(cosine_NR, labels_N, config.interclass_filtering_threshold),
        labels_N,
        **arguments,
        **_measured(chosen.measured, true_N, has_N, lengths_N),
    )
    loss_N, true_logit_N = cross_entropy(logits_NR, labels_N, parts)
    if config.loss == "magface":
        loss_N += _once(MAGFACE_REGULARISER * magface_regulariser(lengths_N), parts)
    best_N, best_logit_N = _are_best([cosine_NR, logits_NR], [true_N, true_logit_N], parts)
    return HeadOutputs(
        loss=_mean(loss_N, has_N),
        accuracy=_mean(best_N, has_N),
        accuracy_margin=_mean(best_logit_N, has_N),
        centres=centres,
    )


def cross_entropy(
    logits_NR: tf.Tensor, labels_N: tf.Tensor, parts: HeadParts = ONE_PART
) -> Tuple[tf.Tensor, tf.Tensor]:
    """-> (-log softmax of each row's true identity, the logit of that): float32 [N] each, the same
    on every part; no gradient flows through the second. A row labelled -1, whose identity is in
    another part or nowhere, adds to the softmax of the others as it should; where it is nowhere
    both are undefined, and the caller must omit them."""

    @tf.custom_gradient
    def each(logits_NR):
        highest_N = parts.maximum(tf.reduce_max(logits_NR, axis=1))
        raised_NR = tf.exp(logits_NR - highest_N[:, None])
        here_N = tf.cast(labels_N >= 0, tf.float32)
        own_2N = [tf.reduce_sum(raised_NR, axis=1), true_scores(logits_NR, labels_N) * here_N]
        total_N, true_N = tf.unstack(parts.total(tf.stack(own_2N)))

        def gradient(slope_N, _):
            share_NR = raised_NR * (slope_N / total_N)[:, None]
            return current().subtract(share_NR, labels_N, slope_N * here_N)

        return (tf.log(total_N) + (highest_N - true_N), true_N), gradient

    return each(logits_NR)


def _groups(inputs: HeadInputs, config: HeadConfig, parts: HeadParts) -> List[partial_fc.Group]:
    """The groups of this part; a ValueError where a batch may not fit into the sample."""
    images = inputs.embeddings_ND.shape.as_list()[0]
    groups = config.draw_groups or parts.rank_count
    return partial_fc.drawn_groups(
        config.identities,
        config.sample_rate,
        images,
        groups,
        partial_fc.Part(parts.rank, parts.rank_count),
    )


def _checked_labels(inputs: HeadInputs, config: HeadConfig, parts: HeadParts) -> tf.Tensor:
    """int64 [N], each in range, -1 where a group has more identities of the batch than it draws."""
    labels_N = _in_range(tf.cast(inputs.labels_N, tf.int64), config.identities)
    if inputs.drawn is not None:
        return labels_N
    images, groups = inputs.embeddings_ND.shape.as_list()[0], config.draw_groups or parts.rank_count
    every = partial_fc.drawn_groups(config.identities, config.sample_rate, images, groups)
    return partial_fc.fitting(labels_N, every)


def _centres_variable(config: HeadConfig, parts: HeadParts, size: int) -> tf.Variable:
    """class_centres, or the rows of it that this part holds."""
    first, count = _slice(config.identities, parts)
    row, rows = first * config.sub_centers, config.identities * config.sub_centers
    return weight(
        "class_centres",
        [count * config.sub_centers, size],
        first_rows(config.seed, row),
        decay=True,
        slice_of=None if parts.rank_count == 1 else (row, rows),
    )


def _draw(
    labels_N: tf.Tensor,
    groups: Sequence[partial_fc.Group],
    count: int,
    seed: int,
    step: Optional[tf.Tensor],
) -> Optional[Drawn]:
    """The step's sample; None where it is all `count` identities of the part."""
    if sum(group.draws for group in groups) >= count:
        return None
    step = tf.train.get_or_create_global_step() if step is None else step
    return partial_fc.draw(labels_N, groups, seed, step)


def _slice(identities: int, parts: HeadParts) -> Tuple[int, int]:
    """(first identity, how many) of this part."""
    if identities < parts.rank_count:
        raise ValueError(
            f"{identities} identities cannot be shared among {parts.rank_count} ranks; pass "
            f"--num_devices {identities} or fewer."
        )
    return slice_of(identities, parts.rank, parts.rank_count)


def _check_options(sub_centers: int, interclass_filtering_threshold: Optional[float]) -> None:
    if sub_centers < 1:
        raise ValueError(f"--sub_centers {sub_centers} is out of range: it must be 1 or more.")
    if (
        interclass_filtering_threshold is not None
        and not 0.0 < interclass_filtering_threshold < 1.0
    ):
        raise ValueError(
            f"--interclass_filtering_threshold {interclass_filtering_threshold} is out of range: "
            "it must be above 0 and below 1."
        )


def _in_range(labels_N: tf.Tensor, identities: int) -> tf.Tensor:
    """labels_N, after a check that lists those outside, where the device has one."""
    message = f"a label is outside [0, {identities}); rebuild the records, or pass --num_output:"
    return current().check(
        labels_N,
        lambda: tf.reduce_all(tf.logical_and(labels_N >= -1, labels_N < identities)),
        lambda: [message, labels_N],
    )


def _finite(embeddings_ND: tf.Tensor) -> tf.Tensor:
    """embeddings_ND, after a check that shows each row's sum, where the device has one."""
    message = "an embedding is not finite; lower --lr, or look at the batch for broken images:"
    return current().check(
        embeddings_ND,
        lambda: tf.reduce_all(tf.is_finite(embeddings_ND)),
        lambda: [message, tf.reduce_sum(embeddings_ND, axis=1)],
    )


def _rows_of(drawn_R: tf.Tensor, sub_centers: int) -> tf.Tensor:
    """Identities -> the rows of the variable that hold their centres, an identity's together."""
    if sub_centers == 1:
        return drawn_R
    return tf.reshape(drawn_R[:, None] * sub_centers + tf.range(sub_centers, dtype=tf.int64), [-1])


def _nearest(cosine_NM: tf.Tensor, sub_centers: int) -> tf.Tensor:
    """Cosines to all centres -> each identity's highest: [N, R * S] -> [N, R]."""
    if sub_centers == 1:
        return cosine_NM
    images, rows = cosine_NM.shape.as_list()
    cosine_NRS = tf.reshape(cosine_NM, [images, rows // sub_centers, sub_centers])
    return tf.reduce_max(cosine_NRS, axis=2)


def _filtered(cosine_NR: tf.Tensor, labels_N: tf.Tensor, threshold: Optional[float]) -> tf.Tensor:
    """cosine_NR with 0 for each wrong identity's above the inter-class filtering threshold."""
    if threshold is None:
        return cosine_NR
    cosine_NR, true_N = take_true(cosine_NR, labels_N)
    kept_NR = tf.where(cosine_NR > threshold, tf.zeros_like(cosine_NR), cosine_NR)
    true_N = tf.where(labels_N >= 0, true_N, true_scores(kept_NR, labels_N))
    return put_true(kept_NR, labels_N, true_N)


def _everywhere(score_NR: tf.Tensor, labels_N: tf.Tensor, parts: HeadParts) -> tf.Tensor:
    """Each row's score of its true identity, in whichever part that is: float32 [N]."""
    return parts.total(true_scores(score_NR, labels_N) * tf.cast(labels_N >= 0, tf.float32))


def _once(value: tf.Tensor, parts: HeadParts) -> tf.Tensor:
    """A value that every part computes, through which the gradient of one of them flows: the
    embeddings' are summed over the parts."""
    return value if parts.rank == 0 else tf.stop_gradient(value)


def _measured(
    names: Sequence[str], true_N: tf.Tensor, has_N: tf.Tensor, lengths_N: tf.Tensor
) -> Dict[str, Any]:
    """The arguments of a loss that are measured during training: lengths, moving statistics, and
    the cosines to the true identities."""
    measured: Dict[str, Any] = {}
    if "norms_N" in names:
        measured["norms_N"] = lengths_N
    if "norms" in names:
        clipped_N = tf.stop_gradient(tf.clip_by_value(lengths_N, 1e-3, 100.0))
        mean, variance = tf.nn.moments(clipped_N, [0])
        images = max(lengths_N.shape.as_list()[0], 2)
        deviation = tf.sqrt(variance * images / (images - 1))  # unbiased, as torch.std
        mean = _moving("norm_mean", 20.0, mean)
        std = _moving("norm_std", 100.0, deviation)
        measured["norms"] = NormStatistics(lengths_N, mean, std)
    if "progress" in names:
        variable = _state("progress", 0.0)
        measured["progress"] = _followed(variable, curricular_progress(true_N, has_N, variable))
        measured["known"] = true_N, has_N
    return measured


def _moving(name: str, start: float, now: tf.Tensor) -> tf.Tensor:
    """The moving mean `name` after this batch, of which NORM_SHARE is `now`."""
    variable = _state(name, start)
    return _followed(variable, NORM_SHARE * now + (1.0 - NORM_SHARE) * variable)


def _state(name: str, start: float) -> tf.Variable:
    initializer = tf.constant_initializer(start)
    return tf.get_variable(name, [], tf.float32, initializer=initializer, trainable=False)


def _followed(variable: tf.Variable, value: tf.Tensor) -> tf.Tensor:
    """`value`, which UPDATE_OPS assign to `variable` with the other moving statistics."""
    value = tf.stop_gradient(value)
    tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, tf.assign(variable, value).op)
    return value


def _are_best(
    scores: Sequence[tf.Tensor], trues: Sequence[tf.Tensor], parts: HeadParts
) -> List[tf.Tensor]:
    """For each pair of score_NR and true_N: 1.0 where no other identity, of any part, scores as
    high as the true one, and 0.0. -> [float32 [N]]"""
    as_high = [
        tf.reduce_sum(tf.cast(score_NR >= true_N[:, None], tf.float32), axis=1)
        for score_NR, true_N in zip(scores, trues)
    ]
    return tf.unstack(tf.cast(tf.equal(parts.total(tf.stack(as_high)), 1.0), tf.float32))


def _mean(each_N: tf.Tensor, has_N: tf.Tensor) -> tf.Tensor:
    """The mean of the rows that have an identity; 0 where none has."""
    counted_N = tf.cast(has_N, tf.float32)
    return tf.reduce_sum(each_N * counted_N) / tf.maximum(tf.reduce_sum(counted_N), 1.0)
