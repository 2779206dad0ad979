"""The whole life of a training run: plan, lock, graph, session, restore, checks, steps, end."""

import contextlib
import logging
import os
import time
from typing import Any, Optional

from checkpoint.format import clear_unfinished, find_checkpoints
from checkpoint.writer import CheckpointWriter
from runtime.device import strategy
from runtime.distributed.hosts import Hosts, wait_for_hosts
from runtime.distributed.ranks import SINGLE, Ranks, open_target, prepared
from runtime.distributed.socket_filter import restrict_port_to
from runtime.distributed.watchdog import LOST, Watchdog
from runtime.npu import adapter
from runtime.session import session_config
from runtime.tf1 import tf
from training.config import TrainConfig
from training.data_stream import iterator_from, open_batches
from training.graph.finetune import adopt_net_of, start_from
from training.graph.settings import step_settings
from training.graph.step import build_step, next_batch
from training.hooks.startup import Startup
from training.loop import StopSignal, train_loop
from training.output_lock import lock_output_directory
from training.plan import check_output_dir_is_new, data_identity, make_plan
from training.preflight.checks import PreflightRun, preflight
from training.preflight.memory_check import check_fits_memory
from training.resume import find_start
from training.run_hooks import RunParts, run_hooks
from training.run_log import (
    device_names,
    log_devices,
    log_end,
    log_plan,
    log_to_file,
    record_of,
    report_unsaved,
    write_config,
)
from training.step_errors import explain_step_error
from training.topology import check_config_matches_across_hosts

ALREADY_TRAINED = "%s is trained to step %d already: nothing to do."
NOT_SAVED = LOST  # exit code: a supervisor may restart the run from the last complete checkpoint


class Trainer:
    """A training run on the devices of this process. Use it as

    with Trainer(config) as trainer:
        exit_code = trainer.run()
    """

    def __init__(self, config: TrainConfig, ranks: Optional[Ranks] = None) -> None:
        """Computes and checks everything that needs no graph. ranks: the devices that take part; by
        default one, which on Ascend is the card that the environment names."""
        self.device = strategy(config.device)
        if ranks is None:
            ranks = self.device.ranks(os.environ) or SINGLE
        self.ranks = ranks
        self.config = self.device.adapt(adopt_net_of(config), ranks.size)
        self.steps_per_call = self.config.iterations_per_loop or 1
        self.session_config = prepared(
            session_config(config.device, config.log_device_mapping, config.xla, self.config), ranks
        )
        self.plan = make_plan(self.config, ranks)
        self.begun = time.perf_counter()
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Trainer":
        """Locks the output directory and waits for the other hosts."""
        config, ranks, enter = self.config, self.ranks, self._open.enter_context
        try:
            enter(lock_output_directory(config.output_path, ranks.host))
            check_output_dir_is_new(config)
            limit = config.cluster.collective_timeout
            self.watchdog = enter(Watchdog(limit, ranks.hosts, ranks.host, config.output_path))
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def run(self) -> int:
        """Trains to the last step, or until a signal. Returns the process's exit code."""
        self.startup = Startup()
        self._open.enter_context(log_to_file(self.config.directory("logs"), self.ranks))
        if self.ranks.leads:
            clear_unfinished(self.config.directory("ckpt"))
        self.start = find_start(self.config, self.plan)
        if self.start.step >= self.plan.total_steps:
            logging.info(ALREADY_TRAINED, self.start.prefix, self.start.step)
            return 0
        log_plan(self.config, self.plan, self.start.prefix, self.ranks)
        if self.ranks.leads:
            write_config(self.config.output_path, record_of(self.config, self.plan))
        self.startup.done("data and plan")
        self.build()
        with self.watchdog.pause("starting"):
            self.restore_or_initialize()
            self.preflight()
        return self.fit()

    def build(self) -> None:
        """Builds the graph of this process and opens its session."""
        config, ranks, plan, enter = self.config, self.ranks, self.plan, self._open.enter_context
        target = open_target(self.session_config, ranks)
        restrict_port_to(ranks.hosts, ranks.host, config.cluster.allow_hosts)
        wait_for_hosts(Hosts(ranks.hosts, ranks.host), config.cluster.collective_timeout)
        enter(adapter.system(self.session_config, ranks))
        enter(tf.Graph().as_default())
        enter(tf.device(ranks.host_device))
        self.device.build_graph()
        tf.set_random_seed(config.seed)
        self.batches = open_batches(config, ranks)
        self.iterator = iterator_from(self.batches, config, plan.identities, self.start.step, ranks)
        shares, extra_scalars, self.element = next_batch(self.iterator, ranks)
        settings = step_settings(config, plan.identities, plan.rates, plan.frozen_steps)
        self.ops = build_step(settings, shares, ranks, extra_scalars)
        record, agreement = record_of(config, plan), self.ops.agreement
        self.writer = CheckpointWriter(
            config.directory("ckpt"), record, config.saver_maxkeep, ranks, agreement
        )
        self.startup.done("graph")
        self.session = enter(tf.Session(target, config=self.session_config))
        self.stop = enter(StopSignal(ranks.host_count > 1))

    def restore_or_initialize(self) -> None:
        """Fills the variables: from the checkpoint, from that of --finetune, or anew."""
        session, config = self.session, self.config
        dataset, start = data_identity(self.plan.manifest), self.start
        check_config_matches_across_hosts(
            session, config, dataset, self.ops, self.ranks, start.step
        )
        self.memory = check_fits_memory(session, self.ops, config, self.ranks)
        self.device.initialize(session)
        if start.prefix:
            self.writer.restore(session, start.prefix)
        elif config.finetune:
            start_from(session, find_checkpoints(config.finetune)[-1], self.ops.backbone)
        session.run(self.ops.replicate)
        session.run(self.iterator.initializer)
        log_devices(session, self.ranks)
        self.startup.done("session")

    def preflight(self) -> None:
        """Checks what a batch and a few pairs show before the first step."""
        if not self.device.fetches_vary:  # where every check would compile a graph of its own
            return
        run = PreflightRun(self.config, self.plan, self.start.step, self.memory)
        preflight(self.session, self.ops, self.element, run)
        self.startup.done("checks")

    def fit(self) -> int:
        """Makes the steps; hooks log, validate and save. Returns the exit code."""
        session, ops, start = self.session, self.ops, self.start
        names = device_names(session, self.ranks.kind)
        built = (ops, self.batches, self.writer, self.watchdog, names)
        hooks = run_hooks(RunParts(self.config, self.plan, self.ranks, start, *built))
        train = self.device.repeat_step(session, ops.train, self.steps_per_call)
        try:
            last = train_loop(
                hooks.trace.wrap(session),
                ops._replace(train=train),
                (start.step, self.plan.total_steps),
                [*hooks.in_order, self.startup],
                self.stop,
                self.steps_per_call,
            )
        except tf.errors.InvalidArgumentError as error:
            explained = explain_step_error(error, self.batches)
            raise ValueError(f"step {self._steps_made() + 1}: {explained}") from None
        except OSError:
            if self.ranks.host_count == 1:  # else the other hosts would have to save, too
                hooks.checkpoints.end(self._steps_made())
            raise
        ops.agreement.all_agree(session, True)  # no process ends while another needs its answers
        if hooks.checkpoints.failure:
            report_unsaved(self.writer, last, hooks.checkpoints.failure)
            return NOT_SAVED
        log_end(self.config, last, time.perf_counter() - self.begun, self.stop.agreed)
        return self.stop.exit_code

    def _steps_made(self) -> int:
        return int(self.session.run(tf.train.get_global_step()))
