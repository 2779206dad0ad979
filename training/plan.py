"""What a run will do, computed and checked before the graph is built: sizes, steps and files."""

import json
import os
import zlib
from typing import Any, Dict, List, NamedTuple, Sequence

from checkpoint.format import steps_in
from data.formats.manifest import Manifest, read_manifest
from evaluation.verification_set import find_sets
from losses.face_losses import find_loss
from losses.partial_fc import Part, drawn_groups
from nets.lineages import NetSpec
from runtime.device import strategy
from runtime.distributed.ranks import SINGLE, Ranks
from training.config import TrainConfig
from training.graph import schedule
from training.graph.schedule import RateSettings
from training.hooks.profiler import steps_of


class Plan(NamedTuple):
    """The sizes, steps and files of a run."""

    spec: NetSpec
    manifest: Manifest  # of the training data
    identities: int  # of the head
    sets: Dict[str, str]  # verification set -> path of its .bin
    rates: RateSettings
    frozen_steps: int  # first steps that train the head alone
    ckpt_steps: int  # interval of checkpoints
    validate_steps: int  # interval of validations
    summary_steps: int  # interval of TensorBoard points
    info_steps: int  # interval of log lines

    @property
    def total_steps(self) -> int:
        """The last step of the run."""
        return self.rates.total_steps


def make_plan(config: TrainConfig, ranks: Ranks = SINGLE) -> Plan:
    """The plan of a config. A mistake that can be found without a graph is a ValueError here."""
    find_loss(config.loss, config.margin, config.scale)
    manifest = read_manifest(config.tfrecords_file_path)
    identities = _identities(config, manifest)
    _check_sampling(config, identities, ranks)
    _check_batch_divides(config, ranks)
    _check_image_size(config, manifest)
    sets = find_sets(config.eval_db_path, config.eval_datasets) if config.eval_db_path else {}
    total_steps = schedule.steps_of(config.epoch, manifest.images, config.batch_size, "ep", "epoch")
    if total_steps < 1:
        raise ValueError(f"--epoch {config.epoch} is less than one step; pass a longer duration.")

    def steps(flag: str) -> int:
        return schedule.steps_of(
            getattr(config, flag),
            manifest.images,
            config.batch_size,
            flag=flag,
            total_steps=total_steps,
        )

    plan = Plan(
        spec=config.net_spec(),
        manifest=manifest,
        identities=identities,
        sets=sets,
        rates=_rates(config, manifest.images, total_steps, steps("warmup")),
        frozen_steps=steps("freeze_backbone"),
        ckpt_steps=max(1, steps("ckpt_interval")),
        validate_steps=max(1, steps("validate_interval")),
        summary_steps=max(1, steps("summary_interval")),
        info_steps=max(1, steps("show_info_interval")),
    )
    steps_of(config.profile)
    _check_steps_per_call(config, plan)
    for name in ("ckpt", "summary", "logs"):
        _check_writable(config.directory(name))
    _check_writable(config.output_path)
    return plan


def _rates(config: TrainConfig, images: int, total_steps: int, warmup_steps: int) -> RateSettings:
    changes: List[int] = []
    factors: Sequence[float] = config.lr_factors
    if config.schedule in ("piecewise", "multistep"):
        changes = schedule.boundaries(config.lr_steps, images, config.batch_size, total_steps)
    if config.schedule == "multistep":
        factors = [config.lr_gamma**count for count in range(len(changes) + 1)]
    peak_rate = config.lr or schedule.default_rate(config.batch_size)
    return RateSettings(config.schedule, peak_rate, total_steps, warmup_steps, changes, factors)


def unreached(plan: Plan) -> List[str]:
    """A sentence for each part of the plan that lies beyond the last step: a learning rate that
    never changes, no validation and no checkpoint before the end."""
    total, changes = plan.total_steps, plan.rates.changes
    found = []
    if changes and min(changes) >= total:
        found.append(
            f"the run ends at step {total}, before the first change of the learning rate at step "
            f"{min(changes)}: the rate stays at its peak; lower --lr_steps (0.5run is half of the "
            "run), or pass --schedule cosine."
        )
    for what, flag, interval, wanted in (
        ("validation", "validate_interval", plan.validate_steps, bool(plan.sets)),
        ("checkpoint", "ckpt_interval", plan.ckpt_steps, True),
    ):
        if wanted and interval >= total:
            found.append(
                f"--{flag} is {interval} steps and the run has {total}: the only {what} is at the "
                f"end; pass --{flag} 0.1run for ten of them."
            )
    return found


