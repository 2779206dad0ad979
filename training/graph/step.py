"""Settings and ranks -> the operations of a training step and of an evaluation, in one graph.

n images of a rank, b images of a rank's evaluation, B of all local ranks, D embedding dimension.
"""

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from runtime.device import current
from runtime.distributed.collectives import Agreement, Collectives, Comparison, replicate
from runtime.distributed.ranks import SINGLE, Ranks
from runtime.tf1 import tf
from training.graph.schedule import learning_rate
from training.graph.settings import StepSettings
from training.graph.tower import Tower, TowerInputs, build_tower, copied, tower_decay


class StepOps(NamedTuple):
    """The operations of a training step, of an evaluation, and of what ranks agree on."""

    train: tf.Operation  # makes one step
    accumulate: List[tf.Operation]  # to run before `train`: the parts of a batch but the last
    scalars: Dict[str, tf.Tensor]  # computed only when fetched
    backbone: List[tf.Variable]  # of the network itself, moving statistics too
    towers: List[Tower]  # of this process's ranks
    images_BHWC: tf.Tensor  # placeholder: this process's share of an evaluation batch
    plain_BD: tf.Tensor  # embeddings of all ranks' shares
    mirrored_BD: tf.Tensor  # the same of the mirrored images
    replicate: tf.Operation  # makes all copies equal before the first step
    fingerprints: Optional[tf.Tensor]  # int64 [size], equal while the copies are; None for one rank
    comparison: Comparison  # of the configs of all processes
    agreement: Agreement  # of all processes
    calls: List[Any]  # the collectives of a step
    stop_feed: Optional[tf.Tensor]  # whether this process got a stop signal; None: one process


def next_batch(
    iterator: Any, ranks: Ranks
) -> Tuple[List[Tuple[tf.Tensor, ...]], Dict[str, tf.Tensor], Tuple[tf.Tensor, ...]]:
    """The next element of an iterator -> (batch of each local rank, extra scalars, the element).
    The scalar input_seconds is the time that the step waits for its images."""
    element, waited = current().next_batch(iterator)
    if current().one_rank_per_process:
        return [element], {}, element
    images, labels = (tf.split(tensor, ranks.per_host) for tensor in element[:2])
    extra_scalars = dict(zip(["damaged"], element[2:]), input_seconds=waited)
    return list(zip(images, labels)), extra_scalars, element


def build_step(
    settings: StepSettings,
    batches: Sequence[Tuple[tf.Tensor, ...]],
    ranks: Ranks = SINGLE,
    extra_scalars: Optional[Dict[str, tf.Tensor]] = None,
) -> StepOps:
    """The operations of a step. batches: for each rank of this process its (images_nHWC uint8 RGB,
    labels_n int64 in [0, identities)), a part of its share of a batch."""
    collectives = [_collectives(ranks, rank) for rank in ranks.local]
    images_BHWC, global_step, rate, towers = _towers(settings, batches, ranks, collectives)
    # The counter is incremented after everything else: it seeds what the step draws, and a
    # checkpoint of a step is whole when the counter shows it.
    with tf.control_dependencies([tower.update_op for tower in towers]):
        train = tf.assign_add(global_step, 1).op
    everyone = _Everyone(ranks, collectives, towers)
    stop_feed, stop_count = _stop(ranks, collectives)
    scalars = dict(_scalars(settings, towers[0], everyone, train, rate), **(extra_scalars or {}))
    if stop_feed is not None:
        scalars["stop_count"] = stop_count
    plain_BD = everyone.first(lambda each, tower: each.gather(tower.plain_bD))
    mirrored_BD = everyone.first(lambda each, tower: each.gather(tower.mirrored_bD))
    # Where every rank is a process, every rank has a counter.
    shared = [global_step] if current().one_rank_per_process else []
    copies = everyone.make(lambda each, tower: replicate(each, copied(tower) + shared))
    fingerprints = everyone.first(_fingerprint) if ranks.size > 1 else None
    members = [(each, ranks.device(each.rank)) for each in collectives]
    comparison, agreement = Comparison(members), Agreement(members)
    assert all(each.calls == collectives[0].calls for each in collectives), "towers differ"
    return StepOps(
        train=train,
        accumulate=[tf.group(*ops) for ops in zip(*(tower.partial_ops for tower in towers))],
        scalars=scalars,
        backbone=towers[0].backbone,
        towers=towers,
        images_BHWC=images_BHWC,
        plain_BD=plain_BD,
        mirrored_BD=mirrored_BD,
        replicate=tf.group(*copies),
        fingerprints=fingerprints,
        comparison=comparison,
        agreement=agreement,
        calls=collectives[0].calls,
        stop_feed=stop_feed,
    )


