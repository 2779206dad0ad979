"""Restricts TensorFlow's gRPC port to the hosts of the run.

TensorFlow's server listens on all addresses of a machine, whatever the cluster spec, and has no
authentication. Linux lets a process attach a packet filter to its own sockets (SO_ATTACH_FILTER,
no privilege needed), and a connection inherits the filter of its listener.
"""

import ctypes
import ipaddress
import logging
import os
import socket
import struct
import sys
from typing import List, Sequence, Tuple, Union

SO_ATTACH_FILTER = 26
LISTENING = "0A"  # in /proc/net/tcp
NETWORK_HEADER = -0x100000 & 0xFFFFFFFF  # where a socket's filter finds the IP header
SOURCE_4, SOURCE_6 = 12, 8  # bytes into that header
# Classic BPF: load a word or a byte, mask it, compare it, jump, return how much is let through.
LOAD_WORD, LOAD_BYTE, AND, EQUAL, JUMP, RETURN = 0x20, 0x30, 0x54, 0x15, 0x05, 0x06
ALL, NOTHING = 0x7FFFFFFF, 0

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
Instruction = Tuple[int, int, int, int]  # (code, jump if true, jump if false, operand)


def restrict_port_to(addresses: Sequence[str], index: int, also: Sequence[str] = ()) -> None:
    """Filters the port of host `index` of addresses ("host:port" of all hosts), on which this
    process listens. also: further addresses or networks, as 10.0.0.0/8. Does nothing without
    addresses; logs a warning where the filter cannot be attached."""
    if not addresses:
        return
    port = int(addresses[index].rpartition(":")[2])
    networks = [_network(text) for text in also]
    for address in addresses:
        networks += _resolved(address)
    try:
        sockets = _listeners(port)
        for number in sockets:
            _attach(number, program(networks))
    except OSError as error:
        sockets, why = [], error.strerror or str(error)
    else:
        why = "its socket was not found"
    if not sockets:
        logging.warning(
            "port %d accepts connections from any address (%s): restrict it with a firewall, see "
            "docs/security.md.",
            port,
            why,
        )


def program(networks: Sequence[Network]) -> List[Instruction]:
    """Networks -> the instructions of the filter."""
    four = [_test(net, SOURCE_4) for net in networks if net.version == 4]
    six = [_test(net, SOURCE_6) for net in networks if net.version == 6]
    fours = [step for test in four for step in test] + [(RETURN, 0, 0, NOTHING)]
    sixes = [step for test in six for step in test] + [(RETURN, 0, 0, NOTHING)]
    version = [(LOAD_BYTE, 0, 0, NETWORK_HEADER), (AND, 0, 0, 0xF0), (EQUAL, 1, 0, 0x40)]
    return version + [(JUMP, 0, 0, len(fours))] + fours + sixes


def _test(network, offset):
    """Accepts packets from the network; falls through to the next instruction for the rest."""
    address, mask = network.network_address.packed, network.netmask.packed
    steps = [(RETURN, 0, 0, ALL)]
    for place in reversed(range(0, len(address), 4)):
        (wanted,), (bits,) = (struct.unpack_from("!I", text, place) for text in (address, mask))
        at = NETWORK_HEADER + offset + place & 0xFFFFFFFF
        steps = [(LOAD_WORD, 0, 0, at), (AND, 0, 0, bits), (EQUAL, 0, len(steps), wanted)] + steps
    return steps


def _attach(number, steps):
    """number: the file descriptor of an open socket."""
    text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    ours = socket.socket(fileno=os.dup(number))
    try:
        options = struct.pack("HL", len(steps), ctypes.addressof(text))
        ours.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, options)
    finally:
        ours.close()


def _listeners(port):
    """File descriptors of this process's sockets that listen on a port."""
    if sys.platform != "linux":
        return []
    nodes = set()
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        if os.path.exists(table):
            with open(table) as stream:
                rows = [line.split() for line in list(stream)[1:]]
            nodes.update(
                f"socket:[{row[9]}]"
                for row in rows
                if row[3] == LISTENING and int(row[1].rpartition(":")[2], 16) == port
            )
    return [int(name) for name in os.listdir("/proc/self/fd") if _link(name) in nodes]


def _link(name):
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:  # the descriptor of the listing itself, closed by now
        return ""


def _resolved(address):
    """host:port -> its IP addresses, each as a network of one address."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except socket.gaierror as error:
        raise ValueError(
            f"{address}: the name {host} cannot be resolved ({error.strerror}); use its IP "
            "address, or add the name to the DNS or /etc/hosts of all hosts."
        ) from None
    return [ipaddress.ip_network(entry[4][0].partition("%")[0]) for entry in found]


def _network(text):
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"--allow_hosts {text} is not an address or a network, such as 10.0.0.7 or 10.0.0.0/16."
        ) from None
