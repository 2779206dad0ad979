import json
import subprocess
import sys

import pytest

from runtime.cli import ROOT
from runtime.npu.cards import CARDS as KINDS
from runtime.npu.rank_table import Card, check, main, make_cards, own_cards, read_table, write_table

SERVERS = ("192.168.0.1", "192.168.0.2")
IPS = tuple(f"192.168.10{server}.{card + 1}" for server in range(2) for card in range(2))
CARDS = [
    Card(SERVERS[0], 0, IPS[0], 0),
    Card(SERVERS[0], 1, IPS[1], 1),
    Card(SERVERS[1], 0, IPS[2], 2),
    Card(SERVERS[1], 1, IPS[3], 3),
]
# The published form of one server, and the oldest, which has an instance for each card.
PUBLISHED = """{"status":"completed","version":"1.0","server_count":"1","server_list":[
 {"server_id":"192.168.0.1","device":[
 {"device_id":"0","device_ip":"192.168.100.101","rank_id":"0"},
 {"device_id":"1","device_ip":"192.168.101.101","rank_id":"1"}]}]}"""
OLDEST = """{"board_id":"0x002f","chip_info":"910","deploy_mode":"lab","group_count":"1",
 "group_list":[{"device_num":"2","server_num":"1","group_name":"","instance_count":"2",
 "instance_list":[
 {"rank_id":"1","server_id":"192.168.0.1",
  "devices":[{"device_id":"1","device_ip":"192.168.101.101"}]},
 {"rank_id":"0","server_id":"192.168.0.1",
  "devices":[{"device_id":"0","device_ip":"192.168.100.101"}]}]}],
 "para_plane_nic_location":"device","para_plane_nic_name":["eth0","eth1"],
 "para_plane_nic_num":"2","status":"completed"}"""
ENVIRON = {"RANK_ID": "2", "RANK_SIZE": "4", "DEVICE_ID": "0", "JOB_ID": "10087"}


@pytest.fixture
def table(tmp_path):
    path = str(tmp_path / "rank_table.json")
    write_table(path, CARDS)
    return path


def written(tmp_path, text):
    path = tmp_path / "table.json"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("layout", [1, 2])
def test_what_is_written_is_read_again(tmp_path, layout):
    path = str(tmp_path / "table.json")
    write_table(path, CARDS, layout)
    assert read_table(path) == CARDS


def test_every_value_is_a_string_under_the_published_names(tmp_path):
    path = str(tmp_path / "table.json")
    write_table(path, read_table(written(tmp_path, PUBLISHED)))
    with open(path) as stream:
        assert json.load(stream) == json.loads(PUBLISHED)
    write_table(path, CARDS, 2)
    with open(path) as stream:
        (group,) = json.load(stream)["group_list"]
    assert (group["group_name"], group["device_count"]) == ("worker", "4")
    assert group["instance_count"] == "2"
    assert group["instance_list"][1] == {
        "pod_name": "1",
        "server_id": SERVERS[1],
        "devices": [
            {"device_id": "0", "device_ip": IPS[2]},
            {"device_id": "1", "device_ip": IPS[3]},
        ],
    }


def test_the_oldest_layout_is_read_by_its_ranks(tmp_path):
    assert read_table(written(tmp_path, OLDEST)) == read_table(written(tmp_path, PUBLISHED))


def test_the_card_of_this_process_is_found(table):
    assert check(table, ENVIRON) == CARDS[2]
    assert check(table, {"RANK_SIZE": "4"}) is None  # before the processes are told their ranks


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"RANK_SIZE": "8"}, "RANK_SIZE is 8, but .* lists 4 cards"),
        ({"RANK_ID": "4"}, "RANK_ID is 4, but .* lists ranks 0 to 3"),
        ({"RANK_ID": "x"}, "RANK_ID is 'x', but .* requires a number"),
        ({"DEVICE_ID": "1"}, "DEVICE_ID is 1, but .* puts rank 2 on card 0 of 192.168.0.2"),
        ({"DEVICE_ID": "", "ASCEND_DEVICE_ID": "1"}, "ASCEND_DEVICE_ID is 1, but"),
        ({"JOB_ID": ""}, "JOB_ID is not set"),
        ({"CM_CHIEF_IP": "10.0.0.1"}, "CM_CHIEF_IP and RANK_TABLE_FILE are both set"),
    ],
)
def test_an_environment_that_disagrees_is_refused(table, changed, said):
    with pytest.raises(ValueError, match=said):
        check(table, dict(ENVIRON, **changed))


