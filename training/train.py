"""A TrainConfig -> a trained net: what train_nets.py and train_nets_mgpu.py call."""

import collections
import logging
import os
import re

from checkpoint.format import find_checkpoints, write_record
from checkpoint.writer import CheckpointWriter, clear_unfinished, newest_whole
from data.pipeline.batches import damage, training_batches
from runtime import tf1
from runtime.distributed.hosts import Hosts, wait_for_hosts
from runtime.distributed.ranks import SINGLE, open_target, prepared
from runtime.distributed.socket_filter import restrict_port_to
from runtime.distributed.watchdog import Watchdog
from runtime.npu import adapter, card
from runtime.session import session_config
from runtime.tf1 import tf
from training import ascend
from training.config import check_resumable
from training.graph.finetune import start_from
from training.graph.inputs import timed_next
from training.graph.step import build_step
from training.hooks import base
from training.hooks.nonfinite import NonFiniteGuard, batch_again
from training.hooks.profiler import Profile
from training.hooks.replica_check import FeedWatchdog, ReplicaCheck
from training.hooks.startup import Startup
from training.loop import StopSignal, train_loop
from training.plan import check_dataset_unchanged, check_output_dir_is_new, make_plan
from training.preflight.checks import preflight
from training.preflight.memory_check import check_fits_memory
from training.run_log import log_end, log_plan, log_to_file, record_of
from training.topology import check_config_matches_across_hosts

# batches: the iterator; element: its next; step: a Step; writer: of checkpoints.
Built = collections.namedtuple("Built", "batches element step writer")


def train(config, ranks=None):
    """Trains as the config says, and returns the process's exit code. ranks: who takes part; by
    default one device, which on Ascend is the card that the environment names."""
    if ranks is None:
        ranks = card.ranks(os.environ) if config.device == "npu" else SINGLE
    config = ascend.adapted(config, ranks)
    proto = session_config(config.device, config.log_device_mapping, config.xla, config)
    proto = prepared(proto, ranks)
    plan = make_plan(config, ranks)
    ascend.check_loop(config, plan)
    check_output_dir_is_new(config)
    with Watchdog(config.collective_timeout, ranks.hosts, ranks.host, config.output_path) as dog:
        return _train(config, plan, ranks, proto, dog)


def _train(config, plan, ranks, proto, dog):
    trace, started = _trace(config, ranks), Startup()
    prefix, record = _resume_point(config, plan, ranks)
    if config.finetune:
        find_checkpoints(config.finetune)
    first = record["step"] if record else 0
    log_to_file(config.directory("logs"), ranks)
    if first >= plan.total_steps:
        logging.info("%s is trained to step %d already: nothing to do.", prefix, first)
        return 0
    log_plan(config, plan, prefix, ranks)
    if ranks.leads:
        write_record(os.path.join(config.output_path, "config"), record_of(config, plan))
    started.done("data and plan")
    target = open_target(proto, ranks)
    restrict_port_to(ranks.hosts, ranks.host, config.allow_hosts)
    wait_for_hosts(Hosts(ranks.hosts, ranks.host), config.collective_timeout)
    with adapter.system(proto, ranks), tf.Graph().as_default(), tf.device(ranks.home):
        built = _build(config, plan, first, ranks)
        started.done("graph")
        with tf.Session(target, config=proto) as session, StopSignal(ranks.host_count > 1) as stop:
            with dog.pause("starting"):
                _begin(session, built, config, plan, ranks, prefix, first, started)
            last = _loop(session, built, config, plan, ranks, dog, record, [trace, started], stop)
    return log_end(config, last, stop)


def _build(config, plan, first, ranks):
    """The whole graph of this process -> Built."""
    tf1.build_for(config.device)
    tf.set_random_seed(config.seed)
    batches = _batches(config, plan, first, ranks)
    element, waited = timed_next(batches)
    shares, beside = _shares(element, waited, ranks)
    step = build_step(config, plan, shares, beside, ranks)
    writer = CheckpointWriter(
        config.directory("ckpt"),
        record_of(config, plan),
        config.saver_maxkeep,
        ranks,
        step.agreement,
    )
    return Built(batches, element, step, writer)


def _begin(session, built, config, plan, ranks, prefix, first, started):
    """Checks what only the graph and the other processes can tell, and fills the variables."""
    step = built.step
    check_config_matches_across_hosts(session, config, plan, step, ranks, first)
    fits = check_fits_memory(session, step, config, ranks)
    _initialise(session)
    if prefix:
        built.writer.restore(session, prefix)
    elif config.finetune:
        start_from(session, config.finetune, step.backbone)
    session.run(step.replicate)
    session.run(built.batches.initializer)
    started.done("session")
    if ranks.kind != "NPU":  # where each look would be compiled as a graph of its own
        preflight(session, step, built.element, config, plan, first, fits)
        started.done("checks")


