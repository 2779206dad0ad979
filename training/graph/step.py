"""Config and ranks -> the operations of a training step and of an evaluation, in one graph."""

import collections

from runtime.distributed.collectives import Agreement, Collectives, Comparison, replicate
from runtime.distributed.ranks import SINGLE
from runtime.npu.hccl import Hccl
from runtime.tf1 import tf
from training.graph.tower import build_tower, copied, learning_rate, tower_decay

# train: the op that makes one step; before: the ops to run before it, one for each part of the
# batch but the last (--accumulate). scalars: name -> tensor, computed only when fetched.
# backbone: the variables of the net itself, moving statistics too; towers: each rank's Tower.
# images_BHWC -> plain_BD, mirrored_BD: the evaluation's placeholder, the share of this process, and
# the two embeddings of all ranks' shares. What ranks need: replicate, the op that makes all copies
# equal before the first step; fingerprints, int64 [size], equal while the copies are; comparison of
# what all were told; agreement of all processes; calls, what a rank says to the others in a step;
# asked, to be fed whether this process was asked to stop (None where there is but one).
Step = collections.namedtuple(
    "Step",
    "train before scalars backbone towers images_BHWC plain_BD mirrored_BD "
    "replicate fingerprints comparison agreement calls asked",
)


def build_step(config, plan, batches, beside=None, ranks=SINGLE):
    """batches: for each rank of this process its (images_nHWC uint8 RGB, labels_n int64 in
    [0, plan.identities)), a part of its share of a batch. beside: name -> tensor, what else is
    known of the part, to be shown with the scalars -> Step."""
    with tf.device(ranks.device(ranks.local[0])):
        global_step = tf.train.get_or_create_global_step()
        rate = learning_rate(config, plan, global_step)
    shape = [len(ranks.local) * config.eval_batch_size] + list(plan.spec.image_size) + [3]
    images_BHWC = tf.placeholder(tf.uint8, shape, "eval_images")
    shares = tf.split(images_BHWC, len(ranks.local)) if ranks.size > 1 else [images_BHWC]
    kind = Hccl if ranks.kind == "NPU" else Collectives
    talks = [kind(rank, ranks.size, _hint(ranks)) for rank in ranks.local]
    towers = []
    for talk, batch, share in zip(talks, batches, shares):
        with tf.device(ranks.device(talk.rank)), _scope(ranks, talk.rank):
            towers.append(build_tower(config, plan, talk, batch, share, global_step, rate))
    with tf.control_dependencies([tower.moved for tower in towers]):
        train = tf.assign_add(global_step, 1).op  # the step is counted once, when all else is done
    asked, stops = _asked(ranks, talks)
    decays = _on_each(ranks, talks, towers, [train], lambda *of: tower_decay(config, *of))
    decay = _first(decays)
    scalars = dict(
        towers[0].scalars,
        loss=towers[0].scalars["inference_loss"] + decay,
        decay_loss=decay,
        learning_rate=rate,
    )
    scalars.update(beside or {})
    if asked is not None:
        scalars["asked"] = stops
    before = [tf.group(*ops) for ops in zip(*(tower.before for tower in towers))]
    plain_BD = _gathered(ranks, talks, towers, "plain_bD")
    mirrored_BD = _gathered(ranks, talks, towers, "mirrored_bD")
    shared = [global_step] if ranks.kind == "NPU" else []  # of a process; there each rank is one
    copies = _on_each(
        ranks, talks, towers, [], lambda talk, tower: replicate(talk, copied(tower) + shared)
    )
    prints = _on_each(ranks, talks, towers, [], _fingerprint)
    members = [(talk, ranks.device(talk.rank)) for talk in talks]
    comparison, agreement = Comparison(members), Agreement(members)
    assert all(talk.calls == talks[0].calls for talk in talks), "towers differ"
    return Step(
        train=train,
        before=before,
        scalars=scalars,
        backbone=towers[0].backbone,
        towers=towers,
        images_BHWC=images_BHWC,
        plain_BD=plain_BD,
        mirrored_BD=mirrored_BD,
        replicate=tf.group(*copies),
        fingerprints=_first(prints),
        comparison=comparison,
        agreement=agreement,
        calls=talks[0].calls,
        asked=asked,
    )


def _hint(ranks):
    return "nccl" if ranks.kind == "GPU" and ranks.size > 1 else "auto"


def _scope(ranks, rank):
    """The variable scope in which a rank's program is built."""
    name = ranks.scope(rank)
    return tf.variable_scope(name) if name else tf.variable_scope(tf.get_variable_scope())


def _on_each(ranks, talks, towers, after, make):
    """make(collectives, tower) on each rank's own device, after the ops `after`."""
    made = []
    for talk, tower in zip(talks, towers):
        with tf.device(ranks.device(talk.rank)), tf.control_dependencies(after):
            made.append(make(talk, tower))
    return made


def _first(tensors):
    """The first of what all ranks made, when all have: a rank alone would wait for the others."""
    if len(tensors) == 1:
        return tensors[0]
    with tf.control_dependencies(tensors):
        return tf.identity(tensors[0])


def _asked(ranks, talks):
    """(bool to be fed, how many processes were fed True), or (None, None) with one process."""
    if ranks.host_count == 1:
        return None, None
    asked = tf.placeholder_with_default(False, [], "asked")
    counts = []
    for talk in talks:
        with tf.device(ranks.device(talk.rank)):
            counts.append(talk.sum(tf.cast(asked, tf.float32)))
    return asked, _first(counts)


def _gathered(ranks, talks, towers, what):
    """Each rank embeds its share of a batch, and all get all embeddings."""
    return _first(
        _on_each(ranks, talks, towers, [], lambda talk, tower: talk.gather(getattr(tower, what)))
    )


def _fingerprint(collectives, tower):
    """int64 [size]: a number for each rank that its copies' bits alone decide."""
    own = tf.zeros([], tf.int64)
    for place, variable in enumerate(copied(tower), start=1):
        bits = tf.bitcast(variable.read_value(), tf.int32)
        own += (2 * place + 1) * tf.reduce_sum(tf.cast(bits, tf.int64))
    return collectives.gather(own[None])
