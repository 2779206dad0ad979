"""The backbone of another run as the start of this one, and how fast each of its layers moves."""

import fnmatch
import logging
import re

from checkpoint.reader import load, stored_names
from runtime.variables import plain_name

SHOWN = 5  # names of each kind in the log
_UNIT = re.compile(r".*/unit_\d+(?=/)")


def start_from(session, prefix, backbone):
    """Fills each variable of `backbone` that the checkpoint has in the same shape, and says which
    were restored, which the run starts anew, and which the checkpoint has and nobody took."""
    stored, wanted = stored_names(prefix), backbone
    taken = {
        stored[v.op.name][0]: v
        for v in wanted
        if v.op.name in stored and list(stored[v.op.name][1]) == v.shape.as_list()
    }
    if not taken:
        raise ValueError(
            f"--finetune {prefix} holds none of this net's {len(wanted)} variables; it is of "
            "another --lineage or --net_depth."
        )
    load(session, prefix, taken)
    names = {v.op.name for v in taken.values()}
    missing = sorted({v.op.name for v in wanted} - names)
    left = sorted(name for name in stored if name not in names)
    logging.info("finetuning from %s: %d variables restored", prefix, len(names))
    _say("start anew, as the checkpoint lacks them or has another shape", missing)
    _say("stay behind in the checkpoint", left)
    return names


def _say(what, names):
    if names:
        more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        logging.info("%d variables %s: %s%s", len(names), what, ", ".join(names[:SHOWN]), more)


def rate_factors(config, backbone):
    """variable -> the factor on its learning rate: 1 for the head; for the backbone
    --backbone_lr_factor times --layer_lr_decay once for each layer between it and the embedding.
    --lr_factor_of says otherwise where its pattern fits."""
    trained = [variable for variable in backbone if variable.trainable]
    found, depth = {}, config.backbone_lr_factor
    for layer in reversed(layers(trained)):
        found.update((id(variable), depth) for variable in layer)
        depth *= config.layer_lr_decay
    chosen = patterns(config.lr_factor_of, [plain_name(variable.op.name) for variable in trained])

    def factor(variable):
        fitting = [number for pattern, number in chosen if _fits(variable.op.name, pattern)]
        return fitting[-1] if fitting else found.get(id(variable), 1.0)

    return factor


def layers(variables):
    """A net's variables in the order in which it makes them -> lists of them, from the image to the
    embedding: a residual unit is one layer, and so is each other weight with what follows it."""
    found, last = [], None
    for variable in variables:
        name = plain_name(variable.op.name)
        unit = _UNIT.match(name)
        key = unit and unit.group()
        if not found or (key != last if key else name.split("/")[-1] in ("W_conv2d", "W")):
            found.append([])
        found[-1].append(variable)
        last = key
    return found


def patterns(said, names):
    """--lr_factor_of -> [(pattern, factor)]; one that is no `pattern=factor`, or fits none of the
    backbone's names, ends here."""
    found = []
    for word in said:
        pattern, _, number = word.rpartition("=")
        try:
            factor = float(number)
        except ValueError:
            factor = -1.0
        if not pattern or not 0.0 <= factor <= 100.0:
            raise ValueError(
                f"--lr_factor_of {word} is no pattern=factor with a factor from 0 to 100; write "
                "for example block1/*=0.1."
            )
        if not any(_fits(name, pattern) for name in names + ["class_centres"]):
            raise ValueError(
                f"--lr_factor_of {word} fits no variable of this net, which are named like "
                f"{names[0]} and {names[-1]}."
            )
        found.append((pattern, factor))
    return found


def _fits(name, pattern):
    name = plain_name(name)
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"*/{pattern}")
