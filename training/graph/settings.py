"""The values that a training graph is built from, by the part of the graph that reads them."""

from typing import NamedTuple, Optional, Tuple

from losses.class_centres import HeadConfig
from nets.lineages import NetSpec
from runtime.device import strategy
from training.config import TrainConfig
from training.graph.schedule import RateSettings, default_rate


class BackboneSettings(NamedTuple):
    """The network, and how its activations are computed."""

    spec: NetSpec
    dropout: Optional[float]  # rate before the embedding; None: the lineage's own
    precision: str  # fp32, bf16 or fp16
    recompute: bool  # recompute activations in the backward pass
    sync_batch_norm: bool  # normalise by the statistics of all ranks
    ema: float  # decay of the averaged weights; 0: none


class UpdateSettings(NamedTuple):
    """The optimizer, and what happens to gradients before it."""

    optimizer: str
    momentum: float
    weight_decay: float
    clip_norm: Optional[float]  # None: not clipped
    clip: str  # whose norm: all or backbone
    wire: str  # data type of the gradient all-reduce
    loss_scaling: bool  # scale the backbone's gradients, as half precision needs
    mask_loss: bool  # a step without update has the loss NaN, on devices without text
    frozen_steps: int  # first steps that train the head alone
    backbone_lr_factor: float
    layer_lr_decay: float
    lr_factor_of: Tuple[str, ...]


class StepSettings(NamedTuple):
    """Everything that build_step reads."""

    backbone: BackboneSettings
    head: HeadConfig
    rates: RateSettings
    update: UpdateSettings
    seed: int
    accumulate: int  # gradient accumulation steps per batch
    eval_batch_size: int  # images of a rank


def step_settings(
    config: TrainConfig,
    identities: int,
    rates: Optional[RateSettings] = None,
    frozen_steps: int = 0,
) -> StepSettings:
    """The settings of a config's graph. identities: of the head. rates: by default a constant
    learning rate, for a graph that is built without a run."""
    if rates is None:
        rates = RateSettings(peak_rate=config.lr or default_rate(config.batch_size))
    return StepSettings(
        backbone=_backbone(config),
        head=_head(config, identities),
        rates=rates,
        update=_update(config, frozen_steps),
        seed=config.seed,
        accumulate=config.accumulate,
        eval_batch_size=config.eval_batch_size,
    )


def _backbone(config: TrainConfig) -> BackboneSettings:
    return BackboneSettings(
        spec=config.net_spec(),
        dropout=config.dropout,
        precision=config.precision,
        recompute=config.recompute,
        sync_batch_norm=config.cluster.sync_batch_norm,
        ema=config.ema,
    )


def _head(config: TrainConfig, identities: int) -> HeadConfig:
    return HeadConfig(
        identities=identities,
        loss=config.loss,
        margin=config.margin,
        scale=config.scale,
        past_pi=config.past_pi,
        margin_gradient=config.margin_gradient,
        sample_rate=config.sample_rate,
        draw_groups=config.cluster.draw_groups,
        sub_centers=config.sub_centers,
        interclass_filtering_threshold=config.interclass_filtering_threshold,
        seed=config.seed,
        check_finite=False,  # NonFiniteGuard reports what is not finite, and for which images
    )


def _update(config: TrainConfig, frozen_steps: int) -> UpdateSettings:
    device = strategy(config.device)
    loss_scaling = device.needs_loss_scale(config)
    return UpdateSettings(
        optimizer=config.optimizer,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
        clip=config.clip,
        wire=config.cluster.wire,
        loss_scaling=loss_scaling,
        mask_loss=not device.has_text and not loss_scaling and config.on_nan == "stop",
        frozen_steps=frozen_steps,
        backbone_lr_factor=config.backbone_lr_factor,
        layer_lr_decay=config.layer_lr_decay,
        lr_factor_of=config.lr_factor_of,
    )
