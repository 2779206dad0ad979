"""One rank's part of a step: its share of the batch, its copy of the net, its slice of the head.

With one rank this is the whole step. n images of a rank, N = size * n of all, b images of
a rank's evaluation, D embedding dimension.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from inference.backends.checkpoint import embed_with_flip
from losses.class_centres import (
    HeadConfig,
    HeadInputs,
    HeadOutputs,
    HeadParts,
    class_centres_loss,
)
from nets.build import embeddings
from nets.layers import NetOptions
from nets.lineages import NetSpec
from runtime.device import branch, current
from runtime.distributed.collectives import Collectives, in_buckets
from runtime.tf1 import tf
from runtime.variables import decayed_variables, is_sliced
from training.graph.finetune import rate_factors
from training.graph.gradient_accumulation import Accumulator
from training.graph.gradients import (
    Gradients,
    LossScale,
    Pairs,
    clip_gradients,
    compute_gradients,
    nonfinite_names,
    recomputed,
)
from training.graph.optimizer import apply_gradients, decay_loss, make_slots
from training.graph.settings import StepSettings, UpdateSettings

COMPUTE = {"fp32": tf.float32, "bf16": tf.bfloat16, "fp16": tf.float16}
WIRE = {"fp32": None, "bf16": tf.bfloat16, "fp16": tf.float16}
BUCKET_BYTES = 4 << 20  # of gradients per all-reduce; measured by benchmarks/ranks.py


class Tower(NamedTuple):
    """The operations and variables of one rank."""

    update_op: tf.Operation  # all of the rank's variables but the step counter are updated
    partial_ops: Sequence[tf.Operation]  # of the batch's parts but the last
    scalars: Dict[str, tf.Tensor]  # the same on all ranks
    backbone: List[tf.Variable]  # of the network itself
    state: List[tf.Variable]  # all of the rank's
    embedded_nD: tf.Tensor  # of its part of the batch
    plain_bD: tf.Tensor  # embeddings of its evaluation images
    mirrored_bD: tf.Tensor  # the same of the mirrored images


def build_tower(
    settings: StepSettings,
    collectives: Collectives,
    batch: Sequence[tf.Tensor],
    images_bHWC: tf.Tensor,
    global_step: tf.Variable,
    rate: tf.Tensor,
) -> Tower:
    """batch: (images_nHWC uint8 RGB, labels_n int64 in [0, identities)), a part of a rank's share
    of a batch, and what partial_fc.draw returns where the input pipeline draws. images_bHWC: uint8
    RGB, to evaluate. rate: the learning rate."""
    images_nHWC, labels_n = batch[:2]
    update = settings.update
    first = len(tf.global_variables())
    accumulator = Accumulator(settings.accumulate, global_step)
    embedded_nD, updates_before = _embed(settings, collectives, images_nHWC, accumulator.turn)
    backbone = tf.global_variables()[first:]
    head = _head(settings.head, collectives, embedded_nD, labels_n, accumulator.turn, batch[2:])
    statistics = tf.get_collection(tf.GraphKeys.UPDATE_OPS)[updates_before:]
    own = {id(variable) for variable in tf.global_variables()[first:]}
    loss_scale = LossScale() if update.loss_scaling else None
    backbone_grads, head_grads = compute_gradients(
        head.loss,
        embedded_nD,
        [variable for variable in tf.trainable_variables() if id(variable) in own],
        loss_scale and loss_scale.value,
    )
    backbone_grads = accumulator.mean_pairs(backbone_grads)
    head_grads = accumulator.mean_pairs(head_grads)
    shown = accumulator.mean([head.loss, head.accuracy, head.accuracy_margin])
    gradients = clip_gradients(
        _summed(backbone_grads, collectives, WIRE[update.wire]),
        head_grads,
        clip_norm=update.clip_norm,
        clip=update.clip,
        total=collectives.sum,
    )
    applied, finite = _apply(
        update, collectives, gradients, backbone, _Rate(rate, global_step), loss_scale
    )
    if update.mask_loss:
        shown[0] = tf.where(finite, shown[0], tf.constant(float("nan")))  # for NonFiniteGuard
    average, averaged = _averages(
        settings.backbone.ema, applied, [v for v in backbone if v.trainable]
    )
    synced = _sync_moving_stats(collectives, statistics, [v for v in backbone if not v.trainable])
    # The sums of accumulation are emptied only when all that reads them is done.
    with tf.control_dependencies([averaged, synced] + shown):
        update_op = accumulator.reset_op()
    scalars = {
        "inference_loss": shown[0],
        "accuracy": shown[1],
        "accuracy_margin": shown[2],
        "gradient_norm": gradients.norm,
        "finite": finite,
    }
    if current().has_text:
        scalars["nonfinite_names"] = nonfinite_names(shown[0], embedded_nD, gradients)
    plain_bD, mirrored_bD = _evaluation(settings.backbone.spec, images_bHWC, average)
    state = tf.global_variables()[first:]
    return Tower(
        update_op=update_op,
        partial_ops=accumulator.partial_ops(statistics),
        scalars=scalars,
        backbone=backbone,
        state=state,
        embedded_nD=embedded_nD,
        plain_bD=plain_bD,
        mirrored_bD=mirrored_bD,
    )


def tower_decay(weight_decay: float, collectives: Collectives, tower: Tower) -> tf.Tensor:
    """What the decay of this rank's net and of all ranks' centers adds to the loss."""
    own = {id(variable) for variable in tower.state}
    decayed = [variable for variable in decayed_variables() if id(variable) in own]
    return decay_loss(decayed, weight_decay, total=collectives.sum)


def _embed(
    settings: StepSettings, collectives: Collectives, images_nHWC: tf.Tensor, turn: tf.Tensor
) -> Tuple[tf.Tensor, int]:
    """(embeddings, number of updates of statistics that the graph had before). Dropout is drawn
    from seed, rank and turn, so that a resumed run repeats it."""
    backbone = settings.backbone
    updates_before = len(tf.get_collection(tf.GraphKeys.UPDATE_OPS))
    seed = (settings.seed + 100003 * collectives.rank) % 2**31  # a prime: ranks' seeds stay apart
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
        embedded_nD = embeddings(
            images_nHWC,
            backbone.spec,
            training=True,
            options=NetOptions(
                dropout_rate=backbone.dropout,
                dropout_seed=tf.stack([seed, tf.cast(turn, tf.int32)]),
                compute_dtype=COMPUTE[backbone.precision],
                mean_over_ranks=collectives.mean if backbone.sync_batch_norm else None,
                rank_count=collectives.size if backbone.sync_batch_norm else 1,
                wrap_unit=recomputed if backbone.recompute else None,
            ),
        )
    return embedded_nD, updates_before


def _head(
    head: HeadConfig,
    collectives: Collectives,
    embedded_nD: tf.Tensor,
    labels_n: tf.Tensor,
    turn: tf.Tensor,
    drawn: Sequence[tf.Tensor],
) -> HeadOutputs:
    inputs = HeadInputs(
        collectives.gather(embedded_nD),
        collectives.gather(labels_n),
        turn,
        (drawn[0], drawn[1]) if drawn else None,
    )
    parts = HeadParts(collectives.maximum, collectives.sum, collectives.rank, collectives.size)
    return class_centres_loss(inputs, head, parts)


def _summed(pairs: Pairs, collectives: Collectives, wire: Any) -> Pairs:
    """The backbone's gradients over all ranks: each rank's loss is the mean over all images."""
    if collectives.size == 1:
        return pairs
    gradients = [gradient for gradient, _ in pairs]
    summed = in_buckets(gradients, collectives.sum, BUCKET_BYTES, wire)
    return [(gradient, variable) for gradient, (_, variable) in zip(summed, pairs)]


def _sync_moving_stats(
    collectives: Collectives, statistics: List[tf.Operation], moving: List[tf.Variable]
) -> tf.Operation:
    """The op after which the moving statistics are the mean of all ranks'."""
    if collectives.size == 1 or not moving:
        return tf.group(*statistics)
    # Without this dependency the all-reduce could read a value from before its own rank's update.
    with tf.control_dependencies(statistics):
        values = [variable.read_value() for variable in moving]
    values = in_buckets(values, collectives.mean, BUCKET_BYTES)
    return tf.group(*[tf.assign(variable, value) for variable, value in zip(moving, values)])


