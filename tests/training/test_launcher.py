"""Small real processes stand for the run's; the run itself is in tests/test_failures.py."""

import os
import signal
import subprocess
import sys
import time

import pytest

from runtime.npu.rank_table import make_cards, read_table, write_table
from training.launcher import (
    Member,
    ServerCards,
    npu_cards,
    own_command,
    supervise,
    this_server,
)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def member(code, *words, log=None, name="the run"):
    return Member([sys.executable, "-c", code] + list(words), ["--resume"], None, log, name)


def ends_with(codes, path):
    """A process whose n-th start ends with the n-th of the codes, below 0 by that signal; it writes
    its own words into the file at each start."""
    code = (
        "import os, sys\n"
        f"with open({str(path)!r}, 'a') as stream: stream.write(' '.join(sys.argv[1:]) + chr(10))\n"
        f"with open({str(path)!r}) as stream: count = len(stream.readlines())\n"
        f"end = {list(codes)!r}[count - 1]\n"
        "os.kill(os.getpid(), -end) if end < 0 else sys.exit(end)\n"
    )
    return member(code, "flag")


def starts(path):
    with open(str(path)) as stream:
        return stream.read().splitlines()


def test_a_lost_or_killed_run_is_started_again_from_its_checkpoint(tmp_path, caplog):
    path = tmp_path / "starts"
    assert supervise([ends_with([75, -signal.SIGKILL, 0], path)], max_restarts=5) == 0
    assert starts(path) == ["flag", "flag --resume", "flag --resume"]
    assert "ended with exit code 75: a host was lost; restarting" in caplog.text
    assert "was ended by SIGKILL; restarting" in caplog.text
    assert "restart 2 of 5" in caplog.text


@pytest.mark.parametrize("code", [0, 1, 2])
def test_any_other_end_is_the_end(tmp_path, code):
    assert supervise([ends_with([code], tmp_path / "starts")], max_restarts=3) == code


def test_restarts_are_counted(tmp_path, caplog):
    path = tmp_path / "starts"
    assert supervise([ends_with([75, 75, 75, 75], path)], max_restarts=2) == 75
    assert len(starts(path)) == 3
    assert "after 2 restarts: giving up" in caplog.text
    assert supervise([ends_with([-9], tmp_path / "killed")], max_restarts=0) == 137


def test_all_end_when_one_fails_and_its_words_are_shown(tmp_path, caplog):
    log = str(tmp_path / "log")
    waits = member("import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)")
    fails = member("print('out of memory'); raise SystemExit(3)", log=log, name="card 1")
    begun = time.monotonic()
    assert supervise([waits, fails], max_restarts=3, grace=0.3) == 3
    assert time.monotonic() - begun < 10
    assert f"card 1 failed; the end of {log}:\nout of memory" in caplog.text


