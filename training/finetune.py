"""The backbone of another run as the start of this one; its head stays behind."""

import logging

from nets.saved import load, stored_names

SHOWN = 5  # names of each kind in the log


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
