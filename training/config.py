"""What a run is told: one frozen dataclass whose fields are the flags of train_nets.py."""

import dataclasses
from typing import Optional, Tuple

from data.pipeline.augment import RECIPES, recipe
from losses.face_losses import LOSSES, MARGIN_GRADIENTS, PAST_PI
from nets.lineages import LINEAGES, NetSpec
from runtime.flags import flag
from runtime.npu.options import TYPED, NpuFlags
from runtime.session import DEVICES
from training.graph.optimizer import OPTIMIZERS
from training.graph.schedule import SCHEDULES

# Fields that a resumed run may change: they move or slow the run, they do not change its numbers.
FREE_ON_RESUME = {
    "config",
    "device",
    "num_devices",
    "worker_hosts",
    "task_index",
    "allow_hosts",
    "draw_groups",
    "wire",
    "collective_timeout",
    "supervise",
    "max_restarts",
    "plan",
    "hosts",
    "bandwidth",
    "images_per_second",
    "device_memory",
    "resume",
    "output_path",
    "summary_path",
    "ckpt_path",
    "log_file_path",
    "tfrecords_file_path",
    "eval_db_path",
    "eval_datasets",
    "eval_batch_size",
    "saver_maxkeep",
    "on_error",
    "max_errors",
    "on_nan",
    "max_skipped",
    "log_device_mapping",
    "summary_interval",
    "ckpt_interval",
    "validate_interval",
    "show_info_interval",
    "profile",
    "cann",
    "npu_option",
} | set(TYPED)


def _share(what):
    """The flag of one kind of augmentation."""
    help = f"share of images with {what} (default: as --augment says)"
    return flag(None, help, "data", low=0.0, high=1.0)


