"""The hosts of a run, and the index of this process among them; no TensorFlow.

Sources in order of precedence: --worker_hosts and --task_index, TF_CONFIG, Slurm's variables; else
a single host, which has no address and opens no port.
"""

import errno
import json
import re
import socket
import time
from typing import List, Mapping, NamedTuple, Optional, Sequence, Tuple

PORT = 2222  # of every host under Slurm, whose variables name nodes and no ports
WORKING = ("chief", "master", "worker")  # of TF_CONFIG, in order of rank; "master" is the old name
_NAME = re.compile(r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)$")

_GROUP = re.compile(r"^([^\[\],]*)(?:\[(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)\](.*))?$")


class Hosts(NamedTuple):
    """The hosts of a run."""

    addresses: Tuple[str, ...]  # "host:port" of each, in order; empty for a single host
    index: int  # type: ignore[assignment]  # of this process


def find_hosts(
    worker_hosts: Optional[Sequence[str]],
    task_index: Optional[int],
    environ: Mapping[str, str],
    port: int = PORT,
) -> Hosts:
    """Flags and environment -> Hosts. worker_hosts: addresses or None;
    port: of every host where Slurm names them."""
    from_flags = _from_flags(tuple(worker_hosts or ()), task_index)
    found = _from_tf_config(environ)
    if from_flags and found and from_flags != found:
        raise ValueError(
            f"--worker_hosts and --task_index make this host {_spell(from_flags)}, but TF_CONFIG "
            f"makes it {_spell(found)}; omit the flags, or unset TF_CONFIG."
        )
    mismatch = found is None or found.index != task_index
    if from_flags is None and task_index is not None and mismatch:
        other = f"but TF_CONFIG has {found.index}" if found else "but --worker_hosts is not given"
        raise ValueError(
            f"--task_index is {task_index}, {other}; pass --worker_hosts with all addresses, or "
            "omit --task_index."
        )
    return _alone(from_flags or found or _from_slurm(environ, port) or Hosts((), 0))


def check_port_is_free(hosts: Hosts) -> None:
    """Requires that no process listens on this host's port: TensorFlow's server sets SO_REUSEPORT
    and would share it without an error, so connections would reach either process."""
    if not hosts.addresses:
        return
    address = hosts.addresses[hosts.index]
    if _in_use(_split(address)[1]):
        raise ValueError(
            f"{address}, the address of host {hosts.index}, is in use on this machine: two "
            f"processes were started with --task_index {hosts.index}, or another program has the "
            "port; end that one, or choose another port."
        )


def free_addresses(count: int) -> List[str]:
    """Addresses of this machine with free ports, for hosts that are processes of one machine."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return found


def wait_for_hosts(hosts: Hosts, limit: float) -> None:
    """Returns when the port of every other host accepts connections; fails after `limit` seconds.
    Start this host's own server first, or all hosts wait for each other."""
    silent = [address for i, address in enumerate(hosts.addresses) if i != hosts.index]
    end = time.monotonic() + limit
    while True:
        silent = [address for address in silent if not _answers(address)]
        if not silent:
            return
        if time.monotonic() > end:
            raise ValueError(
                f"{', '.join(silent)} did not respond within {limit:g} s; start every host's "
                "process, and let the hosts reach each other's ports (--allow_hosts, where the "
                "packets of a host come from another address than in --worker_hosts)."
            )
        time.sleep(0.2)


def _from_flags(addresses, task_index):
    if not addresses:
        return None
    if task_index is None:
        raise ValueError(
            f"--worker_hosts names {len(addresses)} hosts but --task_index is missing: pass the "
            "index of this host, from 0."
        )
    return _checked(addresses, task_index, "--worker_hosts", "--task_index")


def _from_tf_config(environ):
    """TF_CONFIG -> Hosts: chief, then workers. None if it is unset or names no cluster."""
    text = environ.get("TF_CONFIG", "").strip()
    if not text:
        return None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"TF_CONFIG is not JSON ({error}): {text[:60]!r}.") from None
    if not isinstance(content, dict) or not isinstance(content.get("cluster", {}), dict):
        raise ValueError(
            'TF_CONFIG must be {"cluster": {"worker": ["host:port", ...]}, "task": {"type": '
            f'"worker", "index": 0}}}}, and is {text[:60]!r}.'
        )
    cluster = content.get("cluster")
    if not cluster:
        return None
    task = content.get("task")
    if not isinstance(task, dict) or "type" not in task:
        raise ValueError('TF_CONFIG has a cluster but no "task": add its type and index.')
    return _from_cluster(cluster, task["type"], task.get("index", 0))


