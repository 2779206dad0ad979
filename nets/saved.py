"""A checkpoint and its record: `<prefix>.index`, `.data-…`, and `<prefix>.json` beside them.

The record says what the weights are: step, images_seen, net (a NetSpec), training, dataset,
environment. Whoever reads a checkpoint reads its net from here and is told nothing twice.
"""

import json
import os
import re

from nets.lineages import NetSpec
from runtime.tf1 import tf

STEP = re.compile(r"_(\d+)\.ckpt$")


def write_record(prefix, record):
    """Writes `<prefix>.json`, whole or not at all."""
    beside = f"{prefix}.json.tmp"
    with open(beside, "w", encoding="utf-8") as stream:
        json.dump(record, stream, indent=1, sort_keys=True)
        stream.write("\n")
    os.replace(beside, f"{prefix}.json")


def read_record(prefix):
    """The record beside a checkpoint."""
    path = f"{prefix}.json"
    if not os.path.exists(path):
        raise ValueError(f"{path} is missing, so the checkpoint does not say which net it holds.")
    with open(path, encoding="utf-8") as stream:
        try:
            record = json.load(stream)
        except ValueError:
            raise ValueError(f"{path} is not JSON; restore it from the run's copy.") from None
    if not isinstance(record, dict) or not isinstance(record.get("net"), dict):
        raise ValueError(f'{path} has no "net" entry, so it does not say which net it holds.')
    return record


def spec_of(prefix):
    """The NetSpec of a checkpoint, from its record."""
    return NetSpec.from_json(read_record(prefix)["net"])


def find_checkpoints(path):
    """A directory -> the prefixes of all its checkpoints by step; a prefix -> itself alone."""
    if os.path.isdir(path):
        names = [name[: -len(".index")] for name in os.listdir(path) if name.endswith(".index")]
        found = sorted((step_of(name), name) for name in names)
        if not found:
            raise ValueError(f"{path} holds no checkpoint (no .index file); train first.")
        return [os.path.join(path, name) for _, name in found]
    prefix = path[: -len(".index")] if path.endswith(".index") else path
    if not os.path.exists(f"{prefix}.index"):
        raise ValueError(
            f"{path} names no checkpoint: there is no {prefix}.index; pass the path up to .ckpt."
        )
    return [prefix]


def step_of(prefix):
    """The step in a checkpoint's name; -1 where it has none."""
    found = STEP.search(os.path.basename(prefix))
    return int(found.group(1)) if found else -1


def restore(session, prefix, variables):
    """Fills `variables` from the checkpoint; a missing or differently shaped one is a ValueError
    that lists the first ten."""
    shapes = open_checkpoint(prefix).get_variable_to_shape_map()
    wrong = [
        f"{v.op.name} ({'missing' if v.op.name not in shapes else shapes[v.op.name]})"
        for v in variables
        if shapes.get(v.op.name) != v.shape.as_list()
    ]
    if wrong:
        raise ValueError(
            f"{prefix} does not fit the net: {len(wrong)} of {len(variables)} variables differ: "
            f"{', '.join(wrong[:10])}."
        )
    try:
        tf.train.Saver(variables).restore(session, prefix)
    except tf.errors.OpError as error:
        raise ValueError(f"{prefix} cannot be read: {error.message.splitlines()[0]}.") from None


def open_checkpoint(prefix):
    """TensorFlow's reader of a checkpoint that is there and whole enough to open."""
    find_checkpoints(prefix)
    try:
        return tf.train.load_checkpoint(prefix)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"{prefix} is not a readable checkpoint: {first}") from None
