"""Checks of an Ascend machine before a session: its driver, a free card, a consistent environment.

One process drives one card; the RANK_* variables name its rank."""

import os
import re
import tempfile
from typing import Any, List, Mapping, Optional, Tuple

from runtime.distributed.ranks import Ranks
from runtime.npu import rank_table

NODES = "NPU_DEVICE_NODES"  # where the driver's device files are, if not in /dev
_HELD: List[Tuple[int, Any]] = []  # locks on cards, which live as long as the process


def size(environ: Mapping[str, str]) -> int:
    """How many cards take part: RANK_SIZE."""
    return _number(environ, "RANK_SIZE", "1", low=1)


def ranks(environ: Mapping[str, str]) -> Ranks:
    """The environment of this process -> Ranks: one card of its own among RANK_SIZE."""
    cards = size(environ)
    if environ.get("CM_WORKER_SIZE") and (
        environ.get("RANK_TABLE_FILE") or environ.get("RANK_SIZE")
    ):
        raise ValueError(
            "CM_WORKER_SIZE and RANK_TABLE_FILE or RANK_SIZE both say how many cards there are; "
            "unset the CM_* variables."
        )
    table = environ.get("RANK_TABLE_FILE", "")
    if cards == 1:
        if table:
            raise ValueError(
                f"RANK_TABLE_FILE is {table} and RANK_SIZE is 1: a rank table would start HCCL for "
                "one card; unset it, or start with --num_devices."
            )
        return Ranks(kind="NPU")
    for name in ("RANK_ID", "RANK_TABLE_FILE"):
        if not environ.get(name):
            raise ValueError(
                f"RANK_SIZE is {cards} and {name} is not set; start with train_nets_mgpu.py "
                "--device npu --num_devices, which sets it."
            )
    rank = _number(environ, "RANK_ID", None, low=0)
    if rank >= cards:
        raise ValueError(f"RANK_ID is {rank} and RANK_SIZE {cards}: it must be below that.")
    assert table is not None  # checked above
    rank_table.check(table, environ)
    return Ranks(host=rank, kind="NPU", cards=cards)


def take_card(environ: Mapping[str, str], session_device_id: Optional[int] = None) -> None:
    """Ends with a sentence where there is no driver, no such card, or another process on it."""
    card = card_of(environ, session_device_id)
    nodes = environ.get(NODES, "/dev")
    found = _cards(nodes)
    if not found:
        raise ValueError(
            f"--device npu: there is no Ascend card in {nodes} (no davinci0, davinci1, ...); "
            "install the driver, or give the container the devices, as docs/ascend.md says."
        )
    if card not in found:
        raise ValueError(
            f"--device npu: card {card} is not in {nodes}, which has "
            f"{', '.join(map(str, found))}; set ASCEND_DEVICE_ID to one of them."
        )
    _lock(card)


def card_of(environ: Mapping[str, str], session_device_id: Optional[int] = None) -> int:
    """The logical number of this process's card, in the adapter's order of precedence."""
    if session_device_id is not None and session_device_id >= 0:
        return session_device_id
    for name in ("ASCEND_DEVICE_ID", "DEVICE_ID"):
        if environ.get(name):
            return _number(environ, name, None, low=0)
    return 0


def _number(environ, name, default, low):
    text = environ.get(name) or default
    if text is None or not re.match(r"^\d+$", text) or int(text) < low:
        raise ValueError(f"{name} is {text}: it must be a whole number, {low} or more.")
    return int(text)


def _cards(nodes):
    names = os.listdir(nodes) if os.path.isdir(nodes) else []
    return sorted(int(name[7:]) for name in names if re.match(r"^davinci\d+$", name))


def _lock(card):
    """One process a card: a second one's first graph would end in an error of memory."""
    if any(held == card for held, _ in _HELD):
        return
    import fcntl  # here: Windows has none, and no Ascend driver either

    path = os.path.join(tempfile.gettempdir(), f"insightface_tf_{os.getuid()}_on_card_{card}")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW  # anyone may leave a link there
    stream = open(os.open(path, flags, 0o600), "r+")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = stream.read().strip() or "another process"
        stream.close()
        raise ValueError(
            f"--device npu: card {card} is taken by process {owner}; end it, or set "
            "ASCEND_DEVICE_ID to another card."
        ) from None
    stream.truncate(0)
    stream.write(str(os.getpid()))
    stream.flush()
    _HELD.append((card, stream))