def _identities(config: TrainConfig, manifest: Manifest) -> int:
    """The classes of the head: those of the data, or more where --num_output wants them."""
    if config.num_output is None:
        return manifest.identities
    if config.num_output < manifest.identities:
        raise ValueError(
            f"--num_output {config.num_output} is too small for {config.tfrecords_file_path}, "
            f"which has labels up to {manifest.identities - 1}; pass --num_output "
            f"{manifest.identities} or omit it."
        )
    return config.num_output


def _check_sampling(config: TrainConfig, identities: int, ranks: Ranks) -> None:
    images = config.batch_size // config.accumulate
    groups = config.cluster.draw_groups or ranks.size
    whole = strategy(config.device).draws_on_host  # the input pipeline omits no image
    drawn_groups(identities, config.sample_rate, images, groups, Part(0, ranks.size), whole)


def _check_batch_divides(config: TrainConfig, ranks: Ranks) -> None:
    if config.batch_size % (ranks.size * config.accumulate) and ranks.size > 1:
        accumulated = " and --accumulate" if config.accumulate > 1 else ""
        whole = ranks.size * config.accumulate
        raise ValueError(
            f"--batch_size {config.batch_size} cannot be divided among {ranks.size} devices"
            f"{accumulated}; pass a multiple of {whole}, for example "
            f"{max(1, round(config.batch_size / whole)) * whole}."
        )
    if config.batch_size % config.accumulate:
        raise ValueError(
            f"--batch_size {config.batch_size} cannot be divided into --accumulate "
            f"{config.accumulate} equal parts; change one of them."
        )
    if config.accumulate > 1 and config.sample_rate < 1.0:
        raise ValueError(
            f"--accumulate {config.accumulate} sums gradients of all centers, but --sample_rate "
            f"{config.sample_rate} samples other centers for each part; use one of them."
        )


def _check_steps_per_call(config: TrainConfig, plan: Plan) -> None:
    """Refuses intervals that --iterations_per_loop does not divide."""
    steps_per_call = config.iterations_per_loop or 1
    for name, steps in (
        ("epoch", plan.total_steps),
        ("ckpt_interval", plan.ckpt_steps),
        ("validate_interval", plan.validate_steps),
        ("summary_interval", plan.summary_steps),
        ("show_info_interval", plan.info_steps),
    ):
        if steps % steps_per_call:
            raise ValueError(
                f"--{name} {getattr(config, name)} is {steps} steps, but --iterations_per_loop "
                f"makes {steps_per_call} per call; pass a multiple of {steps_per_call}."
            )


def _check_image_size(config: TrainConfig, manifest: Manifest) -> None:
    if manifest.image_size and tuple(manifest.image_size) != tuple(config.image_size):
        raise ValueError(
            f"{config.tfrecords_file_path} has images of {_by(manifest.image_size)}, but "
            f"--image_size is {_by(config.image_size)}; pass --image_size "
            f"{' '.join(map(str, manifest.image_size))}."
        )


def _check_writable(directory: str) -> None:
    """Makes the directory; one that cannot be written is a ValueError."""
    try:
        os.makedirs(directory, exist_ok=True)
        probe = os.path.join(directory, f".writable.{os.getpid()}")
        with open(probe, "w"):
            pass
        os.remove(probe)
    except OSError as error:
        raise ValueError(
            f"{directory} cannot be written ({error.strerror}); pass another --output_path."
        ) from None


def check_output_dir_is_new(config: TrainConfig) -> None:
    """Refuses a directory that already has checkpoints, unless --resume is passed."""
    directory = config.directory("ckpt")
    found = steps_in(directory)
    if found and not config.resume:
        raise ValueError(
            f"{directory} already has {len(found)} checkpoints; pass --resume to resume from "
            f"step {found[-1]}, or another --output_path."
        )


def data_identity(manifest: Manifest) -> Dict[str, Any]:
    """What identifies the training data: the same at any path, another for another order."""
    order = json.dumps([manifest.seed, [list(shard) for shard in manifest.shards]])
    return dict(manifest.identity, order=zlib.crc32(order.encode()))


def check_dataset_unchanged(manifest: Manifest, saved: Dict[str, Any], checkpoint: str) -> None:
    """Refuses to resume on other data, or on the same data in another order."""
    found = data_identity(manifest)
    for key in ("images", "identities", "checksum", "order"):
        if saved.get(key) != found[key]:
            raise ValueError(
                f"--resume: {checkpoint} was trained on data with {key} {saved.get(key)}, but "
                f"here {key} is {found[key]}; convert the same records with the same "
                "--shuffle_seed and --shards, or pass another --output_path."
            )


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