def test_a_run_that_stands_still_is_ended_and_started_again(tmp_path, caplog):
    path = tmp_path / "alive"
    code = (
        "import os, sys, time\n"
        "if '--resume' in sys.argv: sys.exit(0)\n"
        "for beat in range(12):\n"
        f"    open({str(path)!r}, 'w').write(str(beat)); time.sleep(0.2)\n"
        "os.kill(os.getpid(), 19)\n"  # SIGSTOP
    )
    stopping = member(code)._replace(heartbeat=(str(path), 0.9))
    assert supervise([stopping], max_restarts=1) == 0
    assert path.read_text() == "11"  # and no sooner
    assert "the run makes no progress and is killed" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_is_passed_on_and_obeyed(number):
    child = (
        "import signal, sys, time\n"
        "def stop(*_): print('stopped', flush=True); sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, stop); signal.signal(signal.SIGINT, stop)\n"
        "print('ready', flush=True); time.sleep(60)\n"
    )
    code = (
        "import sys; from training.launcher import Member, supervise\n"
        f"words = [sys.executable, '-c', {child!r}]\n"
        "sys.exit(supervise([Member(words, [], None, None, 'run')], max_restarts=3))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.stdout.read() == b"stopped\n"  # once: it is not started again
    assert process.wait(timeout=10) == 75


def test_the_run_dies_with_its_supervisor():
    code = (
        "import sys; from training.launcher import Member, supervise\n"
        "words = [sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(60)']\n"
        "supervise([Member(words, [], None, None, 'run')], max_restarts=3)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    process.stdout.readline()
    process.kill()
    assert process.stdout.read() == b""  # the other end of the pipe is gone, and with it the child
    process.wait()


def test_a_command_that_is_none_is_said():
    with pytest.raises(ValueError, match="/no/such cannot be started: No such file"):
        supervise([Member(["/no/such"], [], None, None, "run")], max_restarts=1)


def test_the_child_is_not_a_supervisor():
    words = own_command(["train_nets_mgpu.py", "--supervise", "--max_restarts", "3"])
    assert words[0] == sys.executable and words[1] == "train_nets_mgpu.py"
    assert words[-1] == "--no_supervise"  # after all that could say --supervise


def hccn_conf(folder, cards=8):
    path = folder / "hccn.conf"
    path.write_text("".join(f"address_{card}=10.1.{card}.7\n" for card in range(cards)))
    return str(path)


def test_a_server_writes_the_table_of_its_own_cards(tmp_path):
    environ = {"HCCN_CONF": hccn_conf(tmp_path)}
    members = this_server(8, environ, str(tmp_path / "logs"), ["train_nets_mgpu.py"])
    assert [member.environ["RANK_ID"] for member in members] == [str(card) for card in range(8)]
    table = members[0].environ["RANK_TABLE_FILE"]
    assert [card.ip for card in read_table(table)] == [f"10.1.{card}.7" for card in range(8)]
    assert members[0].argv[1:] == ["train_nets_mgpu.py", "--no_supervise"]
    (alone,) = this_server(1, {"ASCEND_DEVICE_ID": "3"}, str(tmp_path), ["train"])
    assert alone.environ["DEVICE_ID"] == "3" and alone.environ["RANK_SIZE"] == "1"


def test_a_server_takes_its_part_of_a_table(tmp_path):
    servers, ips = ["10.0.0.1", "10.0.0.2"], [f"10.1.0.{card}" for card in range(4)]
    path = str(tmp_path / "table.json")
    write_table(path, make_cards(servers, (4, 5), ips))
    environ = {"RANK_TABLE_FILE": path, "RANK_INDEX": "1"}
    members = this_server(None, environ, str(tmp_path), ["train"])
    said = [(m.environ["RANK_ID"], m.environ["DEVICE_ID"], m.environ["RANK_SIZE"]) for m in members]
    assert said == [("2", "4", "4"), ("3", "5", "4")]
    with pytest.raises(ValueError, match="--num_devices is 8, but .* lists 2 cards of this server"):
        this_server(8, environ, str(tmp_path), ["train"])
    with pytest.raises(ValueError, match="uses cards 0,1,2 of"):
        this_server(3, {"HCCN_CONF": hccn_conf(tmp_path)}, str(tmp_path), ["train"])


def test_each_card_gets_its_environment(tmp_path):
    environ = {"PATH": "/bin", "RANK_TABLE_FILE": "other.json"}
    members = npu_cards(
        ["train"], ServerCards((4, 5), 10, 16, "table.json"), environ, str(tmp_path)
    )
    said = members[1].environ
    assert said["RANK_ID"] == "11" and said["RANK_SIZE"] == "16" and said["DEVICE_INDEX"] == "45"
    assert said["DEVICE_ID"] == said["ASCEND_DEVICE_ID"] == "5"
    assert said["JOB_ID"] == "10087" and said["PATH"] == "/bin"
    assert said["RANK_TABLE_FILE"] == os.path.abspath("table.json")
    assert members[1].log == str(tmp_path / "train_5.log") and members[0].log is None
    bound = npu_cards(["train"], ServerCards((0,), 0, 1, None), {"BIND_CORE": "1"}, str(tmp_path))[
        0
    ].argv
    assert bound == ["taskset", "-c", f"0-{os.cpu_count() - 1}", "train"]
    (alone,) = npu_cards(["train"], ServerCards((0,), 0, 1, None), environ, str(tmp_path))
    assert "RANK_TABLE_FILE" not in alone.environ and alone.environ["RANK_SIZE"] == "1"
