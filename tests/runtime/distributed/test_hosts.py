import json
import socket
import subprocess
import sys

import pytest

from runtime.distributed.hosts import (
    Hosts,
    check_port_is_free,
    expand_nodes,
    find_hosts,
    wait_for_hosts,
)

TWO = ("10.0.0.1:2222", "10.0.0.2:2222")


def tf_config(kind="worker", index=0, **cluster):
    task = {"type": kind, "index": index}
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


def slurm(nodes, tasks, number, **more):
    said = dict(SLURM_JOB_NODELIST=nodes, SLURM_NTASKS=str(tasks), SLURM_PROCID=str(number))
    return dict(said, **more)


def listening(port=0):
    server = socket.socket()
    server.bind(("127.0.0.1", port))
    server.listen(1)
    return server, server.getsockname()[1]


def test_one_host_has_no_address():
    assert find_hosts(None, None, {}) == Hosts((), 0)
    assert find_hosts(("here:2222",), 0, {}) == Hosts((), 0)
    assert find_hosts(None, None, tf_config(worker=["here:2222"])) == Hosts((), 0)
    assert find_hosts(None, None, slurm("here", 1, 0)) == Hosts((), 0)


def test_the_flags_name_the_hosts():
    assert find_hosts(TWO, 1, {}) == Hosts(TWO, 1)
    assert find_hosts(TWO, 0, slurm("a,b", 2, 1)) == Hosts(TWO, 0)  # Slurm's are not asked
    assert find_hosts(("[fe80::1]:1", "node-3.net:65535"), 0, {}).index == 0


def test_tf_config_names_the_chief_before_the_workers():
    cluster = dict(chief=["c:1"], worker=["a:1", "b:1"])
    assert find_hosts(None, None, tf_config("chief", 0, **cluster)) == Hosts(
        ("c:1", "a:1", "b:1"), 0
    )
    assert find_hosts(None, None, tf_config("worker", 1, **cluster)).index == 2
    assert find_hosts(None, 2, tf_config("worker", 1, **cluster)).index == 2
    assert find_hosts(TWO, 1, tf_config("worker", 1, worker=list(TWO))) == Hosts(TWO, 1)
    assert find_hosts(None, None, {"TF_CONFIG": "{}"}) == Hosts((), 0)


def test_slurm_names_a_node_a_host():
    expected = ("n01:7", "n02:7", "n9:7")
    assert find_hosts(None, None, slurm("n[01-02,9]", 3, 2), port=7) == Hosts(expected, 2)
    # srun on two of the job's three nodes
    step = dict(SLURM_STEP_NODELIST="n[2-3]", SLURM_STEP_NUM_TASKS="2")
    assert find_hosts(None, None, slurm("n[1-3]", 3, 1, **step)) == Hosts(("n2:2222", "n3:2222"), 1)
    # cores of one node, asked for as tasks, and no srun
    assert find_hosts(None, None, slurm("n1", 8, 0)) == Hosts((), 0)


@pytest.mark.parametrize(
    "text, names",
    [
        ("a", ["a"]),
        ("a,b-1", ["a", "b-1"]),
        ("node[01-03,7]", ["node01", "node02", "node03", "node7"]),
        ("x[9-11],y[1,3]-ib", ["x9", "x10", "x11", "y1-ib", "y3-ib"]),
        ("r[1-2]n[08-09]", ["r1n08", "r1n09", "r2n08", "r2n09"]),
    ],
)
def test_slurms_short_form_of_names_is_written_out(text, names):
    assert expand_nodes(text) == names


@pytest.mark.parametrize("text", ["a[", "a[1-", "a[1-x]", "a]1[", "a[1][2", "", "a[,1]"])
def test_a_node_list_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="cannot be read|is not host:port"):
        find_hosts(None, None, slurm(text or ",", 2, 0))