@dataclasses.dataclass(frozen=True)
class TrainConfig(NpuFlags):
    """Every field is a flag, is read somewhere, and is saved beside each checkpoint."""

    config: Optional[str] = flag(None, "YAML file of flags; the command line wins over it", "run")
    device: str = flag("cpu", "where the graph runs:", "run", choices=DEVICES)
    resume: bool = flag(False, "go on from the newest whole checkpoint in --ckpt_path", "run")
    seed: int = flag(0, "seed of weights, data order and augmentation", "run", low=0)
    log_device_mapping: bool = flag(False, "log the device of each operation", "run")

    tfrecords_file_path: str = flag(
        dataclasses.MISSING, "directory of *.tfrecords shards from data/mx2tfrecords.py", "data"
    )
    num_output: Optional[int] = flag(
        None, "identities to classify (default: as dataset.json says)", "data", low=2
    )
    image_size: Tuple[int, ...] = flag((112, 112), "height and width of images", "data", low=16)
    batch_size: int = flag(32, "images a step", "data", low=1)
    buffer_size: int = flag(10000, "records that are shuffled at a time", "data", low=1)
    on_error: str = flag("stop", "at a damaged record:", "data", choices=("stop", "skip"))
    max_errors: int = flag(100, "damaged records before --on_error skip stops too", "data", low=0)
    augment: str = flag("flip", "what is done to training images:", "data", choices=tuple(RECIPES))
    augment_flip: Optional[float] = _share("left and right exchanged")
    augment_crop: Optional[float] = _share("a window of it, brought back to full size")
    augment_low_resolution: Optional[float] = _share("shrunk and enlarged again")
    augment_photometric: Optional[float] = _share("brightness, contrast and saturation")
    augment_jpeg: Optional[float] = _share("compressed hard")
    augment_occlusion: Optional[float] = _share("a rectangle in one colour over it")

    lineage: str = flag("arcface_torch", "whose network exactly:", "net", choices=tuple(LINEAGES))
    net_depth: int = flag(100, "depth of the network: 18, 34, 50, 100, 152 or 200", "net", low=1)
    block: str = flag("ir", "residual unit:", "net", choices=("ir", "se"))
    width: float = flag(1.0, "factor on every layer's channels", "net", above=0.0, high=4.0)
    embedding_size: int = flag(512, "numbers in an embedding", "net", low=2)
    dropout: Optional[float] = flag(
        None,
        "share dropped before the embedding (default: the lineage's)",
        "net",
        low=0.0,
        below=1.0,
    )

    loss: str = flag("arcface", "margin loss:", "loss", choices=tuple(LOSSES))
    margin: Tuple[float, ...] = flag(
        (), "margin, or the loss's several (default: as published for the loss)", "loss"
    )
    scale: Optional[float] = flag(
        None, "scale of the cosines (default: as published for the loss)", "loss", above=0.0
    )

    margin_gradient: str = flag(
        "exact", "gradient through the margin:", "loss", choices=MARGIN_GRADIENTS
    )
    beyond: str = flag(
        "line", "the target's cosine where angle + margin passes pi:", "loss", choices=PAST_PI
    )
    sample_rate: float = flag(
        1.0,
        "share of identities that a step's softmax reads (Partial FC)",
        "loss",
        above=0.0,
        high=1.0,
    )
    sub_centers: int = flag(1, "centres of an identity; the nearest counts", "loss", low=1)
    interclass_filtering_threshold: Optional[float] = flag(
        None, "wrong identities nearer than this cosine do not count", "loss", above=0.0, below=1.0
    )

    epoch: str = flag("20", "how long to train: epochs, or 5000step, or 1Mimg", "optimisation")
    lr: Optional[float] = flag(
        None,
        "learning rate at its highest (default: 0.1 x batch_size / 512)",
        "optimisation",
        above=0.0,
    )
    schedule: str = flag(
        "piecewise", "course of the learning rate:", "optimisation", choices=SCHEDULES
    )
    lr_steps: Tuple[str, ...] = flag(
        ("40000", "60000", "80000"),
        "where the rate changes; plain numbers are steps at batch 512, rescaled to the batch",
        "optimisation",
    )
    lr_factors: Tuple[float, ...] = flag(
        (1.0, 0.5, 0.3, 0.1),
        "share of --lr between --lr_steps (piecewise)",
        "optimisation",
        low=0.0,
    )
    lr_gamma: float = flag(
        0.1, "factor at each of --lr_steps (multistep)", "optimisation", above=0.0, high=1.0
    )
    warmup: str = flag("0", "linear rise of the learning rate at the start", "optimisation")
    optimizer: str = flag("momentum", "rule of the update:", "optimisation", choices=OPTIMIZERS)
    momentum: float = flag(0.9, "momentum of SGD", "optimisation", low=0.0, below=1.0)
    weight_decay: float = flag(
        5e-4, "L2 decay of the weights", "optimisation", low=0.0, alias=("weight_deacy",)
    )

    accumulate: int = flag(
        1, "parts that a batch is computed in, one after the other", "optimisation", low=1
    )
    clip_norm: Optional[float] = flag(
        None, "largest norm of a step's gradients (default: not clipped)", "optimisation", above=0.0
    )
    clip: str = flag("all", "whose norm is clipped:", "optimisation", choices=("all", "backbone"))
    precision: str = flag(
        "fp32", "of the backbone's arithmetic:", "optimisation", choices=("fp32", "bf16", "fp16")
    )
    ema: float = flag(
        0.0,
        "share of the old in a moving average of the weights, which then is validated",
        "optimisation",
        low=0.0,
        below=1.0,
    )
    recompute: bool = flag(False, "make activations again instead of keeping them", "optimisation")
    xla: bool = flag(False, "compile the graph with XLA (TensorFlow 2)", "optimisation")
    on_nan: str = flag(
        "stop", "at a loss or gradient that is no number:", "optimisation", choices=("stop", "skip")
    )
    max_skipped: int = flag(
        30,
        "steps in a row that --on_nan skip leaves out before it stops too",
        "optimisation",
        low=0,
    )
    finetune: Optional[str] = flag(
        None, "checkpoint whose backbone the run starts from; the head starts anew", "finetuning"
    )
    freeze_backbone: str = flag("0", "how long the head trains alone at the start", "finetuning")
    backbone_lr_factor: float = flag(
        1.0, "factor on the backbone's learning rate", "finetuning", low=0.0, high=10.0
    )
    layer_lr_decay: float = flag(
        1.0,
        "factor on the learning rate from each layer to the one before it, down from the embedding",
        "finetuning",
        above=0.0,
        high=1.0,
    )
    lr_factor_of: Tuple[str, ...] = flag(
        (), "factors by variable, as in block1/*=0.1; the last that fits counts", "finetuning"
    )

    eval_db_path: Optional[str] = flag(
        None, "directory of the .bin verification sets", "validation"
    )
    eval_datasets: Tuple[str, ...] = flag(
        ("lfw",), "verification sets, by the name of their .bin", "validation"
    )
    eval_batch_size: int = flag(64, "images a step when validating", "validation", low=1)
    validate_interval: str = flag(
        "2000", "between validations: steps, 0.5ep or 1Mimg", "validation"
    )

    output_path: str = flag("output/run", "directory of the run", "output")
    ckpt_path: Optional[str] = flag(None, "checkpoints (default: <output_path>/ckpt)", "output")
    summary_path: Optional[str] = flag(
        None, "TensorBoard events (default: <output_path>/summary)", "output"
    )
    log_file_path: Optional[str] = flag(None, "logs (default: <output_path>/logs)", "output")
    saver_maxkeep: int = flag(100, "checkpoints kept, the best apart", "output", low=1)
    ckpt_interval: str = flag("10000", "between checkpoints: steps, 0.5ep or 1Mimg", "output")
    summary_interval: str = flag("300", "between TensorBoard points", "output")
    show_info_interval: str = flag("20", "between lines of metrics.jsonl", "output")
    profile: Optional[str] = flag(
        None, "FIRST:LAST step to trace; python -m training.hooks.profiler RUN reads it", "output"
    )

    # Fields of train_nets_mgpu.py that train_nets.py lacks: see MultiDeviceConfig.
    num_devices, worker_hosts, task_index, allow_hosts = 1, (), None, ()
    wire, sync_batch_norm, collective_timeout, draw_groups = "fp32", False, 60.0, None

    def __post_init__(self):
        if len(self.image_size) != 2:
            raise ValueError(
                f"--image_size {','.join(map(str, self.image_size))} is not a height and a width; "
                "pass two numbers, as in --image_size 112 112."
            )

    def directory(self, name):
        """Where a run's files of one kind go; `name` is ckpt, summary or logs."""
        said = {"ckpt": self.ckpt_path, "summary": self.summary_path, "logs": self.log_file_path}
        return said[name] or f"{self.output_path}/{name}"

    def augmentation(self):
        """The recipe, with the shares that were said in place of its own."""
        kinds = ("flip", "crop", "low_resolution", "photometric", "jpeg", "occlusion")
        said = {kind: getattr(self, f"augment_{kind}") for kind in kinds}
        return recipe(self.augment, **{kind: v for kind, v in said.items() if v is not None})

    def net_spec(self):
        """The net that these flags describe."""
        return NetSpec(
            lineage=self.lineage,
            net_depth=self.net_depth,
            block=self.block,
            width=self.width,
            embedding_size=self.embedding_size,
            image_size=tuple(self.image_size),
        )


