"""One rank's part of a step: its share of the batch, its copy of the net, its slice of the head.

With one rank this is the whole step. n images of a rank, N = size * n of all, b images of
a rank's evaluation, D embedding.
"""

import collections

from inference.backends.checkpoint import embed_with_flip
from losses.class_centres import HeadConfig, HeadInputs, HeadParts, class_centres_loss
from nets.build import embeddings
from nets.layers import NetOptions
from runtime.distributed.collectives import in_buckets
from runtime.npu import adapter
from runtime.npu.options import may_overflow
from runtime.tf1 import for_npu, tf
from runtime.variables import decayed_variables, is_sliced
from training.graph import schedule
from training.graph.finetune import rate_factors
from training.graph.gradient_accumulation import Parts
from training.graph.gradients import (
    LossScale,
    clip_gradients,
    compute_gradients,
    nonfinite_names,
    recomputed,
)
from training.graph.optimizer import apply_gradients, decay_loss, make_slots

COMPUTE = {"fp32": tf.float32, "bf16": tf.bfloat16, "fp16": tf.float16}
WIRE = {"fp32": None, "bf16": tf.bfloat16, "fp16": tf.float16}
BUCKET_BYTES = 4 << 20  # of gradients that travel together; benchmarks/ranks.py shows others

# moved: an op; all of the rank's variables but the step's number have moved. before: the ops of the
# batch's parts but the last. scalars: name -> tensor, the same on all ranks. backbone: the net's
# variables; state: all of the rank's. embedded_nD: of its part of the batch. plain_bD, mirrored_bD:
# the evaluation of what it is given.
Tower = collections.namedtuple(
    "Tower", "moved before scalars backbone state embedded_nD plain_bD mirrored_bD"
)


def build_tower(config, plan, collectives, batch, images_bHWC, global_step, rate):
    """batch: (images_nHWC uint8 RGB, labels_n int64 in [0, plan.identities)), a part of a rank's
    share of a batch, and what sampling.draw gives where that was done before. images_bHWC: uint8
    RGB, to evaluate. rate: the learning rate -> Tower."""
    images_nHWC, labels_n = batch[:2]
    first = len(tf.global_variables())
    parts = Parts(config.accumulate, global_step)
    embedded_nD, statistics = _embed(config, plan.spec, collectives, images_nHWC, parts.turn)
    backbone = tf.global_variables()[first:]
    head = _head(config, plan, collectives, embedded_nD, labels_n, parts.turn, batch[2:])
    statistics = tf.get_collection(tf.GraphKeys.UPDATE_OPS)[statistics:]
    own = {id(variable) for variable in tf.global_variables()[first:]}
    halved = may_overflow(config) if for_npu() else config.precision == "fp16"
    loss_scale = LossScale() if halved else None
    behind, before = compute_gradients(
        head.loss,
        embedded_nD,
        [variable for variable in tf.trainable_variables() if id(variable) in own],
        loss_scale and loss_scale.value,
    )
    behind, before = parts.mean_pairs(behind), parts.mean_pairs(before)
    shown = parts.mean([head.loss, head.accuracy, head.accuracy_margin])
    gradients = clip_gradients(
        _summed(behind, collectives, WIRE[config.wire]),
        before,
        clip_norm=config.clip_norm,
        clip=config.clip,
        total=collectives.sum,
    )
    applied, finite = _apply(
        config, plan, collectives, gradients, backbone, rate, global_step, loss_scale
    )
    if for_npu() and loss_scale is None and config.on_nan == "stop":
        shown[0] = tf.where(finite, shown[0], tf.constant(float("nan")))  # as the host's guard asks
    average, averaged = _averages(config, applied, [v for v in backbone if v.trainable])
    met = _met(collectives, statistics, [v for v in backbone if not v.trainable])
    with tf.control_dependencies([averaged, met] + shown):
        emptied = parts.clear()
    scalars = {
        "inference_loss": shown[0],
        "accuracy": shown[1],
        "accuracy_margin": shown[2],
        "gradient_norm": gradients.norm,
        "finite": finite,
    }
    if not for_npu():  # which has no text
        scalars["nonfinite_names"] = nonfinite_names(shown[0], embedded_nD, gradients)
    evaluation = _evaluation(plan.spec, images_bHWC, average)
    state = tf.global_variables()[first:]
    before = parts.before(statistics)
    return Tower(emptied, before, scalars, backbone, state, embedded_nD, *evaluation)


def tower_decay(config, collectives, tower):
    """What the decay of this rank's net and of all ranks' centres adds to the loss. To be read
    after the update: beside it, it would be a race."""
    own = {id(variable) for variable in tower.state}
    decayed = [variable for variable in decayed_variables() if id(variable) in own]
    return decay_loss(decayed, config.weight_decay, total=collectives.sum)


