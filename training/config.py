"""The configuration of a training run: every field is a flag of train_nets.py."""

import dataclasses
from typing import Any, Dict, NamedTuple, Optional, Tuple

from data.pipeline.recipes import RECIPES, Augmentation, recipe
from losses.choices import LOSS_NAMES, MARGIN_GRADIENTS, PAST_PI
from nets.lineages import LINEAGES, NetSpec
from runtime.flags import DEVICES, flag
from runtime.npu.options import NpuFlags
from training.choices import OPTIMIZERS, SCHEDULES

# Flags whose name in the records of older checkpoints was another.
FORMER_NAMES = {"past_pi": "beyond"}
NET_FLAGS = ("lineage", "net_depth", "block", "width", "embedding_size")


class ClusterConfig(NamedTuple):
    """What a run on several devices or hosts adds; the defaults are those of a single device."""

    num_devices: Optional[int] = 1  # of this host; None: all that TensorFlow sees
    worker_hosts: Tuple[str, ...] = ()  # address:port of every host
    task_index: Optional[int] = None  # this host's place among them
    allow_hosts: Tuple[str, ...] = ()  # other addresses that this host's port answers
    draw_groups: Optional[int] = None  # groups of identities that Partial FC draws from
    sync_batch_norm: bool = False
    wire: str = "fp32"  # data type of the gradient all-reduce
    collective_timeout: float = 60.0  # seconds


def _probability(of: str) -> Optional[float]:
    """The flag of one kind of augmentation."""
    return flag(None, f"probability of {of} (default: as --augment)", "data", low=0.0, high=1.0)


