"""Writes, reads and checks Ascend's rank table, which maps ranks to cards of servers.

    python -m runtime.npu.rank_table --hosts 10.0.0.1,10.0.0.2 --devices 8 \\
        --hccn_conf host1.conf,host2.conf --output rank_table.json
    python -m runtime.npu.rank_table --check rank_table.json

Every value in the file is a string. Three layouts are in use: 1, with server_list; 2, with
group_list; and, older than both, a group_list with an instance for each card, which is read only.
So is the table of a SuperPoD of 910C cards, version 1.2: layout 1 with more entries, which HCCL
alone reads.
"""

import collections
import dataclasses
import json
import os
import re
import socket
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from runtime.cli import run
from runtime.files import atomic_write
from runtime.flags import flag, parse_flags
from runtime.npu.cards import AUTO, NpuCard, check_devices, chosen_card
from runtime.npu.cards import CARDS as KINDS

LAYOUTS = (1, 2)
CARDS = 8  # of a server, where nothing else is given
SUPER_POD = "1.2"  # the "version" of a table of a SuperPoD, which only 910C cards form


class Card(NamedTuple):
    """A rank of the run: one device of one server."""

    server: str  # the server's id, in most tables its IP address
    device: int  # the device's physical id there
    ip: str  # of the device's own network
    rank: int


Servers = Mapping[str, List[Card]]


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """Flags of python -m runtime.npu.rank_table."""

    hosts: Tuple[str, ...] = flag((), "servers in order of rank, by their IP addresses")
    devices: int = flag(CARDS, "devices of each server that the run uses", low=1, high=16)
    device_ids: Tuple[int, ...] = flag((), "which devices (default: from 0 on)", low=0, high=15)
    device_ips: Tuple[str, ...] = flag(
        (), "addresses of the cards' own network, server by server in the order of the cards"
    )
    hccn_conf: Tuple[str, ...] = flag(
        (), "or the servers' /etc/hccn.conf files, in the order of --hosts"
    )
    layout: int = flag(1, "1: server_list; 2: group_list, of older drivers:", choices=LAYOUTS)
    output: str = flag("rank_table.json", "where the table is written")
    npu_card: str = flag(
        AUTO,
        "kind of card; auto: by NPU_CARD or the PCI device id, else 910A;",
        choices=(AUTO,) + tuple(KINDS),
    )
    check: Optional[str] = flag(None, "table to check against this environment, writing none")


def main(argv: Optional[Sequence[str]] = None) -> int:
    config = parse_flags(TableConfig, argv, "Writes or checks Ascend's rank table.")
    kind, _ = chosen_card(config.npu_card, os.environ)
    if config.check:
        check(config.check, os.environ, kind)
        print(f"{config.check}: {_spell(read_table(config.check, kind))}; no fault found.")
        return 0
    ids = config.device_ids or tuple(range(config.devices))
    cards = make_cards(config.hosts, ids, config.device_ips, config.hccn_conf, kind)
    write_table(config.output, cards, config.layout, kind)
    print(f"{config.output}: {_spell(cards)}.")
    return 0


def make_cards(
    hosts: Sequence[str],
    device_ids: Sequence[int],
    device_ips: Sequence[str] = (),
    hccn_conf: Sequence[str] = (),
    kind: Optional[NpuCard] = None,
) -> List[Card]:
    """Servers, devices' ids and addresses -> [Card], ranks in their order. kind: of the cards; None
    is this machine's."""
    if not hosts:
        raise ValueError(
            "--hosts is missing: pass the servers' IP addresses, as 10.0.0.1,10.0.0.2."
        )
    if hccn_conf:
        if len(hccn_conf) != len(hosts):
            raise ValueError(
                f"--hccn_conf names {len(hccn_conf)} files and --hosts {len(hosts)} servers; copy "
                "/etc/hccn.conf from each, and pass them in the same order."
            )
        device_ips = [ip for path in hccn_conf for ip in _ips_of(path, device_ids)]
    if len(device_ips) != len(hosts) * len(device_ids):
        raise ValueError(
            f"--device_ips names {len(device_ips)} addresses, but {len(hosts)} servers with "
            f"{len(device_ids)} cards have {len(hosts) * len(device_ids)}; each card's is in "
            "/etc/hccn.conf of its server, which --hccn_conf reads."
        )
    places = [(host, device) for host in hosts for device in device_ids]
    cards = [
        Card(host, device, ip, rank)
        for rank, ((host, device), ip) in enumerate(zip(places, device_ips))
    ]
    _check_cards("the rank table", cards, kind)
    return cards