@dataclasses.dataclass(frozen=True)
class MultiDeviceConfig(TrainConfig):
    """What a run on several devices is told besides."""

    tfrecords_file_path: Optional[str] = flag(
        None, "directory of *.tfrecords shards; --plan with --num_output needs none", "data"
    )
    num_devices: Optional[int] = flag(
        None, "devices of this host (default: all that TensorFlow sees)", "ranks", low=1
    )
    worker_hosts: Tuple[str, ...] = flag(
        (), "address:port of every host, in the same order on all (default: this one)", "ranks"
    )
    task_index: Optional[int] = flag(
        None, "which of --worker_hosts this one is, from 0", "ranks", low=0
    )
    allow_hosts: Tuple[str, ...] = flag(
        (), "addresses or networks that this host's port answers, besides --worker_hosts", "ranks"
    )
    draw_groups: Optional[int] = flag(
        None,
        "groups of identities that --sample_rate draws from, a multiple of the ranks; the same "
        "number draws the same on any number of ranks (default: one for each rank)",
        "ranks",
        low=1,
    )
    sync_batch_norm: bool = flag(
        False, "normalise by the statistics of all ranks' images, not each rank's", "ranks"
    )
    wire: str = flag(
        "fp32", "in which gradients travel:", "ranks", choices=("fp32", "bf16", "fp16")
    )
    collective_timeout: float = flag(
        60.0, "seconds to wait for a host that has stopped, before ending", "ranks", low=1.0
    )
    supervise: bool = flag(False, "start again by itself when a host was lost", "ranks")
    max_restarts: int = flag(10, "how often --supervise starts again", "ranks", low=0)
    plan: bool = flag(
        False, "print what each rank needs, and what travels, and do not train", "ranks"
    )
    hosts: int = flag(1, "how many hosts --plan reckons with", "ranks", low=1)
    bandwidth: Optional[float] = flag(
        None, "Gbit/s between ranks, for the step's time in --plan", "ranks", above=0.0
    )
    images_per_second: Optional[float] = flag(
        None, "of one device by itself, for the step's time in --plan", "ranks", above=0.0
    )
    device_memory: Optional[float] = flag(
        None, "GiB of a device, for --plan to say whether it is enough", "ranks", above=0.0
    )


def check_resumable(config, saved, checkpoint):
    """Ends a resume whose flags would change the numbers of the run that is resumed. A run may be
    made longer where the learning rate does not know its end."""
    to_the_end = config.schedule in ("polynomial", "cosine")
    for field in dataclasses.fields(config):
        then, now = saved.get(field.name, field.default), getattr(config, field.name)
        then = tuple(then) if isinstance(then, list) else then
        free = field.name in FREE_ON_RESUME or (field.name == "epoch" and not to_the_end)
        if not free and then != now:
            raise ValueError(
                f"--resume: {checkpoint} was trained with --{field.name} {then}, and this run says "
                f"{now}; pass --{field.name} {then}, or another --output_path for another run."
            )