def _from_cluster(cluster, kind, index):
    """A cluster spec and one task of it -> Hosts."""
    if kind not in WORKING:
        raise ValueError(
            f"TF_CONFIG makes this a task of type {kind}; a run here has hosts of type "
            f"{' and '.join(WORKING[::2])} alone, so start no {kind}."
        )
    strange = sorted(set(cluster) - set(WORKING) - {"evaluator"})
    if strange:
        raise ValueError(
            f"TF_CONFIG names hosts of type {', '.join(strange)}; ranks here exchange gradients "
            "among themselves, so name chief and worker alone."
        )
    if not all(isinstance(cluster.get(name, []), list) for name in WORKING):
        raise ValueError('TF_CONFIG: each type of "cluster" must be a list of "host:port".')
    if kind not in cluster:
        raise ValueError(f"TF_CONFIG makes this a {kind}, and its cluster names no {kind}.")
    if not str(index).isdigit() or int(index) >= len(cluster[kind]):
        raise ValueError(
            f"TF_CONFIG makes this {kind} {index}, and its cluster names {len(cluster[kind])} of "
            f"them: an index is from 0 to {len(cluster[kind]) - 1}."
        )
    before = [a for name in WORKING[: WORKING.index(kind)] for a in cluster.get(name, [])]
    addresses = tuple(str(a) for name in WORKING for a in cluster.get(name, []))
    return _checked(addresses, len(before) + int(index), "TF_CONFIG", "its task")


def _from_slurm(environ, port):
    """Slurm's variables -> Hosts, one task a node; None outside a job, or on one node of one task.
    Those of the step (what srun started) win over those of the job."""
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST")
    if not nodes or "SLURM_PROCID" not in environ:
        return None
    names = expand_nodes(nodes)
    started = environ.get("SLURM_STEP_NUM_TASKS")
    tasks = _count(environ, "SLURM_STEP_NUM_TASKS" if started else "SLURM_NTASKS", len(names))
    if len(names) == 1 and (tasks == 1 or not started):  # --ntasks may request cores: one process
        return None
    if tasks != len(names):
        raise ValueError(
            f"Slurm started {tasks} tasks on {len(names)} nodes ({nodes}); one process drives all "
            "devices of a node, so ask for --ntasks-per-node=1."
        )
    index = _count(environ, "SLURM_NODEID" if "SLURM_NODEID" in environ else "SLURM_PROCID", 0)
    addresses = tuple(f"{name}:{port}" for name in names)
    return _checked(addresses, index, "Slurm's node list", "SLURM_PROCID")


def expand_nodes(text: str) -> List[str]:
    """Slurm's short form -> names: "a[01-03,7],b" -> ["a01", "a02", "a03", "a7", "b"]."""
    parts = re.split(r",(?![^\[]*\])", text)  # commas outside of brackets
    return [name for part in parts for name in _expand(part)]


def _expand(part):
    """One name with any number of [..] groups -> the names, the last group running fastest."""
    whole = _GROUP.match(part)
    if not whole:
        raise ValueError(
            f"Slurm's node list holds {part!r}, which cannot be read; name --worker_hosts instead."
        )
    head, group, rest = whole.groups()
    if group is None:
        return [head]
    middles = []
    for item in group.split(","):
        first, _, last = item.partition("-")
        numbers = range(int(first), int(last or first) + 1)
        middles += [str(number).zfill(len(first)) for number in numbers]
    tails = _expand(rest) if rest else [""]
    return [head + middle + tail for middle in middles for tail in tails]


def _count(environ, name, default):
    text = environ.get(name, str(default))
    if not text.isdigit():
        raise ValueError(f"{name} is {text!r} in the environment, and must be a whole number.")
    return int(text)


def _checked(addresses, index, source, index_source):
    for address in addresses:
        host, port = _split(address)
        if not _NAME.match(host) or not port.isdigit() or not 1 <= int(port) <= 65535:
            raise ValueError(
                f"{source}: {address!r} is not host:port, as in 10.0.0.1:2222 or node3:2222."
            )
    twice = sorted({a for a in addresses if addresses.count(a) > 1})
    if twice:
        raise ValueError(
            f"{source} names {twice[0]} twice; each host has one process, which drives all of its "
            "devices."
        )
    if not 0 <= index < len(addresses):
        raise ValueError(
            f"{index_source} is {index}, and {source} names {len(addresses)} hosts: an index is "
            f"from 0 to {len(addresses) - 1}."
        )
    return Hosts(tuple(addresses), index)


def _split(address):
    host, _, port = address.rpartition(":")
    return host, port


def _alone(hosts):
    """One address is one host, whoever named it."""
    return hosts if len(hosts.addresses) > 1 else Hosts((), 0)


def _spell(hosts):
    return f"{hosts.index} of {','.join(hosts.addresses)}"


def _in_use(port):
    """Whether a process of this machine listens on the port, on whichever of its addresses."""
    for family, anywhere in ((socket.AF_INET6, "::"), (socket.AF_INET, "")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the dead do not count
                probe.bind((anywhere, int(port)))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:  # a machine may have no IPv6 at all
                return True
    return False


def _answers(address):
    host, port = _split(address)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
        return True
    except OSError:
        return False