def swapped(**change):
    """The published table with some texts replaced."""
    text = PUBLISHED
    for old, new in change.values():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    "text, said",
    [
        ("{", "is not JSON"),
        ("[]", "is not a rank table"),
        ('{"status": "completed"}', "'group_list' is missing"),
        (swapped(a=('device_id":"1"', 'device_id":"one"')), "is not a rank table: .*'one'"),
        (swapped(a=("completed", "initializing")), "status initializing, but must be completed"),
        (swapped(a=('count":"1"', 'count":"2"')), "has server_count 2 and lists 1"),
        (swapped(a=('rank_id":"1"', 'rank_id":"0"')), "each once, but rank 0 is duplicate"),
        (swapped(a=('rank_id":"1"', 'rank_id":"2"')), "ranks must be 0 to 1"),
        (swapped(a=('device_id":"1"', 'device_id":"0"')), "gives card 0 of 192.168.0.1 to two"),
        (swapped(a=("101.101", "100.101")), "gives device_ip 192.168.100.101 to two ranks"),
        (swapped(a=('device_id":"1"', 'device_id":"4"')), "2 cards must all be of 0 to 3, or all"),
        (swapped(a=('device_id":"1"', 'device_id":"8"')), "of cards 0 to 7"),
        (
            swapped(a=("192.168.101.101", "192.168.101")),
            "'192.168.101', which is not an IP address",
        ),
    ],
)
def test_a_table_that_cannot_work_is_refused(tmp_path, text, said):
    with pytest.raises(ValueError, match=said):
        read_table(written(tmp_path, text))


def test_a_super_pods_table_is_read(tmp_path):
    entry = '"device_id":"1","super_device_id":"1","device_port":"16667"'
    text = swapped(a=('"1.0"', '"1.2"'), b=('"device_id":"1"', entry))
    assert read_table(written(tmp_path, text)) == read_table(written(tmp_path, PUBLISHED))


def test_a_table_that_this_kind_of_card_does_not_read_is_refused(tmp_path):
    path = written(tmp_path, swapped(a=('"1.0"', '"1.2"')))
    with pytest.raises(ValueError, match="has the version 1.2, and a 910B reads 1.0; write one"):
        read_table(path, KINDS["910B"])


def test_three_devices_of_a_server_are_one_run_where_the_card_has_no_rings(tmp_path):
    cards = make_cards(SERVERS[:1], (0, 1, 2), IPS[:3], kind=KINDS["910B"])
    path = str(tmp_path / "table.json")
    write_table(path, cards, kind=KINDS["910B"])
    assert read_table(path, KINDS["910B"]) == cards


@pytest.mark.parametrize(
    "hosts, ids, ips, said",
    [
        ((), (0,), IPS[:1], "--hosts is missing"),
        (SERVERS, (0, 1), IPS[:3], "names 3 addresses, but 2 servers with 2 cards have 4"),
        (SERVERS[:1], (0, 1, 2), IPS[:3], "uses cards 0,1,2 of 192.168.0.1; a run uses 1, 2, 4"),
        (SERVERS[:1], (3, 4), IPS[:2], "must all be of 0 to 3, or all of 4 to 7"),
        (SERVERS[:1], (5, 5), IPS[:2], "gives card 5 of 192.168.0.1 to two ranks"),
    ],
)
def test_cards_that_no_run_may_have_are_refused(hosts, ids, ips, said):
    with pytest.raises(ValueError, match=said):
        make_cards(hosts, ids, ips)


def test_the_script_reads_the_servers_own_files(tmp_path, capsys):
    confs = []
    for server in range(2):
        conf = tmp_path / f"{server}.conf"
        lines = [
            f"address_{card}={IPS[2 * server + card]}\nnetmask_{card}=255.255.255.0\n"
            for card in (0, 1)
        ]
        conf.write_text("".join(lines))
        confs.append(str(conf))
    path = str(tmp_path / "out.json")
    words = ["--hosts", ",".join(SERVERS), "--hccn_conf", ",".join(confs), "--output", path]
    assert main(words + ["--devices", "2", "--layout", "2"]) == 0
    assert read_table(path) == CARDS
    with pytest.raises(ValueError, match="0.conf has no address_2"):
        main(words + ["--devices", "4"])
    with pytest.raises(ValueError, match="--hccn_conf names 1 files and --hosts 2"):
        main(words[:3] + confs[:1] + words[4:] + ["--devices", "2"])
    capsys.readouterr()
    assert main(["--check", path]) == 0
    assert "4 ranks, 2 on each of 2 servers" in capsys.readouterr().out


def test_the_script_ends_with_one_sentence(tmp_path):
    words = [sys.executable, "-m", "runtime.npu.rank_table", "--check", str(tmp_path / "none.json")]
    done = subprocess.run(words, cwd=ROOT, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.decode() == f"error: {tmp_path}/none.json: No such file or directory.\n"


def test_a_server_finds_its_own_cards():
    assert own_cards(CARDS[:2], {}) == CARDS[:2]
    assert own_cards(CARDS, {"RANK_INDEX": "1"}) == CARDS[2:]
    here = [card._replace(server="127.0.0.1") if card.rank > 1 else card for card in CARDS]
    assert own_cards(here, {}) == here[2:]
    for environ in ({}, {"RANK_INDEX": "2"}):
        with pytest.raises(ValueError, match="lists 2 servers .* set RANK_INDEX, from 0 to 1"):
            own_cards(CARDS, environ)