@dataclasses.dataclass(frozen=True)
class TrainConfig(NpuFlags):
    """The flags of train_nets.py. All are saved with each checkpoint."""

    config: Optional[str] = flag(
        None,
        "YAML file of flags; the command line overrides it",
        "run",
        resume="free",
        common=True,
    )
    device: str = flag(
        "cpu", "device of the graph:", "run", choices=DEVICES, resume="free", common=True
    )
    resume: bool = flag(
        False,
        "resume from the newest complete checkpoint",
        "run",
        resume="free",
        common=True,
    )
    seed: int = flag(0, "seed of weights, data order and augmentation", "run", low=0, common=True)
    log_device_mapping: bool = flag(
        False, "log the device of each operation", "run", resume="free", common=True
    )

    tfrecords_file_path: str = flag(
        dataclasses.MISSING,
        "directory of *.tfrecords shards from data/mx2tfrecords.py",
        "data",
        resume="free",
        common=True,
    )
    num_output: Optional[int] = flag(
        None,
        "number of identities (default: as in dataset.json)",
        "data",
        low=2,
        common=True,
    )
    image_size: Tuple[int, ...] = flag(
        (112, 112), "height and width of images", "data", low=16, common=True
    )
    batch_size: int = flag(32, "images per step, over all devices", "data", low=1, common=True)
    buffer_size: int = flag(10000, "records in the shuffle buffer", "data", low=1, common=True)
    on_error: str = flag(
        "stop", "at a damaged record:", "data", choices=("stop", "skip"), resume="free"
    )
    max_errors: int = flag(
        100, "damaged records that --on_error skip tolerates", "data", low=0, resume="free"
    )
    augment: str = flag("flip", "augmentation recipe:", "data", choices=tuple(RECIPES), common=True)
    augment_flip: Optional[float] = _probability("a horizontal flip")
    augment_crop: Optional[float] = _probability("a random crop, resized to full size")
    augment_low_resolution: Optional[float] = _probability("downscaling followed by upscaling")
    augment_photometric: Optional[float] = _probability(
        "a change of brightness, contrast and saturation"
    )
    augment_jpeg: Optional[float] = _probability("strong JPEG compression")
    augment_occlusion: Optional[float] = _probability("a one-color rectangle over the face")

    lineage: str = flag(
        "arcface_torch",
        "implementation that the network follows:",
        "net",
        choices=tuple(LINEAGES),
        common=True,
    )
    net_depth: int = flag(
        100, "depth of the network: 10, 18, 34, 50, 100, 152 or 200", "net", low=1, common=True
    )
    block: str = flag("ir", "residual unit:", "net", choices=("ir", "se"), common=True)
    width: float = flag(
        1.0, "multiplier of every layer's channels", "net", above=0.0, high=4.0, common=True
    )
    embedding_size: int = flag(512, "embedding dimension", "net", low=2, common=True)
    dropout: Optional[float] = flag(
        None,
        "dropout rate before the embedding (default: the lineage's)",
        "net",
        low=0.0,
        below=1.0,
    )

    loss: str = flag("arcface", "margin loss:", "loss", choices=LOSS_NAMES, common=True)
    margin: Tuple[float, ...] = flag(
        (), "margins of the loss (default: as published)", "loss", common=True
    )
    scale: Optional[float] = flag(
        None, "scale of the cosines (default: as published)", "loss", above=0.0
    )
    margin_gradient: str = flag(
        "exact", "gradient through the margin:", "loss", choices=MARGIN_GRADIENTS
    )
    past_pi: str = flag(
        "line",
        "target cosine where angle + margin exceeds pi:",
        "loss",
        choices=PAST_PI,
        alias=("beyond",),
    )
    sample_rate: float = flag(
        1.0,
        "fraction of identities per softmax (Partial FC)",
        "loss",
        above=0.0,
        high=1.0,
        common=True,
    )
    sub_centers: int = flag(1, "centers per identity (sub-center ArcFace)", "loss", low=1)
    interclass_filtering_threshold: Optional[float] = flag(
        None,
        "ignore negatives above this cosine (inter-class filtering)",
        "loss",
        above=0.0,
        below=1.0,
    )

    epoch: str = flag(
        "20", "length of the run: epochs, 5000step or 1Mimg", "optimization", common=True
    )
    lr: Optional[float] = flag(
        None,
        "peak learning rate (default: 0.1 x batch_size / 512)",
        "optimization",
        above=0.0,
        common=True,
    )
    schedule: str = flag(
        "piecewise", "learning rate schedule:", "optimization", choices=SCHEDULES, common=True
    )
    lr_steps: Tuple[str, ...] = flag(
        ("40000", "60000", "80000"),
        "steps at which the rate changes, at batch 512",
        "optimization",
        common=True,
    )
    lr_factors: Tuple[float, ...] = flag(
        (1.0, 0.5, 0.3, 0.1),
        "multipliers of --lr between --lr_steps (piecewise)",
        "optimization",
        low=0.0,
    )
    lr_gamma: float = flag(
        0.1, "multiplier at each of --lr_steps (multistep)", "optimization", above=0.0, high=1.0
    )
    warmup: str = flag("0", "length of the linear warmup", "optimization", common=True)
    optimizer: str = flag("momentum", "optimizer:", "optimization", choices=OPTIMIZERS, common=True)
    momentum: float = flag(0.9, "momentum of SGD", "optimization", low=0.0, below=1.0, common=True)
    weight_decay: float = flag(
        5e-4,
        "L2 weight decay",
        "optimization",
        low=0.0,
        alias=("weight_deacy",),
        common=True,
    )
    accumulate: int = flag(
        1, "gradient accumulation steps per batch", "optimization", low=1, common=True
    )
    clip_norm: Optional[float] = flag(
        None, "maximum gradient norm (default: no clipping)", "optimization", above=0.0
    )
    clip: str = flag(
        "all", "gradients whose norm is clipped:", "optimization", choices=("all", "backbone")
    )
    precision: str = flag(
        "fp32",
        "data type of the backbone:",
        "optimization",
        choices=("fp32", "bf16", "fp16"),
        common=True,
    )
    ema: float = flag(
        0.0,
        "EMA decay of the weights; validation uses the averaged weights",
        "optimization",
        low=0.0,
        below=1.0,
    )
    recompute: bool = flag(
        False,
        "recompute activations in the backward pass (gradient checkpointing)",
        "optimization",
    )
    xla: bool = flag(False, "compile the graph with XLA (TensorFlow 2)", "optimization")
    on_nan: str = flag(
        "stop",
        "at a loss or gradient that is not finite:",
        "optimization",
        choices=("stop", "skip"),
        resume="free",
    )
    max_skipped: int = flag(
        30, "consecutive steps that --on_nan skip tolerates", "optimization", low=0, resume="free"
    )
    finetune: Optional[str] = flag(
        None,
        "checkpoint whose backbone the run starts from; the head is new",
        "fine-tuning",
        common=True,
    )
    freeze_backbone: str = flag(
        "0", "duration at the start for which only the head is trained", "fine-tuning"
    )
    backbone_lr_factor: float = flag(
        1.0, "multiplier of the backbone's learning rate", "fine-tuning", low=0.0, high=10.0
    )
    layer_lr_decay: float = flag(
        1.0,
        "multiplier of the learning rate per layer, from the embedding to the input",
        "fine-tuning",
        above=0.0,
        high=1.0,
    )
    lr_factor_of: Tuple[str, ...] = flag(
        (),
        "learning rate multipliers by variable, for example block1/*=0.1; the last match wins",
        "fine-tuning",
    )

    eval_db_path: Optional[str] = flag(
        None,
        "directory of the .bin verification sets",
        "validation",
        resume="free",
        common=True,
    )
    eval_datasets: Tuple[str, ...] = flag(
        ("lfw",),
        "verification sets, by the name of their .bin",
        "validation",
        resume="free",
        common=True,
    )
    eval_batch_size: int = flag(
        64,
        "images per validation step",
        "validation",
        low=1,
        resume="free",
        common=True,
    )
    validate_interval: str = flag(
        "2000",
        "interval of validations",
        "validation",
        resume="free",
        common=True,
    )

    output_path: str = flag(
        "output/run", "directory of the run", "output", resume="free", common=True
    )
    ckpt_path: Optional[str] = flag(
        None,
        "directory of checkpoints (default: <output_path>/ckpt)",
        "output",
        resume="free",
        common=True,
    )
    summary_path: Optional[str] = flag(
        None,
        "directory of TensorBoard events (default: <output_path>/summary)",
        "output",
        resume="free",
        common=True,
    )
    log_file_path: Optional[str] = flag(
        None,
        "directory of logs (default: <output_path>/logs)",
        "output",
        resume="free",
        common=True,
    )
    saver_maxkeep: int = flag(
        100,
        "checkpoints to keep, besides the best",
        "output",
        low=1,
        resume="free",
        common=True,
    )
    ckpt_interval: str = flag(
        "10000",
        "interval of checkpoints",
        "output",
        resume="free",
        common=True,
    )
    summary_interval: str = flag(
        "300", "interval of TensorBoard points", "output", resume="free", common=True
    )
    show_info_interval: str = flag(
        "20",
        "interval of log lines and metrics.jsonl",
        "output",
        resume="free",
        common=True,
    )
    profile: Optional[str] = flag(
        None,
        "FIRST:LAST step to trace; python -m tools.profile RUN prints it",
        "output",
        resume="free",
    )

    peak_tflops: Optional[float] = flag(
        None,
        "peak TFLOP/s of one device, for its utilization (default: looked up for known GPUs)",
        "output",
        above=0.0,
        resume="free",
    )

    def __post_init__(self) -> None:
        if len(self.image_size) != 2:
            raise ValueError(
                f"--image_size {','.join(map(str, self.image_size))} is not a height and a width; "
                "pass two numbers, as in --image_size 112 112."
            )

    @property
    def cluster(self) -> ClusterConfig:
        """The run's devices and hosts."""
        return ClusterConfig()

    def directory(self, name: str) -> str:
        """The directory of a run's files of one kind: ckpt, summary or logs."""
        flags = {"ckpt": self.ckpt_path, "summary": self.summary_path, "logs": self.log_file_path}
        return flags[name] or f"{self.output_path}/{name}"

    def augmentation(self) -> Augmentation:
        """The recipe of --augment with the probabilities of --augment_*."""
        kinds = ("flip", "crop", "low_resolution", "photometric", "jpeg", "occlusion")
        given = {kind: getattr(self, f"augment_{kind}") for kind in kinds}
        return recipe(self.augment, **{kind: v for kind, v in given.items() if v is not None})

    def net_spec(self) -> NetSpec:
        """The network that these flags describe."""
        return NetSpec(
            lineage=self.lineage,
            net_depth=self.net_depth,
            block=self.block,
            width=self.width,
            embedding_size=self.embedding_size,
            image_size=(self.image_size[0], self.image_size[1]),
        )


