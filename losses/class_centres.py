"""Embeddings -> loss: the class centres, their cosines, and the softmax over them.

N images of all ranks, D embedding, K identities, R identities of this rank's slice of them that a
step reads (all, unless sampled), S centres of an identity. Everything here is float32, whatever
the backbone's type.
"""

import collections

from losses import partial_fc
from losses.centre_cosines import centre_cosines, unit_rows
from losses.class_slices import first_rows, local_labels, slice_of
from losses.face_losses import (
    curricular_progress,
    find_loss,
    magface_regulariser,
    put_true,
    take_true,
    true_at,
    true_scores,
)
from runtime.npu import kernels
from runtime.tf1 import for_npu, tf
from runtime.variables import weight

# loss, accuracy (of the cosines), accuracy_margin (of the logits): scalars. centres: the variable.
HeadOutputs = collections.namedtuple("HeadOutputs", "loss accuracy accuracy_margin centres")

# How the parts of one softmax, on several ranks, become one: maximum and total take a float32
# tensor, a part's, and return that of all parts, the same on each. This part is number `index` of
# `count`. With one part there is nothing to do.
Parts = collections.namedtuple("Parts", "maximum total index count")
ONE_PART = Parts(maximum=tf.identity, total=tf.identity, index=0, count=1)

NORM_SHARE = 0.01  # AdaFace's t_alpha: the share of a batch in the moving mean and deviation
MAGFACE_REGULARISER = 35.0  # arXiv:2103.06627, lambda_g of its 100-layer nets


def class_centres_loss(
    embeddings_ND,
    labels_N,
    identities,
    loss="arcface",
    margin=None,
    scale=None,
    beyond="line",
    margin_gradient="exact",
    sample_rate=1.0,
    sub_centers=1,
    interclass_filtering_threshold=None,
    seed=0,
    step=None,
    check=True,
    parts=ONE_PART,
    draw_groups=None,
    drawn=None,
):
    """embeddings_ND: float [N, D], N and D static; labels_N: integer [N] in [0, identities), or -1
    for an image without a class, which has no loss and counts in no mean -> HeadOutputs.

    loss, margin, scale, beyond, margin_gradient: see losses.face_losses.
    sub_centers: centres of an identity; the nearest speaks for it (sub-centre ArcFace, ECCV 2020).
    interclass_filtering_threshold: a cosine to a wrong identity above it counts as 0 in this step,
    since the label,
    not the net, is then likely wrong (the inter-class filtering of arcface_torch, there 0.4).
    sample_rate: below 1, a step reads round(sample_rate * identities) identities alone: all of the
    batch's, and others drawn by (seed, step). As in Partial FC (arXiv:2203.15565) the softmax,
    the gradient and the accuracies are over these alone. There momentum and decay still move
    every centre at every step; here one that is not drawn stays as it is, its momentum too, so that
    the step's cost does not grow with K. Its decay is that much rarer: as a cosine does not know a
    centre's length, only the pace at which the centre turns feels it.
    seed also seeds the first centres. step: integer scalar, by default the graph's global step.
    check: whether an embedding that is not finite ends the step with a sentence
    (tf.errors.InvalidArgumentError), or its NaN goes on into the loss, for the caller to see. A
    label out of range always ends it.

    parts: where several ranks hold a slice each, embeddings and labels are those of all ranks, the
    same on each, in the same order. Loss and accuracies are then the same on each too, and the
    gradient in the embeddings is this part's share of it: their sum over parts is the whole.
    draw_groups: the groups of a sample (partial_fc.Group), one a part by default. With
    the same number of them the same is drawn for any number of parts that divides it.
    drawn: (drawn_R, places_N) of partial_fc.draw for this part, where the caller draws.

    The variable `class_centres` is [identities * sub_centers, D], or the part's rows of that, an
    identity's centres side by side. It decays. Its gradient is IndexedSlices of unique rows
    (centre_cosines.RowGradient)."""
    chosen, arguments = find_loss(loss, margin, scale, beyond, margin_gradient)
    _check_options(sub_centers, interclass_filtering_threshold)
    images, size = embeddings_ND.shape.as_list()
    first, count = _slice(identities, parts)
    groups = partial_fc.drawn_groups(
        identities, sample_rate, images, draw_groups or parts.count, parts.index, parts.count
    )
    embeddings_ND = tf.cast(embeddings_ND, tf.float32)
    embeddings_ND = _finite(embeddings_ND) if check else embeddings_ND
    labels_N = _in_range(tf.cast(labels_N, tf.int64), identities)
    if drawn is None:
        every = (identities, sample_rate, images, draw_groups or parts.count)
        labels_N = partial_fc.fitting(labels_N, partial_fc.drawn_groups(*every))
    has_N = labels_N >= 0
    labels_N = local_labels(labels_N, first, count)
    centres = weight(
        "class_centres",
        [count * sub_centers, size],
        first_rows(seed, first * sub_centers),
        decay=True,
        slice_of=None if parts.count == 1 else (first * sub_centers, identities * sub_centers),
    )
    rows_R = None
    if drawn is None and sum(group.count for group in groups) < count:
        step = tf.train.get_or_create_global_step() if step is None else step
        drawn = partial_fc.draw(labels_N, groups, seed, step)
    if drawn is not None:
        drawn_R, labels_N = [tf.cast(one, tf.int64) for one in drawn]
        rows_R = _rows_of(drawn_R, sub_centers)
    units_ND, lengths_N = unit_rows(embeddings_ND)
    cosine_NR = _nearest(centre_cosines(units_ND, centres, rows_R), sub_centers)
    true_N = tf.stop_gradient(_everywhere(cosine_NR, labels_N, parts))
    logits_NR = chosen.function(
        _filtered(cosine_NR, labels_N, interclass_filtering_threshold),
        labels_N,
        **arguments,
        **_measured(chosen.options, true_N, has_N, lengths_N),
    )
    each_N, true_logit_N = cross_entropy(logits_NR, labels_N, parts)
    if loss == "magface":
        each_N += _once(MAGFACE_REGULARISER * magface_regulariser(lengths_N), parts)
    best_2N = _are_best([cosine_NR, logits_NR], [true_N, true_logit_N], parts)
    return HeadOutputs(
        _mean(each_N, has_N), _mean(best_2N[0], has_N), _mean(best_2N[1], has_N), centres
    )


