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
from training.graph.optimizer import Reach, apply_gradients, decay_loss, make_slots
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


class TowerInputs(NamedTuple):
    """What a rank's part of a step reads."""

    batch: Sequence[tf.Tensor]  # images_nHWC uint8 RGB, labels_n int64, partial_fc.draw's or none
    images_bHWC: tf.Tensor  # uint8 RGB, to evaluate
    global_step: tf.Variable
    rate: tf.Tensor  # the learning rate


def build_tower(settings: StepSettings, collectives: Collectives, inputs: TowerInputs) -> Tower:
    """The rank's operations: forward and backward pass, update, moving statistics, evaluation.
    inputs.batch is a part of the rank's share of a batch; labels are in [0, identities)."""
    update, ema = settings.update, settings.backbone.ema
    accumulator = Accumulator(settings.accumulate, inputs.global_step)
    net = _forward(settings, collectives, inputs, accumulator.turn)
    loss_scale = LossScale() if update.loss_scaling else None
    shown, gradients = _backward(update, collectives, net, accumulator, loss_scale)
    rate = _Rate(inputs.rate, inputs.global_step)
    applied, finite = _apply(update, collectives, gradients, net.backbone, rate, loss_scale)
    if update.mask_loss:
        shown[0] = tf.where(finite, shown[0], tf.constant(float("nan")))  # for NonFiniteGuard
    average, averaged = _averages(ema, applied, [v for v in net.backbone if v.trainable])
    moving = [v for v in net.backbone if not v.trainable]
    synced = _sync_moving_stats(collectives, net.statistics, moving)
    # The sums of accumulation are emptied only when all that reads them is done.
    with tf.control_dependencies([averaged, synced] + shown):
        update_op = accumulator.reset_op()
    scalars = _tower_scalars(shown, gradients, finite, net.embedded_nD)
    plain_bD, mirrored_bD = _evaluation(settings.backbone.spec, inputs.images_bHWC, average)
    return Tower(
        update_op=update_op,
        partial_ops=accumulator.partial_ops(net.statistics),
        scalars=scalars,
        backbone=net.backbone,
        state=tf.global_variables()[net.first :],
        embedded_nD=net.embedded_nD,
        plain_bD=plain_bD,
        mirrored_bD=mirrored_bD,
    )


class _Forward(NamedTuple):
    """The forward pass of a rank's images."""

    first: int  # variables of the graph before the rank's
    embedded_nD: tf.Tensor
    head: HeadOutputs
    backbone: List[tf.Variable]
    trained: List[tf.Variable]  # of backbone and head
    statistics: List[tf.Operation]  # the updates of moving statistics


def _forward(
    settings: StepSettings, collectives: Collectives, inputs: TowerInputs, turn: tf.Tensor
) -> _Forward:
    images_nHWC, labels_n = inputs.batch[:2]
    first = len(tf.global_variables())
    updates_before = len(tf.get_collection(tf.GraphKeys.UPDATE_OPS))
    embedded_nD = _embed(settings, collectives, images_nHWC, turn)
    backbone = tf.global_variables()[first:]
    head = _head(settings.head, collectives, embedded_nD, labels_n, turn, inputs.batch[2:])
    statistics = tf.get_collection(tf.GraphKeys.UPDATE_OPS)[updates_before:]
    own = {id(variable) for variable in tf.global_variables()[first:]}
    trained = [variable for variable in tf.trainable_variables() if id(variable) in own]
    return _Forward(first, embedded_nD, head, backbone, trained, statistics)


def _backward(
    update: UpdateSettings,
    collectives: Collectives,
    net: _Forward,
    accumulator: Accumulator,
    loss_scale: Optional[LossScale],
) -> Tuple[List[tf.Tensor], Gradients]:
    """([loss, accuracy, accuracy with margin], gradients over all parts and ranks, clipped)."""
    backbone_grads, head_grads = compute_gradients(
        net.head.loss, net.embedded_nD, net.trained, loss_scale and loss_scale.value
    )
    backbone_grads = accumulator.mean_pairs(backbone_grads)
    head_grads = accumulator.mean_pairs(head_grads)
    shown = accumulator.mean([net.head.loss, net.head.accuracy, net.head.accuracy_margin])
    gradients = clip_gradients(
        _summed(backbone_grads, collectives, WIRE[update.wire]),
        head_grads,
        clip_norm=update.clip_norm,
        clip=update.clip,
        total=collectives.sum,
    )
    return shown, gradients


def _tower_scalars(
    shown: Sequence[tf.Tensor], gradients: Gradients, finite: tf.Tensor, embedded_nD: tf.Tensor
) -> Dict[str, tf.Tensor]:
    scalars = {
        "inference_loss": shown[0],
        "accuracy": shown[1],
        "accuracy_margin": shown[2],
        "gradient_norm": gradients.norm,
        "finite": finite,
    }
    if current().has_text:
        scalars["nonfinite_names"] = nonfinite_names(shown[0], embedded_nD, gradients)
    return scalars


def tower_decay(weight_decay: float, collectives: Collectives, tower: Tower) -> tf.Tensor:
    """What the decay of this rank's net and of all ranks' centers adds to the loss."""
    own = {id(variable) for variable in tower.state}
    decayed = [variable for variable in decayed_variables() if id(variable) in own]
    return decay_loss(decayed, weight_decay, total=collectives.sum)


def _embed(
    settings: StepSettings, collectives: Collectives, images_nHWC: tf.Tensor, turn: tf.Tensor
) -> tf.Tensor:
    """Embeddings. Dropout is drawn from seed, rank and turn, so that a resumed run repeats it."""
    backbone = settings.backbone
    seed = (settings.seed + 100003 * collectives.rank) % 2**31  # a prime: ranks' seeds stay apart
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
        return embeddings(
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
            reach=Reach(rate_factors(update, backbone), collectives.sum),
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
