"""python -m serving.web: its flags, and what keeps it from starting."""

import subprocess
import sys

import pytest

from serving.face_bank import FaceBank
from serving.recognizer import Recognizer
from serving.web import build_server, check_network
from tests.serving.clients import config_of

TOKEN = "0123456789abcdef"


def test_address_beyond_loopback_needs_a_token(folder):
    with pytest.raises(ValueError, match="pass --token"):
        check_network(config_of(folder, host="0.0.0.0"))
    check_network(config_of(folder, host="0.0.0.0", token=TOKEN))


def test_short_token_is_refused(folder):
    with pytest.raises(ValueError, match="longer"):
        check_network(config_of(folder, token="abc"))


def test_port_in_use_is_one_sentence(server, folder):
    done = subprocess.run(
        [sys.executable, "-m", "serving.web", "--bank", str(folder / "bank.db"), "--model"]
        + [str(folder / "model.onnx"), "--threshold", "1.0", "--detector", "none", "--port"]
        + [str(server.server_address[1])],
        stderr=subprocess.PIPE,
    )
    assert done.returncode == 2 and b"choose another --port" in done.stderr
    assert b"Traceback" not in done.stderr


def test_server_without_a_threshold_does_not_start(folder):
    with pytest.raises(ValueError, match="calibrate"):
        build_server(config_of(folder, threshold=None))


def test_bank_is_created_with_the_servers_model(server, folder):
    bank = FaceBank(str(folder / "bank.db"))
    assert bank.contract == Recognizer(str(folder / "model.onnx"), "none").contract
