"""What a run will do, worked out and checked before a graph is built: sizes, steps, files."""

import collections
import json
import os
import zlib

from checkpoint.format import steps_in
from data.formats.manifest import read_manifest
from evaluation.verification_set import find_sets
from losses.face_losses import find_loss
from losses.partial_fc import drawn_groups
from runtime.distributed.ranks import SINGLE
from training.graph import schedule

# spec: NetSpec; manifest: the data; sets: name -> path of a .bin; the rest: steps, rates, paths.
Plan = collections.namedtuple(
    "Plan",
    "spec manifest identities sets total_steps ckpt_steps validate_steps summary_steps info_steps "
    "peak_rate warmup_steps rate_changes rate_factors frozen_steps",
)


def make_plan(config, ranks=SINGLE):
    """A TrainConfig -> Plan; every mistake that can be known before the first step ends here."""
    find_loss(config.loss, config.margin, config.scale)
    manifest = read_manifest(config.tfrecords_file_path)
    identities = _identities(config, manifest)
    _check_draw(config, identities, ranks)
    _check_parts(config, ranks)
    _check_image_size(config, manifest)
    sets = _sets(config)
    for name in ("ckpt", "summary", "logs"):
        _writable(config.directory(name))
    _writable(config.output_path)

    def steps(flag, plain="step"):
        said = getattr(config, flag)
        return schedule.steps_of(said, manifest.images, config.batch_size, plain, flag)

    total_steps = steps("epoch", "ep")
    if total_steps < 1:
        raise ValueError(f"--epoch {config.epoch} is no step at all; ask for more.")
    constant = config.schedule not in ("piecewise", "multistep")
    changes = [] if constant else _changes(config, manifest)
    return Plan(
        config.net_spec(),
        manifest,
        identities,
        sets,
        total_steps,
        ckpt_steps=max(1, steps("ckpt_interval")),
        validate_steps=max(1, steps("validate_interval")),
        summary_steps=max(1, steps("summary_interval")),
        info_steps=max(1, steps("show_info_interval")),
        peak_rate=config.lr or schedule.default_rate(config.batch_size),
        warmup_steps=steps("warmup"),
        rate_changes=changes,
        rate_factors=_factors(config, changes),
        frozen_steps=steps("freeze_backbone"),
    )


def _changes(config, manifest):
    return schedule.boundaries(config.lr_steps, manifest.images, config.batch_size)


def _factors(config, changes):
    if config.schedule == "multistep":
        return [config.lr_gamma**count for count in range(len(changes) + 1)]
    return config.lr_factors


def _identities(config, manifest):
    """How many classes the head has: as many as the data, or more if --num_output says so."""
    if config.num_output is None:
        return manifest.identities
    if config.num_output < manifest.identities:
        raise ValueError(
            f"--num_output {config.num_output} is too small for {config.tfrecords_file_path}, "
            f"whose labels go up to {manifest.identities - 1}; pass --num_output "
            f"{manifest.identities} or leave it out."
        )
    return config.num_output


def _check_draw(config, identities, ranks):
    images, groups = config.batch_size // config.accumulate, config.draw_groups or ranks.size
    whole = config.device == "npu"  # there the input draws, and leaves no image out
    drawn_groups(identities, config.sample_rate, images, groups, 0, ranks.size, whole)


def _check_parts(config, ranks):
    if config.batch_size % (ranks.size * config.accumulate) and ranks.size > 1:
        parts = f"{ranks.size} devices" + " and --accumulate" * (config.accumulate > 1)
        whole = ranks.size * config.accumulate
        raise ValueError(
            f"--batch_size {config.batch_size} cannot be divided among {parts}; pass a multiple "
            f"of {whole}, as {max(1, round(config.batch_size / whole)) * whole}."
        )
    if config.batch_size % config.accumulate:
        raise ValueError(
            f"--batch_size {config.batch_size} cannot be cut into --accumulate {config.accumulate} "
            "equal parts; change one of them."
        )
    if config.accumulate > 1 and config.sample_rate < 1.0:
        raise ValueError(
            f"--accumulate {config.accumulate} sums gradients of all centres, and --sample_rate "
            f"{config.sample_rate} draws others for each part; use one of them."
        )


def _check_image_size(config, manifest):
    if manifest.image_size and tuple(manifest.image_size) != tuple(config.image_size):
        raise ValueError(
            f"{config.tfrecords_file_path} holds images of {_by(manifest.image_size)}, and "
            f"--image_size is {_by(config.image_size)}; pass --image_size "
            f"{' '.join(map(str, manifest.image_size))}."
        )


def _sets(config):
    if config.eval_db_path is None:
        return {}
    return find_sets(config.eval_db_path, config.eval_datasets)


def _writable(directory):
    """Makes the directory, or says why nothing can be written there."""
    try:
        os.makedirs(directory, exist_ok=True)
        probe = os.path.join(directory, f".writable.{os.getpid()}")
        with open(probe, "w"):
            pass
        os.remove(probe)
    except OSError as error:
        raise ValueError(
            f"{directory} cannot be written ({error.strerror}); pass an --output_path that can."
        ) from None


def check_output_dir_is_new(config):
    """A directory that already holds checkpoints is another run's, unless --resume says go on."""
    directory = config.directory("ckpt")
    found = steps_in(directory)
    if found and not config.resume:
        raise ValueError(
            f"{directory} already holds {len(found)} checkpoints; pass --resume to go on from "
            f"step {found[-1]}, or another --output_path."
        )


def data_identity(manifest):
    """What a run says of its data: the same wherever it lies, another if its order is another."""
    order = json.dumps([manifest.seed, [list(shard) for shard in manifest.shards]])
    return dict(manifest.identity, order=zlib.crc32(order.encode()))


def check_dataset_unchanged(manifest, saved, checkpoint):
    """Ends a resume on data that is not, or not in the same order, what the run began with."""
    found = data_identity(manifest)
    for key in ("images", "identities", "checksum", "order"):
        if saved.get(key) != found[key]:
            raise ValueError(
                f"--resume: {checkpoint} was trained on data whose {key} is {saved.get(key)}, and "
                f"here it is {found[key]}; convert the same records with the same --shuffle_seed "
                "and --shards, or pass another --output_path."
            )


def _by(size):
    return " x ".join(map(str, size))