def _towers(
    settings: StepSettings,
    batches: Sequence[Tuple[tf.Tensor, ...]],
    ranks: Ranks,
    collectives: Sequence[Collectives],
) -> Tuple[tf.Tensor, tf.Variable, tf.Tensor, List[Tower]]:
    """(placeholder of evaluation images, global step, learning rate, the local ranks' towers)."""
    with tf.device(ranks.device(ranks.local[0])):
        global_step = tf.train.get_or_create_global_step()
        rate = learning_rate(global_step, settings.rates)
    count, spec = len(ranks.local), settings.backbone.spec
    shape = [count * settings.eval_batch_size] + list(spec.image_size) + [3]
    images_BHWC = tf.placeholder(tf.uint8, shape, "eval_images")
    shares = tf.split(images_BHWC, count) if ranks.size > 1 else [images_BHWC]
    towers = []
    for each, batch, share in zip(collectives, batches, shares):
        inputs = TowerInputs(batch, share, global_step, rate)
        with tf.device(ranks.device(each.rank)), _scope(ranks, each.rank):
            towers.append(build_tower(settings, each, inputs))
    return images_BHWC, global_step, rate, towers


def _scalars(
    settings: StepSettings,
    tower: Tower,
    everyone: "_Everyone",
    train: tf.Operation,
    rate: tf.Tensor,
) -> Dict[str, tf.Tensor]:
    """The scalars of a step. The decay reads the weights a second time, after the update: a read
    without that dependency would race with the update, and its digits would vary."""
    weight_decay = settings.update.weight_decay
    decay = everyone.first(lambda each, own: tower_decay(weight_decay, each, own), after=[train])
    return dict(
        tower.scalars,
        loss=tower.scalars["inference_loss"] + decay,
        decay_loss=decay,
        learning_rate=rate,
    )


def _collectives(ranks: Ranks, rank: int) -> Collectives:
    hint = "nccl" if ranks.kind == "GPU" and ranks.size > 1 else "auto"
    return current().collectives(rank, ranks.size, hint)


def _scope(ranks: Ranks, rank: int) -> Any:
    """The variable scope in which a rank's program is built."""
    name = ranks.scope(rank)
    return tf.variable_scope(name) if name else tf.variable_scope(tf.get_variable_scope())


class _Everyone:
    """The local ranks with their collectives and towers, to build one more thing on each."""

    def __init__(
        self, ranks: Ranks, collectives: Sequence[Collectives], towers: Sequence[Tower]
    ) -> None:
        self.ranks, self.collectives, self.towers = ranks, collectives, towers

    def make(
        self,
        build: Callable[[Collectives, Tower], Any],
        after: Sequence[tf.Operation] = (),
    ) -> List[Any]:
        """build(collectives, tower) on each rank's own device, after some ops."""
        made = []
        for collectives, tower in zip(self.collectives, self.towers):
            with tf.device(self.ranks.device(collectives.rank)), tf.control_dependencies(after):
                made.append(build(collectives, tower))
        return made

    def first(
        self,
        build: Callable[[Collectives, Tower], tf.Tensor],
        after: Sequence[tf.Operation] = (),
    ) -> tf.Tensor:
        """The first rank's tensor of `make`."""
        return _first(self.make(build, after))


def _first(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """The first of all ranks' tensors, when all are there: a collective that is run on one rank
    alone would wait for the others."""
    if len(tensors) == 1:
        return tensors[0]
    with tf.control_dependencies(tensors):
        return tf.identity(tensors[0])


def _stop(
    ranks: Ranks, collectives: Sequence[Collectives]
) -> Tuple[Optional[tf.Tensor], Optional[tf.Tensor]]:
    """(bool to be fed, number of processes that fed True); (None, None) with one process."""
    if ranks.host_count == 1:
        return None, None
    feed = tf.placeholder_with_default(False, [], "stop_requested")
    counts = []
    for each in collectives:
        with tf.device(ranks.device(each.rank)):
            counts.append(each.sum(tf.cast(feed, tf.float32)))
    return feed, _first(counts)


def _fingerprint(collectives: Collectives, tower: Tower) -> tf.Tensor:
    """int64 [size]: a number for each rank that only its copies' bits determine."""
    own = tf.zeros([], tf.int64)
    for place, variable in enumerate(copied(tower), start=1):
        bits = tf.bitcast(variable.read_value(), tf.int32)
        own += (2 * place + 1) * tf.reduce_sum(tf.cast(bits, tf.int64))
    return collectives.gather(own[None])