class _Rate(NamedTuple):
    """The learning rate of a step, and the counter that decides which variables it moves."""

    value: tf.Tensor
    global_step: tf.Variable


def _apply(
    update: UpdateSettings,
    collectives: Collectives,
    gradients: Gradients,
    backbone: List[tf.Variable],
    rate: _Rate,
    loss_scale: Optional[LossScale],
) -> Tuple[tf.Operation, tf.Tensor]:
    """(op, whether all gradients are finite). The op updates the variables; where a gradient is not
    finite it does nothing, so that the weights stay valid. A frozen backbone keeps its weights and
    its momentum."""
    in_backbone = {id(variable) for variable in backbone}
    head = [pair for pair in gradients.pairs if id(pair[1]) not in in_backbone]
    make_slots([variable for _, variable in gradients.pairs], update.optimizer)

    def apply_to(pairs: Pairs) -> tf.Operation:
        return apply_gradients(
            pairs,
            rate.value,
            kind=update.optimizer,
            momentum=update.momentum,
            weight_decay=update.weight_decay,
            rate_factor=rate_factors(update, backbone),
            total=collectives.sum,
        )

    def apply_unfrozen() -> tf.Operation:
        if not update.frozen_steps:
            return apply_to(gradients.pairs)
        both, alone = branch(apply_to, gradients.pairs), branch(apply_to, head)
        return tf.cond(rate.global_step >= update.frozen_steps, both, alone)

    return current().apply_if_finite(
        apply_unfrozen, gradients.pairs, gradients.finite, loss_scale, collectives.size
    )


def _averages(
    decay: float, applied: tf.Operation, variables: List[tf.Variable]
) -> Tuple[Optional[tf.train.ExponentialMovingAverage], tf.Operation]:
    """(averages of the backbone that --ema wants or None, the op that updates them)."""
    if not decay:
        return None, applied
    average = tf.train.ExponentialMovingAverage(decay)
    with tf.control_dependencies([applied]):  # of the updated weights
        return average, average.apply(variables)


def _evaluation(
    spec: NetSpec, images_bHWC: tf.Tensor, average: Optional[tf.train.ExponentialMovingAverage]
) -> Tuple[tf.Tensor, tf.Tensor]:
    """The same net in evaluation mode: image and mirror in one pass of one compiled shape, with
    the averaged weights where there are some."""

    def averaged(getter: Any, name: str, *args: Any, **options: Any) -> tf.Variable:
        variable = getter(name, *args, **options)
        followed = average.average(variable)  # type: ignore[union-attr]
        return variable if followed is None else followed

    scope, getter = tf.get_variable_scope(), averaged if average else None
    with tf.variable_scope(scope, reuse=tf.AUTO_REUSE, custom_getter=getter):
        return embed_with_flip(images_bHWC, spec)


def copied(tower: Tower) -> List[tf.Variable]:
    """The variables of which every rank has an equal copy."""
    return [variable for variable in tower.state if not is_sliced(variable)]
