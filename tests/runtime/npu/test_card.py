import os
import subprocess
import sys

import pytest

from runtime.cli import ROOT
from runtime.npu import card
from runtime.npu.rank_table import make_cards, write_table
from runtime.session import session_config
from tests.npu_double.fixtures import cards  # noqa: F401


def refusal(call, *words):
    with pytest.raises(ValueError) as caught:
        call(*words)
    return str(caught.value)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.json"
    ips = [f"192.168.100.{place}" for place in range(1, 9)]
    write_table(str(path), make_cards(["10.0.0.1"], range(8), ips))
    return str(path)


def of_rank(table, rank=3, **changed):
    said = dict(RANK_ID=str(rank), RANK_SIZE="8", JOB_ID="10087", RANK_TABLE_FILE=table)
    return dict(said, DEVICE_ID=str(rank), ASCEND_DEVICE_ID=str(rank), **changed)


def test_a_process_is_one_card_of_many(table):
    ranks = card.ranks(of_rank(table))
    assert (ranks.size, list(ranks.local), ranks.leads) == (8, [3], False)
    assert ranks.device(3) is None and ranks.hosts == ()


def test_a_card_alone_needs_no_environment():
    assert card.ranks({}).size == 1 and card.ranks({}).leads


def test_an_environment_that_disagrees_is_refused_by_name(table):
    for changed, words in (
        (dict(RANK_SIZE="4"), "RANK_SIZE is 4, but .* lists 8 cards"),
        (dict(RANK_ID=""), "RANK_ID is not set"),
        (dict(RANK_ID="8"), "RANK_ID is 8 and RANK_SIZE 8"),
        (dict(RANK_ID="x"), "RANK_ID is x: it must be a whole number"),
        (dict(DEVICE_ID="5"), "DEVICE_ID is 5, but .* puts rank 3 on card 3"),
        (dict(RANK_TABLE_FILE=""), "RANK_TABLE_FILE is not set"),
        (dict(CM_WORKER_SIZE="8"), "unset the CM_"),
        (dict(RANK_SIZE="1"), "a rank table would start HCCL for one card"),
        (dict(RANK_SIZE="0"), "RANK_SIZE is 0: it must be a whole number, 1 or more"),
    ):
        with pytest.raises(ValueError, match=words):
            card.ranks(dict(of_rank(table), **changed))


def test_no_driver_is_said_before_anything(tmp_path):
    words = refusal(card.take_card, {card.NODES: str(tmp_path)})
    assert "there is no Ascend card" in words and "install the driver" in words


def test_a_card_that_is_not_there_is_said(cards):  # noqa: F811
    words = refusal(card.take_card, {card.NODES: str(cards), "ASCEND_DEVICE_ID": "9"})
    assert "card 9 is not in" in words and "0, 1, 2, 3, 4, 5, 6, 7" in words


def test_the_card_is_said_in_the_adapters_order():
    said = {"ASCEND_DEVICE_ID": "2", "DEVICE_ID": "5"}
    assert card.card_of(said, 7) == 7
    assert card.card_of(said) == 2
    assert card.card_of({"DEVICE_ID": "5"}) == 5
    assert card.card_of({}) == 0


def test_a_busy_card_is_said_with_its_process(cards):  # noqa: F811
    code = (
        "import os, sys; from runtime.npu import card; card.take_card(os.environ)\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    environ = dict(os.environ, ASCEND_DEVICE_ID="6", PYTHONPATH=ROOT)
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", code], env=environ, **pipes) as other:
        assert other.stdout.readline() == b"held\n"
        words = refusal(card.take_card, environ)
        assert f"card 6 is taken by process {other.pid}" in words
        other.communicate()
    card.take_card(environ)  # free again


def test_the_options_are_checked_before_the_adapter_is_asked_for():
    from runtime.npu.options import NpuFlags

    flags = NpuFlags(iterations_per_loop=4, enable_data_pre_proc=False)
    assert "--iterations_per_loop 4" in refusal(session_config, "npu", False, False, flags)
    assert "npu_bridge" in refusal(session_config, "npu", False, False, NpuFlags())