@dataclasses.dataclass(frozen=True)
class MultiDeviceConfig(TrainConfig):
    """The flags of train_nets_mgpu.py: those of train_nets.py, and the devices and hosts."""

    tfrecords_file_path: Optional[str] = flag(  # type: ignore[assignment]
        None,
        "directory of *.tfrecords shards; not needed for --plan with --num_output",
        "data",
        resume="free",
        common=True,
    )
    num_devices: Optional[int] = flag(
        None,
        "devices of this host (default: all that TensorFlow sees)",
        "devices and hosts",
        low=1,
        resume="free",
        common=True,
    )
    worker_hosts: Tuple[str, ...] = flag(
        (),
        "address:port of every host, in the same order on all (default: this one)",
        "devices and hosts",
        resume="free",
        common=True,
    )
    task_index: Optional[int] = flag(
        None,
        "index of this host in --worker_hosts, from 0",
        "devices and hosts",
        low=0,
        resume="free",
        common=True,
    )
    allow_hosts: Tuple[str, ...] = flag(
        (),
        "addresses or networks that may connect, besides --worker_hosts",
        "devices and hosts",
        resume="free",
    )
    draw_groups: Optional[int] = flag(
        None,
        "groups of identities that --sample_rate samples from, a multiple of the devices; with the "
        "same number the samples do not depend on the devices (default: one per device)",
        "devices and hosts",
        low=1,
        resume="free",
    )
    sync_batch_norm: bool = flag(
        False, "normalize by batch statistics of all devices", "devices and hosts"
    )
    wire: str = flag(
        "fp32",
        "data type of the gradient all-reduce:",
        "devices and hosts",
        choices=("fp32", "bf16", "fp16"),
        resume="free",
    )
    collective_timeout: float = flag(
        60.0,
        "seconds without progress after which a host counts as lost",
        "devices and hosts",
        low=1.0,
        resume="free",
    )
    supervise: bool = flag(
        False,
        "restart when a host was lost",
        "devices and hosts",
        resume="free",
        common=True,
    )
    max_restarts: int = flag(
        10, "maximum restarts by --supervise", "devices and hosts", low=0, resume="free"
    )
    plan: bool = flag(
        False,
        "print memory and communication of each device, and do not train",
        "planning",
        resume="free",
        common=True,
    )
    hosts: int = flag(1, "hosts that --plan assumes", "planning", low=1, resume="free")
    bandwidth: Optional[float] = flag(
        None,
        "Gbit/s between devices, for the step time of --plan",
        "planning",
        above=0.0,
        resume="free",
    )
    images_per_second: Optional[float] = flag(
        None,
        "throughput of one device, for the step time of --plan",
        "planning",
        above=0.0,
        resume="free",
    )
    device_memory: Optional[float] = flag(
        None,
        "GiB of a device, for --plan to compare with",
        "planning",
        above=0.0,
        resume="free",
    )

    @property
    def cluster(self) -> ClusterConfig:
        return ClusterConfig(**{name: getattr(self, name) for name in ClusterConfig._fields})