def cross_entropy(logits_NR, labels_N, parts=ONE_PART):
    """-> (-log softmax of each row's true identity, the logit of that): float32 [N] each, the same
    on every part; no gradient flows through the second. A row labelled -1, whose identity is in
    another part or nowhere, adds to the softmax of the others as it should; where it is nowhere
    both mean nothing, and are for the caller to leave out."""

    @tf.custom_gradient
    def each(logits_NR):
        highest_N = parts.maximum(tf.reduce_max(logits_NR, axis=1))
        raised_NR = tf.exp(logits_NR - highest_N[:, None])
        here_N = tf.cast(labels_N >= 0, tf.float32)
        own_2N = [tf.reduce_sum(raised_NR, axis=1), true_scores(logits_NR, labels_N) * here_N]
        total_N, true_N = tf.unstack(parts.total(tf.stack(own_2N)))

        def gradient(slope_N, _):
            share_NR = raised_NR * (slope_N / total_N)[:, None]
            if for_npu():
                return kernels.put(share_NR, labels_N, -slope_N * here_N, add=True)
            return tf.tensor_scatter_nd_sub(share_NR, true_at(labels_N), slope_N * here_N)

        return (tf.log(total_N) + (highest_N - true_N), true_N), gradient

    return each(logits_NR)


def _slice(identities, parts):
    """(first identity, how many) of this part."""
    if identities < parts.count:
        raise ValueError(
            f"{identities} identities cannot be shared among {parts.count} ranks; pass "
            f"--num_devices {identities} or fewer."
        )
    return slice_of(identities, parts.index, parts.count)


def _check_options(sub_centers, interclass_filtering_threshold):
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


def _in_range(labels_N, identities):
    """labels_N, behind a check that names those outside. An NPU can name nothing: there the
    pipeline's look at each record has to do."""
    if for_npu():
        return labels_N
    right = tf.reduce_all(tf.logical_and(labels_N >= -1, labels_N < identities))
    said = f"a label is outside [0, {identities}); rebuild the records, or say --num_output:"
    with tf.control_dependencies([tf.Assert(right, [said, labels_N], summarize=1000)]):
        return tf.identity(labels_N)


