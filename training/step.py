"""Config -> the operations of a training step and of an evaluation, in one graph."""

import collections

from evaluation.embedder import both_ways
from losses.class_centres import class_centres_loss
from nets.build import embeddings
from runtime.tf1 import tf
from runtime.variables import decayed_variables
from training import schedule
from training.gradients import LossScale, backbone_and_head, bound, recomputed
from training.optimizer import apply_gradients, decay_loss, make_slots
from training.parts import Parts

COMPUTE = {"fp32": tf.float32, "bf16": tf.bfloat16, "fp16": tf.float16}

# train: the op that makes one step; before: the ops to run before it, one for each part of the
# batch but the last (--accumulate). scalars: name -> tensor, computed only when fetched.
# backbone: the variables of the net itself, moving statistics too.
# images_BHWC -> plain_BD, mirrored_BD: the evaluation's placeholder and its two embeddings.
Step = collections.namedtuple(
    "Step", "train before scalars backbone images_BHWC plain_BD mirrored_BD"
)


def build_step(config, plan, images_NHWC, labels_N, damaged=None):
    """images_NHWC uint8 RGB, labels_N int64 in [0, plan.identities), a part of a batch -> Step.
    damaged: a string that names the part's replaced records, where --on_error is skip."""
    global_step = tf.train.get_or_create_global_step()
    parts = Parts(config.accumulate, global_step)
    outside = len(tf.global_variables())
    embedded_ND = _embed(config, plan.spec, images_NHWC, parts.turn)
    backbone = tf.global_variables()[outside:]
    head = _head(config, plan, embedded_ND, labels_N, parts.turn)
    rate = _rate(config, plan, global_step)
    loss_scale = LossScale() if config.precision == "fp16" else None
    pairs = backbone_and_head(
        head.loss, embedded_ND, tf.trainable_variables(), loss_scale and loss_scale.value
    )
    shown = parts.mean([head.loss, head.accuracy, head.accuracy_margin])
    gradients = bound(*map(parts.mean_pairs, pairs), clip_norm=config.clip_norm, clip=config.clip)
    applied = _apply(config, plan, gradients, backbone, rate, global_step, loss_scale)
    average, averaged = _averages(config, applied, [v for v in backbone if v.trainable])
    statistics = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    with tf.control_dependencies([averaged] + statistics + shown):
        emptied = parts.clear()
    with tf.control_dependencies([emptied]):  # the step is counted once, when all else is done
        train = tf.assign_add(global_step, 1).op
    with tf.control_dependencies([train]):  # after the update: read beside it, it would be a race
        decay = decay_loss(decayed_variables(), config.weight_decay)
    scalars = {
        "loss": shown[0] + decay,
        "inference_loss": shown[0],
        "decay_loss": decay,
        "accuracy": shown[1],
        "accuracy_margin": shown[2],
        "learning_rate": rate,
        "gradient_norm": gradients.norm,
        "finite": gradients.finite,
    }
    if damaged is not None:
        scalars["damaged"] = damaged
    evaluation = _evaluation(plan.spec, config.eval_batch_size, average)
    return Step(train, parts.before(statistics), scalars, backbone, *evaluation)


def _embed(config, spec, images_NHWC, turn):
    """The training tower. Dropout is drawn from seed and turn, so that a resumed run repeats it."""
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
        return embeddings(
            images_NHWC,
            spec,
            training=True,
            dropout=config.dropout,
            compute_dtype=COMPUTE[config.precision],
            dropout_seed=tf.stack([config.seed, tf.cast(turn, tf.int32)]),
            wrap_unit=recomputed if config.recompute else None,
        )


def _head(config, plan, embedded_ND, labels_N, turn):
    return class_centres_loss(
        embedded_ND,
        labels_N,
        plan.identities,
        loss=config.loss,
        margin=config.margin,
        scale=config.scale,
        beyond=config.beyond,
        margin_gradient=config.margin_gradient,
        sample_rate=config.sample_rate,
        sub_centers=config.sub_centers,
        filter_above=config.filter_above,
        seed=config.seed,
        step=turn,
        check=config.on_nan == "stop",
    )


def _rate(config, plan, global_step):
    return schedule.learning_rate(
        global_step,
        config.schedule,
        peak=plan.peak_rate,
        total_steps=plan.total_steps,
        warmup_steps=plan.warmup_steps,
        changes=plan.rate_changes,
        factors=plan.rate_factors,
    )


def _apply(config, plan, gradients, backbone, rate, global_step, loss_scale):
    """The update; where the gradients are not finite it is left out, if the config says skip or
    the loss scale has to find its height. A frozen backbone moves neither weights nor momentum."""
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
            rate_factor=lambda v: config.backbone_lr_factor if id(v) in behind else 1.0,
        )

    def move_unfrozen():
        if not plan.frozen_steps:
            return move(gradients.pairs)
        both, alone = _done(move, gradients.pairs), _done(move, head)
        return tf.cond(global_step >= plan.frozen_steps, both, alone)

    if loss_scale is None and config.on_nan == "stop":
        return move_unfrozen()
    moved = tf.cond(gradients.finite, _done(move_unfrozen), _done(tf.no_op))
    if loss_scale is None:
        return moved
    with tf.control_dependencies([moved]):
        return loss_scale.update(gradients.finite)


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


def _evaluation(spec, batch_size, average):
    """The same net in evaluation mode: image and mirror in one pass of one compiled shape, with
    the averaged weights where there are some."""

    def averaged(getter, name, *words, **options):
        variable = getter(name, *words, **options)
        followed = average.average(variable)
        return variable if followed is None else followed

    shape = [batch_size] + list(spec.image_size) + [3]
    images_BHWC = tf.placeholder(tf.uint8, shape, "eval_images")
    scope, getter = tf.get_variable_scope(), averaged if average else None
    with tf.variable_scope(scope, reuse=tf.AUTO_REUSE, custom_getter=getter):
        return (images_BHWC,) + both_ways(images_BHWC, spec)
