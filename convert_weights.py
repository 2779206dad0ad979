"""Converts weights of other projects to a checkpoint, and a checkpoint to their files.

    python convert_weights.py --lineage arcface_torch --net_depth 50 --source model.pt \\
        --ckpt_file output/r50/ckpt/InsightFace_iter_0.ckpt
    python convert_weights.py --ckpt_file output/r50/ckpt/InsightFace_iter_0.ckpt \\
        --to arcface_torch model.npz
"""

import dataclasses
import os
from typing import List, Optional, Sequence, Tuple

from nets.lineages import LINEAGES, Lineage, NetSpec
from runtime.cli import run
from runtime.flags import flag, parse_flags


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    ckpt_file: str = flag(
        dataclasses.MISSING, "the checkpoint's prefix: written from --source, read for --to"
    )
    source: Optional[str] = flag(
        None, "the file to read: .pth, .pt, .ckpt, .bin, .safetensors, .npz or MXNet's .params"
    )
    to: Tuple[str, ...] = flag(
        (),
        "write --ckpt_file in a lineage's own format: the lineage, then a .npz, .safetensors or "
        ".pth file",
    )
    lineage: str = flag("arcface_torch", "lineage of the source", choices=tuple(LINEAGES))
    net_depth: int = flag(100, "depth of the source's net")
    se: bool = flag(False, "the source has squeeze-excitation")
    width: float = flag(1.0, "scale of every layer's channels", above=0, high=4)
    embedding_size: int = flag(512, "embedding dimension", low=1)
    image_size: Tuple[int, ...] = flag((112, 112), "height and width of the images")


def main(argv: Optional[Sequence[str]] = None) -> None:
    config = parse_flags(ConvertConfig, argv, __doc__.splitlines()[0])
    if bool(config.source) == bool(config.to):
        raise ValueError(
            "Pass either --source FILE to make a checkpoint, or --to LINEAGE FILE to write one out."
        )
    if config.to:
        export(config.ckpt_file, config.to)
    else:
        convert(config)


def convert(config: ConvertConfig) -> None:
    """The source's weights -> a checkpoint; nothing is written where anything does not fit."""
    from checkpoint.writer import save_arrays  # here: --help and its mistakes need no TensorFlow
    from nets.build import variable_shapes
    from nets.weights.files import read_tensors
    from nets.weights.layout import COUNTERS, arrays_of, describe
    from runtime.tf1 import VERSION

    block = "se" if config.se else "ir"
    spec = NetSpec(
        lineage=config.lineage,
        net_depth=config.net_depth,
        block=block,
        width=config.width,
        embedding_size=config.embedding_size,
        image_size=config.image_size,
    )
    tensors = read_tensors(config.source)
    arrays, skipped = arrays_of(tensors, spec, variable_shapes(spec), config.source)
    record = {
        "step": 0,
        "images_seen": 0,
        "net": spec.to_json(),
        "training": {},
        "dataset": {},
        "environment": {"tensorflow": VERSION, "source": os.path.basename(config.source)},
    }
    save_arrays(config.ckpt_file, arrays, record)
    print(f"{config.ckpt_file}: {len(arrays)} variables of {describe(spec)}.")
    counters = [name for name in skipped if COUNTERS.match(name)]
    heads = [name for name in skipped if name not in counters]
    if counters:
        print(f"Skipped {len(counters)} batch counters (num_batches_tracked).")
    if heads:
        print(f"Skipped class weights: {', '.join(heads)}.")


def export(ckpt_file: str, to: Sequence[str]) -> None:
    """A checkpoint -> a weight file with the names and layouts of its lineage's own project."""
    from checkpoint.reader import spec_of, variable_arrays
    from nets.build import variable_shapes
    from nets.weights.files import check_writable, write_tensors
    from nets.weights.layout import describe, tensors_of

    if len(to) != 2:
        raise ValueError("--to takes a lineage and a file, as in --to arcface_torch model.npz.")
    lineage, path = to
    check_writable(path)
    spec = spec_of(ckpt_file)
    if lineage not in LINEAGES:
        raise ValueError(f"--to {lineage} is not known; choose one of {', '.join(LINEAGES)}.")
    if lineage != spec.lineage:
        raise ValueError(
            f"{ckpt_file} holds a net of lineage {spec.lineage}, which differs from {lineage} in "
            f"{', '.join(_differing(spec.lineage, lineage))}; pass --to {spec.lineage}."
        )
    tensors = tensors_of(variable_arrays(ckpt_file, list(variable_shapes(spec))), spec)
    write_tensors(path, tensors)
    print(f"{path}: {len(tensors)} tensors of {describe(spec)}.")


def _differing(one: str, other: str) -> List[str]:
    """The fields in which two lineages differ as networks."""
    fields = (field.name for field in dataclasses.fields(Lineage))
    inert = ("name", "source", "checked", "conv_init", "dense_init", "decays", "dropout", "scopes")
    return [
        f
        for f in fields
        if f not in inert and getattr(LINEAGES[one], f) != getattr(LINEAGES[other], f)
    ]


if __name__ == "__main__":
    run(main)