def _embed(config, spec, collectives, images_nHWC, turn):
    """-> (embeddings, how many updates of statistics there were before it). Dropout is drawn from
    seed, rank and turn, so that a resumed run repeats it."""
    before = len(tf.get_collection(tf.GraphKeys.UPDATE_OPS))
    seed = (config.seed + 100003 * collectives.rank) % 2**31
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
        embedded_nD = embeddings(
            images_nHWC,
            spec,
            training=True,
            options=NetOptions(
                dropout_rate=config.dropout,
                dropout_seed=tf.stack([seed, tf.cast(turn, tf.int32)]),
                compute_dtype=COMPUTE[config.precision],
                mean_over_ranks=collectives.mean if config.sync_batch_norm else None,
                rank_count=collectives.size if config.sync_batch_norm else 1,
                wrap_unit=recomputed if config.recompute else None,
            ),
        )
    return embedded_nD, before


def _head(config, plan, collectives, embedded_nD, labels_n, turn, drawn):
    inputs = HeadInputs(
        collectives.gather(embedded_nD), collectives.gather(labels_n), turn, drawn or None
    )
    head = HeadConfig(
        identities=plan.identities,
        loss=config.loss,
        margin=config.margin,
        scale=config.scale,
        past_pi=config.beyond,
        margin_gradient=config.margin_gradient,
        sample_rate=config.sample_rate,
        draw_groups=config.draw_groups,
        sub_centers=config.sub_centers,
        interclass_filtering_threshold=config.interclass_filtering_threshold,
        seed=config.seed,
        check_finite=False,  # training/hooks/nonfinite.py reports what is not finite, and where
    )
    parts = HeadParts(collectives.maximum, collectives.sum, collectives.rank, collectives.size)
    return class_centres_loss(inputs, head, parts)


def _summed(pairs, collectives, wire):
    """The backbone's gradients over all ranks: each rank's loss is the mean over all images."""
    if collectives.size == 1:
        return pairs
    gradients = [gradient for gradient, _ in pairs]
    summed = in_buckets(gradients, collectives.sum, BUCKET_BYTES, wire)
    return [(gradient, variable) for gradient, (_, variable) in zip(summed, pairs)]


def _met(collectives, statistics, moving):
    """The op after which the moving statistics are those of all ranks: the mean of what each made
    of its own images."""
    if collectives.size == 1 or not moving:
        return tf.group(*statistics)
    with tf.control_dependencies(statistics):
        values = [variable.read_value() for variable in moving]
    values = in_buckets(values, collectives.mean, BUCKET_BYTES)
    return tf.group(*[tf.assign(variable, value) for variable, value in zip(moving, values)])


def learning_rate(config, plan, global_step):
    """The rate of this step: float32 scalar."""
    return schedule.learning_rate(
        global_step,
        config.schedule,
        peak=plan.peak_rate,
        total_steps=plan.total_steps,
        warmup_steps=plan.warmup_steps,
        changes=plan.rate_changes,
        factors=plan.rate_factors,
    )


def _apply(config, plan, collectives, gradients, backbone, rate, global_step, loss_scale):
    """-> (op, whether all is finite). The op updates; where the gradients are not finite it does
    nothing, so that the weights stay good whatever follows. A frozen backbone moves neither weights
    nor momentum."""
    behind = {id(variable) for variable in backbone}
    head = [pair for pair in gradients.pairs if id(pair[1]) not in behind]
    make_slots([variable for _, variable in gradients.pairs], config.optimizer)

    def move(pairs):
        return apply_gradients(
            pairs,
            rate,
            kind=config.optimizer,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            rate_factor=rate_factors(config, backbone),
            total=collectives.sum,
        )

    def move_unfrozen():
        if not plan.frozen_steps:
            return move(gradients.pairs)
        both, alone = _done(move, gradients.pairs), _done(move, head)
        return tf.cond(global_step >= plan.frozen_steps, both, alone)

    if for_npu():
        return adapter.guarded(move_unfrozen, gradients.pairs, loss_scale, collectives.size)
    moved = tf.cond(gradients.finite, _done(move_unfrozen), _done(tf.no_op))
    if loss_scale is None:
        return moved, gradients.finite
    with tf.control_dependencies([moved]):
        return loss_scale.update(gradients.finite), gradients.finite


def _done(make, *words):
    """make(*words), which returns an op, as a branch of tf.cond, which returns a tensor."""

    def branch():
        with tf.control_dependencies([make(*words)]):
            return tf.constant(True)

    return branch


def _averages(config, applied, variables):
    """(name -> average or None, op): the moving averages of the backbone that --ema asks for."""
    if not config.ema:
        return None, applied
    average = tf.train.ExponentialMovingAverage(config.ema)
    with tf.control_dependencies([applied]):
        return average, average.apply(variables)


def _evaluation(spec, images_bHWC, average):
    """The same net in evaluation mode: image and mirror in one pass of one compiled shape, with
    the averaged weights where there are some."""

    def averaged(getter, name, *words, **options):
        variable = getter(name, *words, **options)
        followed = average.average(variable)
        return variable if followed is None else followed

    scope, getter = tf.get_variable_scope(), averaged if average else None
    with tf.variable_scope(scope, reuse=tf.AUTO_REUSE, custom_getter=getter):
        return embed_with_flip(images_bHWC, spec)


def copied(tower):
    """The variables of which every rank holds the same."""
    return [variable for variable in tower.state if not is_sliced(variable)]