def write_table(
    path: str, cards: Sequence[Card], layout: int = 1, kind: Optional[NpuCard] = None
) -> None:
    """[Card] -> a rank table in layout 1 or 2."""
    _check_cards(path, cards, kind)
    content = (_layout_1 if layout == 1 else _layout_2)(_by_server(cards))
    with atomic_write(path, encoding="ascii") as stream:
        json.dump(content, stream, indent=1)
        stream.write("\n")


def read_table(path: str, kind: Optional[NpuCard] = None) -> List[Card]:
    """A rank table in any of the three layouts, and a SuperPoD's -> [Card], by rank. kind: of the
    cards; None is this machine's, and 910C for the table of a SuperPoD."""
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except ValueError as error:
        raise ValueError(f"{path} is not a rank table: it is not JSON ({error}).") from None
    try:
        status = content["status"]
        cards = _read_servers(content) if "server_list" in content else _read_groups(content)
        count = int(content.get("server_count", len(_by_server(cards))))
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{path} is not a rank table: {what}; write one with python -m runtime.npu.rank_table."
        ) from None
    if status != "completed":
        raise ValueError(
            f"{path} has the status {status}, but must be completed: the program that writes it "
            "has not finished or has failed. Wait for it, or write the table again."
        )
    if kind is None and content.get("version") == SUPER_POD:
        kind = KINDS["910C"]
    _check_cards(path, cards, kind)
    _check_version(path, content, kind)
    if count != len(_by_server(cards)):
        raise ValueError(f"{path} has server_count {count} and lists {len(_by_server(cards))}.")
    return sorted(cards, key=lambda card: card.rank)


def check(path: str, environ: Mapping[str, str], kind: Optional[NpuCard] = None) -> Optional[Card]:
    """The Card of this process; ends, with what is wrong, where a rank table and the environment
    disagree: Ascend's own errors come minutes later, and name neither."""
    together = sorted(name for name in environ if name.startswith("CM_") and environ[name])
    if together:
        raise ValueError(
            f"{together[0]} and RANK_TABLE_FILE are both set, but are two different ways to "
            "start; unset one."
        )
    cards = read_table(path, kind)
    size, rank = (_number(environ, name, path) for name in ("RANK_SIZE", "RANK_ID"))
    if size is not None and size != len(cards):
        raise ValueError(f"RANK_SIZE is {size}, but {path} lists {len(cards)} cards.")
    if rank is None:
        return None
    if rank >= len(cards):
        raise ValueError(
            f"RANK_ID is {rank}, but {path} lists ranks 0 to {len(cards) - 1}; it is another run's "
            "table, or RANK_ID is wrong."
        )
    card = cards[rank]
    if not environ.get("JOB_ID"):
        raise ValueError("JOB_ID is not set, but Ascend's adapter needs it; set it to any text.")
    name = "DEVICE_ID" if environ.get("DEVICE_ID") else "ASCEND_DEVICE_ID"
    device = _number(environ, name, path)
    if device is not None and device != card.device:
        raise ValueError(
            f"{name} is {device}, but {path} puts rank {rank} on card {card.device} of "
            f"{card.server}; set {name}={card.device}, or write the table for card {device}."
        )
    return card


def own_cards(cards: Sequence[Card], environ: Mapping[str, str]) -> List[Card]:
    """[Card] of all servers -> those of this one, which RANK_INDEX numbers, or its address says."""
    servers = _by_server(cards)
    index = _number(environ, "RANK_INDEX", "a table of several servers")
    if len(servers) == 1:
        return list(cards)
    if index is not None and index < len(servers):
        return list(servers.values())[index]
    here = [server for server in servers if _is_here(server)]
    if index is not None or len(here) != 1:
        raise ValueError(
            f"the rank table lists {len(servers)} servers ({', '.join(servers)}), and it is "
            f"unknown which of them this one is; set RANK_INDEX, from 0 to {len(servers) - 1}."
        )
    return servers[here[0]]


