"""Fine-tuning: the backbone of another run as the start, and each layer's learning rate."""

import fnmatch
import logging
import re
from typing import Callable, Dict, List, Sequence, Set, Tuple

from checkpoint.format import find_checkpoints
from checkpoint.reader import load, spec_of, stored_names
from runtime.tf1 import tf
from runtime.variables import plain_name
from training.config import TrainConfig, adopt_net
from training.graph.settings import UpdateSettings

SHOWN = 5  # names of each kind in the log
_UNIT = re.compile(r".*/unit_\d+(?=/)")


def start_from(session: tf.Session, prefix: str, backbone: Sequence[tf.Variable]) -> Set[str]:
    """Restores each variable of `backbone` that the checkpoint has in the same shape; returns their
    names, and logs which were not restored and which of the checkpoint are not used."""
    stored, wanted = stored_names(prefix), backbone
    taken = {
        stored[v.op.name][0]: v
        for v in wanted
        if v.op.name in stored and list(stored[v.op.name][1]) == v.shape.as_list()
    }
    if not taken:
        raise ValueError(
            f"--finetune {prefix} has none of this network's {len(wanted)} variables; it is of "
            "another --lineage or --net_depth."
        )
    load(session, prefix, taken)
    names = {v.op.name for v in taken.values()}
    missing = sorted({v.op.name for v in wanted} - names)
    left = sorted(name for name in stored if name not in names)
    logging.info("fine-tuning from %s: %d variables restored", prefix, len(names))
    _log_names("initialized, as the checkpoint lacks them or has another shape", missing)
    _log_names("of the checkpoint not used", left)
    return names


def _log_names(what: str, names: List[str]) -> None:
    if names:
        more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        logging.info("%d variables %s: %s%s", len(names), what, ", ".join(names[:SHOWN]), more)


def adopt_net_of(config: TrainConfig) -> TrainConfig:
    """With --finetune: the config with the network of that checkpoint, where its flags have their
    defaults. A checkpoint without a record that names its network changes nothing."""
    if not config.finetune:
        return config
    prefix = find_checkpoints(config.finetune)[-1]
    try:
        spec = spec_of(prefix)
    except ValueError:
        return config
    adopted = adopt_net(config, spec)
    if adopted != config:
        logging.info("--finetune: the network is that of %s", prefix)
    return adopted


def rate_factors(
    update: UpdateSettings, backbone: Sequence[tf.Variable]
) -> Callable[[tf.Variable], float]:
    """variable -> the multiplier of its learning rate: 1 for the head; for the backbone
    backbone_lr_factor times layer_lr_decay once for each layer between it and the embedding.
    A pattern of lr_factor_of that matches overrides it."""
    trained = [variable for variable in backbone if variable.trainable]
    found: Dict[int, float] = {}
    depth = update.backbone_lr_factor
    for layer in reversed(layers(trained)):
        found.update((id(variable), depth) for variable in layer)
        depth *= update.layer_lr_decay
    chosen = patterns(update.lr_factor_of, [plain_name(variable.op.name) for variable in trained])

    def factor(variable: tf.Variable) -> float:
        matching = [value for pattern, value in chosen if _matches(variable.op.name, pattern)]
        return matching[-1] if matching else found.get(id(variable), 1.0)

    return factor


def layers(variables: Sequence[tf.Variable]) -> List[List[tf.Variable]]:
    """A net's variables in the order of their creation -> lists of them, from the image to the
    embedding: a residual unit is one layer, and so is each other weight with what follows it."""
    found: List[List[tf.Variable]] = []
    last = None
    for variable in variables:
        name = plain_name(variable.op.name)
        unit = _UNIT.match(name)
        key = unit and unit.group()
        if not found or (key != last if key else name.split("/")[-1] in ("W_conv2d", "W")):
            found.append([])
        found[-1].append(variable)
        last = key
    return found


def patterns(flags: Sequence[str], names: List[str]) -> List[Tuple[str, float]]:
    """--lr_factor_of -> [(pattern, factor)]; a ValueError for one that is no `pattern=factor` or
    matches none of the backbone's names."""
    found = []
    for word in flags:
        pattern, _, number = word.rpartition("=")
        try:
            factor = float(number)
        except ValueError:
            factor = -1.0
        if not pattern or not 0.0 <= factor <= 100.0:
            raise ValueError(
                f"--lr_factor_of {word} is not pattern=factor with a factor from 0 to 100; write "
                "for example block1/*=0.1."
            )
        if not any(_matches(name, pattern) for name in names + ["class_centres"]):
            raise ValueError(
                f"--lr_factor_of {word} matches no variable of this network; they are named like "
                f"{names[0]} and {names[-1]}."
            )
        found.append((pattern, factor))
    return found


def _matches(name: str, pattern: str) -> bool:
    name = plain_name(name)
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"*/{pattern}")
