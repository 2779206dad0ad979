"""The hooks of a run, in the order in which they act after a step."""

import os
from typing import List, NamedTuple, Sequence

from checkpoint.writer import CheckpointWriter
from data.pipeline.batches import TrainingBatches
from runtime.device import strategy
from runtime.distributed.ranks import Ranks
from runtime.distributed.watchdog import Watchdog
from training.config import TrainConfig
from training.cost.flops import peak_of, step_flops
from training.graph.step import StepOps
from training.hooks.base import Hook, RunContext
from training.hooks.checkpoints import Checkpoints
from training.hooks.damaged_records import DamagedRecords
from training.hooks.fetch_all import FetchAllScalars
from training.hooks.metrics import (
    WAITED,
    Metrics,
    MetricsLog,
    Progress,
    Summaries,
    Utilization,
)
from training.hooks.nonfinite import NonFiniteGuard, NonFinitePolicy, batch_again
from training.hooks.profiler import Profile
from training.hooks.replica_check import FeedWatchdog, ReplicaCheck
from training.hooks.validation import Evaluator, Outputs, Validation
from training.plan import Plan
from training.resume import Start


class RunParts(NamedTuple):
    """What a Trainer has built by its first step."""

    config: TrainConfig
    plan: Plan
    ranks: Ranks
    start: Start  # the checkpoint that is resumed, or none
    ops: StepOps
    batches: TrainingBatches
    writer: CheckpointWriter
    watchdog: Watchdog
    device_names: Sequence[str]  # models of the GPUs


class RunHooks(NamedTuple):
    """The hooks of a run."""

    in_order: List[Hook]
    trace: Profile  # wraps the session
    checkpoints: Checkpoints  # knows whether the last state is saved


def run_hooks(parts: RunParts) -> RunHooks:
    """All processes have the same hooks, as a scalar that one of them fetches may need all; only
    the first writes what they find."""
    config, plan, ranks = parts.config, parts.plan, parts.ranks
    run = RunContext(plan.total_steps, config.batch_size, ranks, parts.watchdog)
    log = _metrics_log(parts)
    summaries = Summaries(plan.summary_steps, config.directory("summary") if ranks.leads else None)
    validation = _validation(parts, run, log, summaries)
    checkpoints = Checkpoints(plan.ckpt_steps, parts.writer, validation.best, run)
    trace = _profile(parts)
    timed = {"validation_seconds": validation, "checkpoint_seconds": checkpoints}
    in_order = [
        trace,
        Progress(plan.info_steps, parts.start.step, run.last, config.batch_size, ranks.leads),
        FeedWatchdog(parts.watchdog),
        _nonfinite_guard(parts),
        DamagedRecords(config.on_error, config.max_errors),
        Metrics(
            plan.info_steps,
            log,
            run.last,
            timed,
            measures_input=WAITED in parts.ops.scalars,
            utilization=_utilization(parts),
        ),
        summaries,
        validation,
        ReplicaCheck(plan.ckpt_steps, parts.ops.fingerprints, ranks),
        checkpoints,
    ]
    if not strategy(config.device).fetches_vary:
        in_order.append(FetchAllScalars(parts.ops.scalars))
    return RunHooks(in_order, trace, checkpoints)


def _utilization(parts: RunParts) -> Utilization:
    """The operations of a step and the peak of all devices that make it."""
    config, ranks = parts.config, parts.ranks
    share = parts.plan.identities * config.sub_centers / ranks.size
    flops = step_flops(parts.ops, max(1, round(share * config.sample_rate))) * ranks.host_count
    if config.peak_tflops is not None:
        return Utilization(flops, config.peak_tflops * 1e12 * ranks.size)
    peak = peak_of(parts.device_names, config.precision)
    return Utilization(flops, None if peak is None else peak * ranks.size)


def _metrics_log(parts: RunParts) -> MetricsLog:
    """metrics.jsonl, without the lines of steps that this run makes again."""
    path = os.path.join(parts.config.directory("logs"), "metrics.jsonl")
    log = MetricsLog(
        path if parts.ranks.leads else None, parts.config.batch_size, parts.plan.manifest.images
    )
    log.resume(parts.start.step)
    return log


def _validation(
    parts: RunParts, run: RunContext, log: MetricsLog, summaries: Summaries
) -> Validation:
    config, plan = parts.config, parts.plan
    validation = Validation(
        plan.validate_steps,
        plan.sets,
        Evaluator(parts.ops, plan.spec.image_size, config.eval_batch_size, parts.ranks),
        Outputs(log, summaries, parts.writer, config.output_path),
        run,
        parts.start.best,
    )
    validation.start = "as restored" if config.finetune else "untrained"
    return validation


def _profile(parts: RunParts) -> Profile:
    config, leads = parts.config, parts.ranks.leads
    return Profile(
        config.profile if strategy(config.device).profiles_in_session else None,
        os.path.join(config.output_path, "profile"),
        config.directory("summary") if leads else None,
        parts.ranks.host,
    )


def _nonfinite_guard(parts: RunParts) -> NonFiniteGuard:
    return NonFiniteGuard(
        NonFinitePolicy.of(parts.config, parts.ranks),
        lambda step: batch_again(parts.batches, step, parts.config.accumulate),
        "nonfinite_names" in parts.ops.scalars,
    )