def _loop(session, built, config, plan, ranks, dog, record, around, stop):
    """Makes the steps; returns the last one made. around: the run's Profile and Startup."""
    first = record["step"] if record else 0
    turns = config.iterations_per_loop or 1
    trace, started = around
    observers = [trace] + _hooks(config, plan, built, first, record, ranks, dog) + [started]
    if ranks.kind == "NPU":
        observers.append(ascend.FetchAllScalars(built.step))
    try:
        step = built.step._replace(train=adapter.repeated_step(session, built.step.train, turns))
        last = train_loop(
            trace.wrap(session), step, first, plan.total_steps, observers, stop, turns
        )
    except tf.errors.InvalidArgumentError as error:
        number = session.run(tf.train.get_global_step()) + 1
        raise ValueError(f"step {number}: {_sentence(error)}") from None
    step.agreement.all_say(session, True)  # nobody leaves while another needs its answers
    return last


def _initialise(session):
    if tf1.for_npu():
        return adapter.initialise(session, tf.global_variables() + tf.local_variables())
    session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])


def _sentence(error):
    """What TensorFlow's error says to the user, if it is one of ours; else the error goes on."""
    damaged = damage(error)
    asserted = re.search(r"assertion failed: \[(.*?)\]", error.message, re.DOTALL)
    if damaged is None and asserted is None:
        raise error
    return damaged or " ".join(asserted.group(1).split()).rstrip(":") + "."


def _resume_point(config, plan, ranks):
    """(prefix, record) of the checkpoint to go on from, or (None, None) to begin."""
    directory = config.directory("ckpt")
    if ranks.leads:
        clear_unfinished(directory)
    if not config.resume:
        return None, None
    prefix, record = newest_whole(directory)
    if record:
        check_resumable(config, record["training"], prefix)
        check_dataset_unchanged(plan.manifest, record["dataset"], prefix)
    else:
        logging.info("--resume: no checkpoint in %s yet, so the run begins.", directory)
    return prefix, record


def _batches(config, plan, first, ranks):
    """The iterator of this process's parts of batches."""
    dataset = training_batches(
        config.tfrecords_file_path,
        config.batch_size // config.accumulate // ranks.host_count,
        config.seed,
        start_image=first * config.batch_size // ranks.host_count,
        augment=config.augmentation(),
        buffer_size=config.buffer_size,
        image_size=tuple(config.image_size),
        host=ranks.host,
        hosts=ranks.host_count,
        on_error=config.on_error,
    )
    if config.device == "npu" and config.sample_rate < 1.0:
        dataset = ascend.with_draws(dataset, config, plan, first, ranks)
    return tf.data.make_initializable_iterator(dataset)


def _shares(element, waited, ranks):
    """A part of a batch -> (what each rank of this process gets, what else is known of it)."""
    if ranks.kind == "NPU":
        return [element], {}
    images, labels = (tf.split(tensor, ranks.per_host) for tensor in element[:2])
    beside = dict(zip(["damaged"], element[2:]), input_seconds=waited)
    return list(zip(images, labels)), beside


def _trace(config, ranks):
    summaries = config.directory("summary") if ranks.leads else None
    directory = os.path.join(config.output_path, "profile")
    steps = config.profile if config.device != "npu" else None  # the card itself writes its own
    return Profile(steps, directory, summaries, ranks.host)


def _hooks(config, plan, built, first, record, ranks, dog):
    """In the order in which they act after a step. All processes have the same ones, for a scalar
    that one of them asks for may need all of them; the first alone writes what they find."""
    step, writer = built.step, built.writer
    log = base.MetricsLog(
        os.path.join(config.directory("logs"), "metrics.jsonl") if ranks.leads else None,
        config.batch_size,
        plan.manifest.images,
    )
    log.resume(first)
    summaries = base.Summaries(
        plan.summary_steps, config.directory("summary") if ranks.leads else None
    )
    best = record.get("best") if record else None
    validation = base.Validation(step, plan, config, log, summaries, writer, best, ranks, dog)
    checkpoints = base.Checkpoints(plan.ckpt_steps, writer, config.batch_size, validation, dog)

    def again(first):
        return _batches(config, plan, first, ranks)

    return [
        base.Progress(plan.info_steps, first, plan.total_steps, config.batch_size, ranks.leads),
        FeedWatchdog(dog),
        NonFiniteGuard(
            config, lambda number: batch_again(config, ranks, number, again), step, ranks
        ),
        base.DamagedRecords(config.on_error, config.max_errors),
        base.Metrics(
            plan.info_steps,
            log,
            config.batch_size,
            plan.total_steps,
            others={"validation_seconds": validation, "checkpoint_seconds": checkpoints},
            waits=base.WAITED in step.scalars,
        ),
        summaries,
        validation,
        ReplicaCheck(plan.ckpt_steps, step, ranks),
        checkpoints,
    ]
