"""The whole life of a training run: plan, lock, graph, session, restore, checks, steps, end."""

import contextlib
import logging
import os
import re
import time
from typing import Any, Dict, List, Optional

from checkpoint.format import clear_unfinished, find_checkpoints, newest_whole
from checkpoint.writer import CheckpointWriter
from runtime.cli import complain
from runtime.device import strategy
from runtime.distributed.hosts import Hosts, wait_for_hosts
from runtime.distributed.ranks import SINGLE, Ranks, open_target, prepared
from runtime.distributed.socket_filter import restrict_port_to
from runtime.distributed.watchdog import LOST, Watchdog
from runtime.npu import adapter
from runtime.session import session_config
from runtime.tf1 import tf
from training import ascend
from training.config import TrainConfig, check_resumable
from training.data_stream import iterator_from, open_batches
from training.graph.finetune import adopt_net_of, start_from
from training.graph.settings import step_settings
from training.graph.step import build_step, next_batch
from training.hooks.base import Hook, RunContext
from training.hooks.checkpoints import Checkpoints
from training.hooks.damaged_records import DamagedRecords
from training.hooks.metrics import WAITED, Metrics, MetricsLog, Progress, Summaries
from training.hooks.nonfinite import NonFiniteGuard, NonFinitePolicy, batch_again
from training.hooks.profiler import Profile
from training.hooks.replica_check import FeedWatchdog, ReplicaCheck
from training.hooks.startup import Startup
from training.hooks.validation import Evaluator, Outputs, Validation
from training.loop import StopSignal, train_loop
from training.output_lock import lock_output_directory
from training.plan import (
    check_dataset_unchanged,
    check_output_dir_is_new,
    data_identity,
    make_plan,
)
from training.preflight.checks import PreflightRun, preflight
from training.preflight.memory_check import check_fits_memory
from training.run_log import log_devices, log_end, log_plan, log_to_file, record_of, write_config
from training.topology import check_config_matches_across_hosts

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
        self.config = ascend.adapted(adopt_net_of(config), ranks)
        self.steps_per_call = self.config.iterations_per_loop or 1
        self.session_config = prepared(
            session_config(config.device, config.log_device_mapping, config.xla, self.config), ranks
        )
        self.plan = make_plan(self.config, ranks)
        ascend.check_loop(self.config, self.plan)
        self.resume_prefix: Optional[str] = None
        self.resume_record: Dict[str, Any] = {}
        self.begun = time.perf_counter()
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Trainer":
        """Locks the output directory and waits for the other hosts."""
        config, ranks, enter = self.config, self.ranks, self._open.enter_context
        try:
            enter(lock_output_directory(config.output_path, ranks.host))
            check_output_dir_is_new(config)
            self.watchdog = enter(
                Watchdog(
                    config.cluster.collective_timeout, ranks.hosts, ranks.host, config.output_path
                )
            )
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
        self.find_checkpoint()
        if self.first_step >= self.plan.total_steps:
            logging.info(
                "%s is trained to step %d already: nothing to do.",
                self.resume_prefix,
                self.first_step,
            )
            return 0
        log_plan(self.config, self.plan, self.resume_prefix, self.ranks)
        if self.ranks.leads:
            write_config(self.config.output_path, record_of(self.config, self.plan))
        self.startup.done("data and plan")
        self.build()
        with self.watchdog.pause("starting"):
            self.restore_or_initialize()
            self.preflight()
        return self.fit()

    @property
    def first_step(self) -> int:
        """The steps that were made before this process."""
        return self.resume_record.get("step", 0)

    def find_checkpoint(self) -> None:
        """Finds the checkpoint that --resume continues from; none in a new run."""
        config, directory = self.config, self.config.directory("ckpt")
        if self.ranks.leads:
            clear_unfinished(directory)
        if not config.resume:
            return
        self.resume_prefix, record = newest_whole(directory)
        if record is None or self.resume_prefix is None:
            logging.info("--resume: no checkpoint in %s yet, a new run starts.", directory)
            return
        self.resume_record = record
        check_resumable(config, record["training"], self.resume_prefix)
        check_dataset_unchanged(self.plan.manifest, record["dataset"], self.resume_prefix)

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
        self.iterator = iterator_from(self.batches, config, plan.identities, self.first_step, ranks)
        shares, extra_scalars, self.element = next_batch(self.iterator, ranks)
        settings = step_settings(config, plan.identities, plan.rates, plan.frozen_steps)
        self.ops = build_step(settings, shares, ranks, extra_scalars)
        self.writer = CheckpointWriter(
            config.directory("ckpt"),
            record_of(config, plan),
            config.saver_maxkeep,
            ranks,
            self.ops.agreement,
        )
        self.startup.done("graph")
        self.session = enter(tf.Session(target, config=self.session_config))
        self.stop = enter(StopSignal(ranks.host_count > 1))

    def restore_or_initialize(self) -> None:
        """Fills the variables: from the checkpoint, from that of --finetune, or anew."""
        session, config = self.session, self.config
        check_config_matches_across_hosts(
            session,
            config,
            data_identity(self.plan.manifest),
            self.ops,
            self.ranks,
            self.first_step,
        )
        self.memory = check_fits_memory(session, self.ops, config, self.ranks)
        self.device.initialize(session)
        if self.resume_prefix:
            self.writer.restore(session, self.resume_prefix)
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
        preflight(
            self.session,
            self.ops,
            self.element,
            PreflightRun(self.config, self.plan, self.first_step, self.memory),
        )
        self.startup.done("checks")

    def fit(self) -> int:
        """Makes the steps; hooks log, validate and save. Returns the exit code."""
        session, stop, ops = self.session, self.stop, self.ops
        trace = self._profile()
        hooks = [trace, *self._hooks(), self.startup]
        if not self.device.fetches_vary:
            hooks.append(ascend.FetchAllScalars(ops))
        ops = ops._replace(train=self.device.repeat_step(session, ops.train, self.steps_per_call))
        steps = (self.first_step, self.plan.total_steps)
        try:
            last = train_loop(trace.wrap(session), ops, steps, hooks, stop, self.steps_per_call)
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(f"step {self._step() + 1}: {self._explain(error)}") from None
        except OSError:
            if self.ranks.host_count == 1:  # else the other hosts would have to save, too
                self.checkpoints.end(self._step())
            raise
        ops.agreement.all_agree(session, True)  # no process ends while another needs its answers
        return self._end(last)

    def _end(self, last: int) -> int:
        if self.checkpoints.failure:
            complain(
                f"the state of step {last} could not be saved to {self.writer.directory}: "
                f"{self.checkpoints.failure}, {self.writer.bytes / 1e6:.0f} MB needed. Make room "
                "and resume with --resume."
            )
            return NOT_SAVED
        log_end(self.config, last, time.perf_counter() - self.begun, self.stop.agreed)
        return self.stop.exit_code

    def _step(self) -> int:
        return int(self.session.run(tf.train.get_global_step()))

    def _explain(self, error: tf.errors.InvalidArgumentError) -> str:
        """The message about TensorFlow's error, if it is one of ours; else the error is raised."""
        damaged = self.batches.explain(error)
        asserted = re.search(r"assertion failed: \[(.*?)\]", error.message, re.DOTALL)
        if damaged is not None:
            return damaged
        if asserted is None:
            raise error
        return " ".join(asserted.group(1).split()).rstrip(":") + "."

    def _profile(self) -> Profile:
        config = self.config
        return Profile(
            config.profile if self.device.profiles_in_session else None,
            os.path.join(config.output_path, "profile"),
            config.directory("summary") if self.ranks.leads else None,
            self.ranks.host,
        )

    def _hooks(self) -> List[Hook]:
        """In the order in which they act after a step. All processes have the same ones, as a
        scalar that one of them fetches may need all; only the first writes what they find."""
        config, plan, ops, ranks = self.config, self.plan, self.ops, self.ranks
        leads, batch_size = ranks.leads, config.batch_size
        run = RunContext(plan.total_steps, batch_size, ranks, self.watchdog)
        metrics_path = os.path.join(config.directory("logs"), "metrics.jsonl")
        log = MetricsLog(metrics_path if leads else None, batch_size, plan.manifest.images)
        log.resume(self.first_step)
        summaries = Summaries(plan.summary_steps, config.directory("summary") if leads else None)
        validation = Validation(
            plan.validate_steps,
            plan.sets,
            Evaluator(ops, plan.spec.image_size, config.eval_batch_size, ranks),
            Outputs(log, summaries, self.writer, config.output_path),
            run,
            self.resume_record.get("best"),
        )
        validation.start = "as restored" if config.finetune else "untrained"
        self.checkpoints = Checkpoints(plan.ckpt_steps, self.writer, validation.best, run)
        return [
            Progress(plan.info_steps, self.first_step, run.last, batch_size, leads),
            FeedWatchdog(self.watchdog),
            NonFiniteGuard(
                NonFinitePolicy.of(config, ranks),
                lambda step: batch_again(self.batches, step, config.accumulate),
                "nonfinite_names" in ops.scalars,
            ),
            DamagedRecords(config.on_error, config.max_errors),
            Metrics(
                plan.info_steps,
                log,
                run.last,
                {"validation_seconds": validation, "checkpoint_seconds": self.checkpoints},
                measures_input=WAITED in ops.scalars,
            ),
            summaries,
            validation,
            ReplicaCheck(plan.ckpt_steps, ops.fingerprints, ranks),
            self.checkpoints,
        ]