def adopt_net(config: TrainConfig, spec: NetSpec) -> TrainConfig:
    """The config with the network of a checkpoint, as --finetune wants it: where a flag of the
    network has its default, the checkpoint's value replaces it."""
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    left = [name for name in NET_FLAGS if getattr(config, name) == defaults[name]]
    return dataclasses.replace(config, **{name: getattr(spec, name) for name in left})


def check_resumable(config: TrainConfig, saved: Dict[str, Any], checkpoint: str) -> None:
    """Refuses to resume with flags that would change the run's numbers. A run may become longer
    where the learning rate does not depend on its length."""
    for field in dataclasses.fields(config):
        before = saved.get(field.name, saved.get(FORMER_NAMES.get(field.name, ""), field.default))
        before = tuple(before) if isinstance(before, list) else before
        now = getattr(config, field.name)
        if before != now and not _is_free(field, config):
            raise ValueError(
                f"--resume: {checkpoint} was trained with --{field.name} {before}, but this run "
                f"has {now}. Pass --{field.name} {before}, or another --output_path for a new run."
            )


def _is_free(field: "dataclasses.Field[Any]", config: TrainConfig) -> bool:
    """Whether a resumed run may change the field."""
    if field.name == "epoch":
        return config.schedule not in ("polynomial", "cosine") and not _depends_on_length(config)
    npu_names = {npu_field.name for npu_field in dataclasses.fields(NpuFlags)}
    return field.name in npu_names or field.metadata["resume"] == "free"


def _depends_on_length(config: TrainConfig) -> bool:
    """Whether a duration that changes numbers is a fraction of the run."""
    durations = (config.warmup, config.freeze_backbone) + tuple(config.lr_steps)
    return any(duration.strip().rstrip("s").endswith("run") for duration in durations)