def _finite(embeddings_ND):
    """embeddings_ND, behind a check that shows each row's sum; on an NPU nothing is not finite."""
    if for_npu():
        return embeddings_ND
    finite = tf.reduce_all(tf.is_finite(embeddings_ND))
    said = "an embedding is not finite; lower --lr, or look at the batch for broken images:"
    sum_N = tf.reduce_sum(embeddings_ND, axis=1)
    with tf.control_dependencies([tf.Assert(finite, [said, sum_N], summarize=1000)]):
        return tf.identity(embeddings_ND)


def _rows_of(drawn_R, sub_centers):
    """Identities -> the rows of the variable that hold their centres, an identity's together."""
    if sub_centers == 1:
        return drawn_R
    return tf.reshape(drawn_R[:, None] * sub_centers + tf.range(sub_centers, dtype=tf.int64), [-1])


def _nearest(cosine_NM, sub_centers):
    """Cosines to all centres -> each identity's highest: [N, R * S] -> [N, R]."""
    if sub_centers == 1:
        return cosine_NM
    images, rows = cosine_NM.shape.as_list()
    cosine_NRS = tf.reshape(cosine_NM, [images, rows // sub_centers, sub_centers])
    return tf.reduce_max(cosine_NRS, axis=2)


def _filtered(cosine_NR, labels_N, interclass_filtering_threshold):
    """cosine_NR with 0 for each wrong identity's above interclass_filtering_threshold."""
    if interclass_filtering_threshold is None:
        return cosine_NR
    cosine_NR, true_N = take_true(cosine_NR, labels_N)
    kept_NR = tf.where(
        cosine_NR > interclass_filtering_threshold, tf.zeros_like(cosine_NR), cosine_NR
    )
    true_N = tf.where(labels_N >= 0, true_N, true_scores(kept_NR, labels_N))
    return put_true(kept_NR, labels_N, true_N)


def _everywhere(score_NR, labels_N, parts):
    """Each row's score of its true identity, in whichever part that is: float32 [N]."""
    return parts.total(true_scores(score_NR, labels_N) * tf.cast(labels_N >= 0, tf.float32))


def _once(value, parts):
    """A value that every part computes, through which the gradient of one of them flows: the
    embeddings' are summed over the parts."""
    return value if parts.index == 0 else tf.stop_gradient(value)


def _measured(options, true_N, has_N, lengths_N):
    """What a loss asks for that is measured as training goes: lengths, moving statistics, and the
    cosines to the true identities."""
    measured = {}
    if "norms_N" in options:
        measured["norms_N"] = lengths_N
    if "norm_mean" in options:
        lengths_N = tf.stop_gradient(tf.clip_by_value(lengths_N, 1e-3, 100.0))
        mean, variance = tf.nn.moments(lengths_N, [0])
        images = max(lengths_N.shape.as_list()[0], 2)
        deviation = tf.sqrt(variance * images / (images - 1))  # unbiased, as torch.std
        measured["norm_mean"] = _moving("norm_mean", 20.0, mean)
        measured["norm_std"] = _moving("norm_std", 100.0, deviation)
    if "progress" in options:
        variable = _state("progress", 0.0)
        measured["progress"] = _followed(variable, curricular_progress(true_N, has_N, variable))
        measured["known"] = true_N, has_N
    return measured


def _moving(name, start, now):
    """The moving mean `name` after this batch, of which NORM_SHARE is `now`."""
    variable = _state(name, start)
    return _followed(variable, NORM_SHARE * now + (1.0 - NORM_SHARE) * variable)


def _state(name, start):
    initializer = tf.constant_initializer(start)
    return tf.get_variable(name, [], tf.float32, initializer=initializer, trainable=False)


def _followed(variable, value):
    """`value`, which `variable` takes on with the other moving statistics of the step."""
    value = tf.stop_gradient(value)
    tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, tf.assign(variable, value).op)
    return value


def _are_best(scores, trues, parts):
    """For each pair of score_NR and true_N: 1.0 where no other identity, of any part, scores as
    high as the true one, and 0.0. -> [float32 [N]]"""
    as_high = [
        tf.reduce_sum(tf.cast(score_NR >= true_N[:, None], tf.float32), axis=1)
        for score_NR, true_N in zip(scores, trues)
    ]
    return tf.unstack(tf.cast(tf.equal(parts.total(tf.stack(as_high)), 1.0), tf.float32))


def _mean(each_N, has_N):
    """The mean of the rows that have an identity; 0 where none has."""
    counted_N = tf.cast(has_N, tf.float32)
    return tf.reduce_sum(each_N * counted_N) / tf.maximum(tf.reduce_sum(counted_N), 1.0)
