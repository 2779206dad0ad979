"""A checkpoint and its record: `<prefix>.index`, `.data-…`, and `<prefix>.json` beside them.

The record says what the weights are: step, images_seen, net (a NetSpec), training, dataset,
environment. Whoever reads a checkpoint reads its net from here and is told nothing twice.
"""

import json
import os
import re

from nets.lineages import NetSpec
from nets.weights.layout import describe, differences
from nets.weights.name_maps import canonical, recognise
from runtime.session import session_config
from runtime.tf1 import tf

AVERAGE = "/ExponentialMovingAverage"  # what tf.train.ExponentialMovingAverage names its own
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
    """The NetSpec of a checkpoint: from its record, or for InsightFace_TF's own checkpoints, which
    have none, from the names and shapes of its variables."""
    if os.path.exists(f"{prefix}.json"):
        return NetSpec.from_json(read_record(prefix)["net"])
    shapes = open_checkpoint(prefix).get_variable_to_shape_map()
    spec = recognise(shapes)
    if spec is None:
        raise ValueError(
            f"{prefix}.json is missing, and the checkpoint's variables are not those of a net of "
            "InsightFace_TF; put the .json back beside it."
        )
    return spec


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
    """Fills `variables` from the checkpoint, whose names may be spelled as other TensorLayers did;
    a missing or differently shaped one is a ValueError that lists the first ten."""
    wanted = {variable.op.name: variable for variable in variables}
    stored = stored_names(prefix)
    shapes = {name: variable.shape.as_list() for name, variable in wanted.items()}
    found = {name: shape for name, (_, shape) in stored.items() if name in wanted}
    wrong = differences(shapes, found)
    if wrong:
        raise ValueError(f"{prefix} does not fit the net: {wrong}.{_other_net(prefix)}")
    load(session, prefix, {stored[name][0]: variable for name, variable in wanted.items()})


def stored_names(prefix, averages=True):
    """{name in this repository's spelling: (name in the checkpoint, shape)}. Where a run kept
    moving averages of its weights, they are what it validated, and what is read here.
    averages: False for the last weights themselves."""
    shapes = open_checkpoint(prefix).get_variable_to_shape_map()
    stored = {canonical(name): (name, shape) for name, shape in shapes.items()}
    kept = [name for name in stored if name.endswith(AVERAGE)] if averages else []
    stored.update({name[: -len(AVERAGE)]: stored[name] for name in kept})
    return stored


def load(session, prefix, variables):
    """{name in the checkpoint: variable}, each filled; damage on disk is a ValueError."""
    with session.graph.as_default():
        saver = tf.train.Saver(variables)
    try:
        saver.restore(session, prefix)
    except (tf.errors.OpError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"{prefix} cannot be read, copy it again: {first}") from None


def open_checkpoint(prefix):
    """TensorFlow's reader of a checkpoint that is there and whole enough to open."""
    find_checkpoints(prefix)
    try:
        return tf.train.load_checkpoint(prefix)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"{prefix} is not a readable checkpoint: {first}") from None


def variable_arrays(prefix, names, averages=True):
    """{name: float32 array} of a checkpoint's variables, by this repository's spelling.
    averages: see stored_names."""
    stored, reader = stored_names(prefix, averages), open_checkpoint(prefix)
    missing = [name for name in names if name not in stored]
    if missing:
        raise ValueError(f"{prefix} lacks {len(missing)} variables of its net, first {missing[0]}.")
    try:
        return {name: reader.get_tensor(stored[name][0]) for name in names}
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"{prefix} cannot be read, copy it again: {first}") from None


def save_arrays(prefix, arrays, record):
    """Writes a checkpoint of {variable's name: array} and its record; the record last, so that a
    checkpoint with a record is whole."""
    directory = os.path.dirname(prefix)
    if directory:
        os.makedirs(directory, exist_ok=True)
    with tf.Graph().as_default(), tf.Session(config=session_config("cpu")) as session:
        placeholders = [tf.placeholder(array.dtype, array.shape) for array in arrays.values()]
        save = tf.raw_ops.SaveV2(
            prefix=prefix,
            tensor_names=list(arrays),
            shape_and_slices=[""] * len(arrays),
            tensors=placeholders,
        )
        try:
            session.run(save, dict(zip(placeholders, arrays.values())))
        except tf.errors.OpError as error:
            first = str(error).splitlines()[0]
            raise ValueError(f"{prefix} cannot be written: {first}") from None
    write_record(prefix, record)


def _other_net(prefix):
    found = recognise(open_checkpoint(prefix).get_variable_to_shape_map())
    return f" It looks like {describe(found)}." if found else ""