@pytest.mark.parametrize(
    "hosts, index, environ, said",
    [
        (TWO, None, {}, "--task_index is missing"),
        (TWO, 2, {}, "--task_index is 2, and --worker_hosts names 2 hosts"),
        (TWO, -1, {}, "from 0 to 1"),
        (None, 1, {}, "but --worker_hosts is not given"),
        (TWO[:1] * 2, 0, {}, "names 10.0.0.1:2222 twice"),
        (("10.0.0.1", "b:2"), 0, {}, "'10.0.0.1' is not host:port"),
        (("a:0", "b:2"), 0, {}, "'a:0' is not host:port"),
        (("a:70000", "b:2"), 0, {}, "'a:70000' is not host:port"),
        (("grpc://a:1", "b:2"), 0, {}, "'grpc://a:1' is not host:port"),
        ((":1", "b:2"), 0, {}, "':1' is not host:port"),
        (None, None, {"TF_CONFIG": "{worker: 1"}, "TF_CONFIG is not JSON"),
        (None, None, {"TF_CONFIG": "[1]"}, "TF_CONFIG must be"),
        (None, None, {"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, 'no "task"'),
        (None, None, tf_config("ps", ps=["a:1"], worker=["b:1"]), "start no ps"),
        (None, None, tf_config("evaluator", worker=["b:1"]), "start no evaluator"),
        (None, None, tf_config("worker", ps=["a:1"], worker=["b:1"]), "hosts of type ps"),
        (None, None, tf_config("chief", worker=["b:1"]), "names no chief"),
        (None, None, tf_config("worker", 2, worker=["a:1", "b:1"]), "worker 2, and its cluster"),
        (None, None, tf_config("worker", "x", worker=["a:1", "b:1"]), "worker x"),
        (None, None, tf_config("worker", 0, worker="a:1"), "must be a list"),
        (None, None, tf_config("worker", 0, worker=["a:1", 7]), "'7' is not host:port"),
        (TWO, 1, tf_config("worker", 0, worker=list(TWO)), "omit the flags, or unset"),
        (None, 1, tf_config("worker", 0, worker=list(TWO)), "--task_index is 1, but TF_CONFIG"),
        (None, None, slurm("n[1-2]", 4, 0), "started 4 tasks on 2 nodes"),
        (None, None, slurm("n1", 4, 0, SLURM_STEP_NUM_TASKS="4"), "--ntasks-per-node=1"),
        (None, None, slurm("n[1-2]", 2, 5), "SLURM_PROCID is 5"),
        (None, None, slurm("n[1-2]", "two", 0), "SLURM_NTASKS is 'two'"),
    ],
)
def test_a_mistake_is_one_sentence(hosts, index, environ, said):
    with pytest.raises(ValueError) as raised:
        find_hosts(hosts, index, environ)
    assert said in str(raised.value)
    assert str(raised.value).endswith(".") and "\n" not in str(raised.value)


def test_a_port_that_somebody_listens_on_is_refused():
    server, port = listening()
    with server:
        hosts = Hosts((f"127.0.0.1:{port}", "b:1"), 0)
        with pytest.raises(ValueError, match="two processes were started with --task_index 0"):
            check_port_is_free(hosts)
    check_port_is_free(hosts)
    check_port_is_free(Hosts((), 0))


def test_hosts_that_do_not_answer_are_named():
    server, port = listening()
    closed, nobody = listening()
    closed.close()
    with server:
        both = (f"127.0.0.1:{port}", f"127.0.0.1:{nobody}")
        wait_for_hosts(Hosts(both, 1), 5.0)
        with pytest.raises(ValueError, match=f"^127.0.0.1:{nobody} did not respond within 0.3 s"):
            wait_for_hosts(Hosts(both, 0), 0.3)


def test_no_tensorflow_is_needed():
    code = "import sys; sys.modules['tensorflow'] = None; import runtime.distributed.hosts"
    subprocess.run([sys.executable, "-c", code], check=True)