def _is_here(server: str) -> bool:
    """Whether an address is one of this machine's."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((server, 0))
        return True
    except OSError:
        return False


def _check_version(path: str, content: Mapping[str, Any], kind: Optional[NpuCard]) -> None:
    """Refuses a table whose form this kind of card does not read."""
    version = content.get("version")  # the layouts with group_list have none
    kind = kind or chosen_card(AUTO, os.environ)[0]
    if version is not None and version not in kind.table_versions:
        raise ValueError(
            f"{path} has the version {version}, and a {kind.name} reads "
            f"{' or '.join(kind.table_versions)}; write one with python -m runtime.npu.rank_table."
        )


def _check_cards(path: str, cards: Sequence[Card], kind: Optional[NpuCard]) -> None:
    """What must hold of every table."""
    kind = kind or chosen_card(AUTO, os.environ)[0]
    servers = _by_server(cards)
    ranks = sorted(card.rank for card in cards)
    if ranks != list(range(len(cards))):
        odd = next((rank for place, rank in enumerate(ranks) if rank != place), None)
        raise ValueError(
            f"{path}: its ranks must be 0 to {len(cards) - 1}, each once, but rank {odd} is "
            "duplicate or follows a gap."
        )
    _refuse_twice(path, "card", [f"{card.device} of {card.server}" for card in cards])
    _refuse_twice(path, "device_ip", [card.ip for card in cards])
    for card in cards:
        _check_ip(path, card)
    for server, own in servers.items():
        devices = tuple(sorted(card.device for card in own))
        check_devices(f"{path} uses cards {_join(devices)} of {server}", devices, kind)
    counts = {server: len(own) for server, own in servers.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"{path} lists {', '.join(f'{n} cards of {s}' for s, n in counts.items())}; each "
            "server must have as many."
        )


def _check_ip(path: str, card: Card) -> None:
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in card.ip else socket.AF_INET, card.ip)
    except OSError:
        raise ValueError(
            f"{path}: the device_ip of card {card.device} of {card.server} is {card.ip!r}, which "
            "is not an IP address."
        ) from None


def _refuse_twice(path: str, what: str, values: Sequence[str]) -> None:
    twice = [value for value, count in collections.Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"{path} gives {what} {twice[0]} to two ranks.")


def _layout_1(servers: Servers) -> Dict[str, Any]:
    return {
        "status": "completed",
        "version": "1.0",
        "server_count": str(len(servers)),
        "server_list": [
            {
                "server_id": server,
                "device": [dict(_device(card), rank_id=str(card.rank)) for card in cards],
            }
            for server, cards in servers.items()
        ],
    }


def _layout_2(servers: Servers) -> Dict[str, Any]:
    """It has no ranks: they are the places in the list."""
    count = sum(len(cards) for cards in servers.values())
    instances = [
        {"pod_name": str(place), "server_id": server, "devices": [_device(card) for card in cards]}
        for place, (server, cards) in enumerate(servers.items())
    ]
    group = {
        "group_name": "worker",
        "device_count": str(count),
        "instance_count": str(len(servers)),
        "instance_list": instances,
    }
    return {"status": "completed", "group_count": "1", "group_list": [group]}


def _device(card: Card) -> Dict[str, str]:
    return {"device_id": str(card.device), "device_ip": card.ip}


def _read_servers(content: Mapping[str, Any]) -> List[Card]:
    return [
        Card(server["server_id"], int(d["device_id"]), d["device_ip"], int(d["rank_id"]))
        for server in content["server_list"]
        for d in server["device"]
    ]


def _read_groups(content: Mapping[str, Any]) -> List[Card]:
    """Layout 2, and the oldest, whose instances are cards and say their rank."""
    cards: List[Card] = []
    for group in content["group_list"]:
        for instance in group["instance_list"]:
            for device in instance["devices"]:
                rank = int(instance.get("rank_id", len(cards)))
                place = instance["server_id"], int(device["device_id"])
                cards.append(Card(*place, device["device_ip"], rank))
    return cards


def _ips_of(path: str, device_ids: Sequence[int]) -> List[str]:
    """The addresses of a server's cards, from its /etc/hccn.conf."""
    with open(path, encoding="utf-8") as stream:
        found = dict(re.findall(r"^\s*address_(\d+)\s*=\s*(\S+)", stream.read(), re.MULTILINE))
    missing = [device for device in device_ids if str(device) not in found]
    if missing:
        raise ValueError(
            f"{path} has no address_{missing[0]}; give card {missing[0]} an address with "
            "hccn_tool, or pass --device_ips."
        )
    return [found[str(device)] for device in device_ids]


def _by_server(cards: Sequence[Card]) -> Servers:
    servers: Dict[str, List[Card]] = collections.OrderedDict()
    for card in sorted(cards, key=lambda card: card.rank):
        servers.setdefault(card.server, []).append(card)
    return servers


def _number(environ: Mapping[str, str], name: str, path: str) -> Optional[int]:
    text = environ.get(name, "")
    if text and not text.isdigit():
        raise ValueError(f"{name} is {text!r}, but {path} requires a number.")
    return int(text) if text else None


def _join(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _spell(cards: Sequence[Card]) -> str:
    servers = _by_server(cards)
    each = len(cards) // len(servers)
    return f"{len(cards)} ranks, {each} on each of {len(servers)} servers ({', '.join(servers)})"


if __name__ == "__main__":
    run(main)
