"""Config -> the operations of a training step and of an evaluation, in one graph."""

import collections

from losses.class_centres import class_centres_loss
from nets.build import embeddings
from runtime.tf1 import tf
from runtime.variables import decayed_variables
from training import schedule
from training.optimizer import apply_gradients, decay_loss

# train: the op that makes one step. scalars: name -> tensor, computed only when fetched.
# images_BHWC -> plain_BD, mirrored_BD: the evaluation's placeholder and its two embeddings.
Step = collections.namedtuple("Step", "train scalars global_step images_BHWC plain_BD mirrored_BD")


def build_step(config, plan, images_NHWC, labels_N, damaged=None):
    """images_NHWC uint8 RGB, labels_N int64 in [0, plan.identities) -> Step.
    damaged: a string that names the batch's replaced records, where --on_error is skip."""
    global_step = tf.train.get_or_create_global_step()
    draw = tf.stack([config.seed, tf.cast(global_step, tf.int32)])  # the same when resumed
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
        embedded_ND = embeddings(
            images_NHWC, plan.spec, training=True, dropout=config.dropout, dropout_seed=draw
        )
        head = class_centres_loss(
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
        )
        evaluation = _evaluation(plan.spec, config.eval_batch_size)
    rate = schedule.learning_rate(
        global_step,
        config.schedule,
        peak=plan.peak_rate,
        total_steps=plan.total_steps,
        warmup_steps=plan.warmup_steps,
        changes=plan.rate_changes,
        factors=plan.rate_factors,
    )
    train = _train(config, head.loss, rate, global_step)
    with tf.control_dependencies([train]):  # after the update: read beside it, it would be a race
        decay = decay_loss(decayed_variables(), config.weight_decay)
    scalars = {
        "loss": head.loss + decay,
        "inference_loss": head.loss,
        "decay_loss": decay,
        "accuracy": head.accuracy,
        "accuracy_margin": head.accuracy_margin,
        "learning_rate": rate,
    }
    if damaged is not None:
        scalars["damaged"] = damaged
    return Step(train, scalars, global_step, *evaluation)


def _train(config, loss, rate, global_step):
    """One update: gradients applied, moving statistics moved, and then the step counted, once."""
    variables = tf.trainable_variables()
    pairs = list(zip(tf.gradients(loss, variables), variables))
    applied = apply_gradients(
        pairs,
        rate,
        kind=config.optimizer,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    with tf.control_dependencies([applied] + tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        return tf.assign_add(global_step, 1).op


def _evaluation(spec, batch_size):
    """The same net in evaluation mode: image and mirror in one pass of one compiled shape."""
    images_BHWC = tf.placeholder(
        tf.uint8, [batch_size] + list(spec.image_size) + [3], "eval_images"
    )
    both_BHWC = tf.concat([images_BHWC, tf.reverse(images_BHWC, axis=[2])], axis=0)
    plain_BD, mirrored_BD = tf.split(embeddings(both_BHWC, spec, training=False), 2)
    return images_BHWC, plain_BD, mirrored_BD
