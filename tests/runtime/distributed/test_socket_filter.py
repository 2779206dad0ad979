import ipaddress
import os
import socket
import subprocess
import sys

import pytest

from runtime.cli import ROOT
from runtime.distributed.socket_filter import _listeners, program, restrict_port_to

IPV6 = os.path.exists("/proc/net/if_inet6")  # some containers have none


def answers(port, own_address, target=None):
    """Whether a connection from this address of the machine is answered."""
    family = socket.AF_INET6 if ":" in own_address else socket.AF_INET
    with socket.socket(family) as caller:
        caller.settimeout(0.4)
        caller.bind((own_address, 0))
        try:
            caller.connect((target or ("::1" if ":" in own_address else "127.0.0.1"), port))
            return True
        except socket.timeout:
            return False


@pytest.fixture
def port():
    """One that this process listens on, on all addresses, IPv4 and IPv6, as TensorFlow does."""
    with socket.socket(socket.AF_INET6 if IPV6 else socket.AF_INET) as server:
        if IPV6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::" if IPV6 else "", 0))
        server.listen(8)
        yield server.getsockname()[1]


def test_only_the_hosts_are_answered(port):
    assert answers(port, "127.0.0.9")
    restrict_port_to((f"127.0.0.1:{port}", "127.0.0.2:1"), 0)
    assert answers(port, "127.0.0.1") and answers(port, "127.0.0.2")
    assert not answers(port, "127.0.0.9") and not (IPV6 and answers(port, "::1"))


def test_further_networks_are_answered_if_they_are_named(port):
    restrict_port_to((f"127.0.0.1:{port}",), 0, also=("127.0.8.0/22", "::1"))
    assert answers(port, "127.0.11.255") and not answers(port, "127.0.12.0")
    assert not IPV6 or answers(port, "::1")


def test_hundreds_of_hosts_are_no_longer_a_jump_than_the_filter_can_make(port):
    names = [f"127.1.{i // 200}.{i % 200}:1" for i in range(600)]
    restrict_port_to([f"127.0.0.1:{port}"] + names, 0)
    assert answers(port, "127.1.2.199") and not answers(port, "127.1.3.0")
    assert len(program([ipaddress.ip_network("10.0.0.1")] * 600)) < 4096  # the kernel's limit


def test_a_connection_that_is_made_goes_on(port):
    restrict_port_to((f"127.0.0.1:{port}",), 0)
    listener = socket.socket(fileno=os.dup(_listeners(port)[0]))
    with listener, socket.create_connection(("127.0.0.1", port), timeout=2.0) as caller:
        with listener.accept()[0] as called:
            caller.sendall(b"x" * 100000)
            received = b""
            while len(received) < 100000:
                received += called.recv(1 << 16)


def test_tensorflows_own_server_is_filtered():
    code = (
        "import os, sys\n"
        "from runtime.distributed.socket_filter import restrict_port_to\n"
        "from runtime.tf1 import tf\n"
        "hosts = sys.argv[1:]\n"
        "cluster = tf.train.ClusterSpec({'worker': hosts})\n"
        "tf.train.Server(cluster, job_name='worker', task_index=0)\n"
        "print('listens', flush=True); sys.stdin.readline()\n"
        "restrict_port_to(hosts, 0)\n"
        "print('filtered', flush=True); sys.stdin.readline()\n"
        "os._exit(0)\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-c", code, f"127.0.0.1:{port}", "127.0.0.2:1"]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process = subprocess.Popen(words, cwd=ROOT, **pipes)
    try:
        assert process.stdout.readline() == b"listens\n"
        assert answers(port, "127.0.0.9", "127.0.0.3")  # on addresses that no one named
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"filtered\n"
        assert answers(port, "127.0.0.2") and not answers(port, "127.0.0.9")
    finally:
        process.kill()
        process.communicate()


def test_one_host_of_two_devices_opens_no_port():
    code = (
        "import os\n"
        "from runtime.distributed.collectives import Collectives\n"
        "from runtime.distributed.ranks import Ranks, open_target, prepared\n"
        "from runtime.tf1 import tf\n"
        "ranks = Ranks(2)\n"
        "proto = prepared(tf.ConfigProto(), ranks)\n"
        "sums = []\n"
        "for rank in ranks.local:\n"
        "    with tf.device(ranks.device(rank)):\n"
        "        sums.append(Collectives(rank, 2).sum(tf.ones([3])))\n"
        "with tf.Session(open_target(proto, ranks), config=proto) as session:\n"
        "    assert session.run(sums)[1].tolist() == [2, 2, 2]\n"
        "    own = '/proc/self/fd/'\n"
        "    files = [own + name for name in os.listdir(own)]\n"
        "    print([os.readlink(file) for file in files if os.path.exists(file)])\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    assert b"/dev/" in said.stdout or b"pipe:" in said.stdout  # there were files to look at
    assert b"socket:" not in said.stdout


def test_what_cannot_be_filtered_is_said(caplog):
    restrict_port_to((), 0)
    assert not caplog.text
    restrict_port_to(("127.0.0.1:1",), 0)
    assert "port 1 accepts connections from any address" in caplog.text
    with pytest.raises(ValueError, match="the name no.such.invalid cannot be resolved"):
        restrict_port_to(("no.such.invalid:1",), 0)
    with pytest.raises(ValueError, match="--allow_hosts ten is not an address or a network"):
        restrict_port_to(("127.0.0.1:1",), 0, also=("ten",))
