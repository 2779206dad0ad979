"""facebank.py verb by verb on real files, and each wrong input in one sentence."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import facebank
from serving.face_bank import FaceBank
from tests.serving.clients import config_of, enrol, send_photo, serve
from tests.serving.tiny_models import (
    face,
    write_calibration_set,
    write_graph,
    write_model,
    write_people,
)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# ModelProto{ir_version 6, graph{output{name "y"}}}, opset_import{version 11}
SMALL_ONNX = bytes.fromhex("08063a0562030a01794202100b")
PEOPLE = {"Anna": 1, "Ben": 2, "李明": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("facebank")
    write_model(folder / "model.onnx")
    write_model(folder / "other.onnx", seed=1)
    write_people(folder / "people", PEOPLE)
    write_calibration_set(folder / "lfw.bin")
    (folder / "anna.jpg").write_bytes(face(1, 0))
    (folder / "unknown.jpg").write_bytes(face(50, 0))
    return folder


@pytest.fixture
def bank(folder, tmp_path):
    path = str(tmp_path / "bank.db")
    call(folder, path, "enrol", "--images", str(folder / "people"))
    return path


def call(folder, bank, verb, *words, model="model.onnx"):
    flags = ["--bank", bank, "--model", str(folder / model), "--detector", "none"]
    return facebank.main([verb] + list(words) + flags)


def answer(capsys, *arguments, **more):
    capsys.readouterr()
    call(*arguments, "--json", **more)
    return json.loads(capsys.readouterr().out)


def test_enrol_adds_each_photo_once(folder, bank, capsys):
    assert FaceBank(bank).counts() == (3, 6)
    report = answer(capsys, folder, bank, "enrol", "--images", str(folder / "people"))
    assert (report["added"], report["known"], report["bank_samples"]) == (0, 6, 6)


def test_enrol_warns_of_two_names_for_one_person(folder, tmp_path, capsys, caplog):
    bank = str(tmp_path / "b.db")
    call(folder, bank, "calibrate", "--pairs", str(folder / "lfw.bin"))
    write_people(tmp_path / "people", {"Anna": 1, "Hannah": 1})
    report = answer(capsys, folder, bank, "enrol", "--images", str(tmp_path / "people"))
    assert [pair[:2] for pair in report["similar"]] == [["Anna", "Hannah"]]
    assert "one person, or two names?" in caplog.text


def test_identify_names_the_enrolled_and_answers_unknown(folder, bank, capsys):
    words = ["--images", str(folder), "--threshold", "cosine:0.99"]
    found = answer(capsys, folder, bank, "identify", *words)["photos"]
    names = {os.path.basename(photo["photo"]): photo["name"] for photo in found}
    assert names == {"anna.jpg": "Anna", "unknown.jpg": "unknown"}


@pytest.mark.parametrize("template", ["best", "mean"])
def test_identify_prints_the_numbers_behind_the_answer(folder, bank, capsys, template):
    call(folder, bank, "calibrate", "--pairs", str(folder / "lfw.bin"))
    words = ["--images", str(folder / "anna.jpg"), "--far", "0.1", "--template", template]
    call(folder, bank, "identify", *words)
    line = capsys.readouterr().out.splitlines()[-1]
    for word in ("Anna (cosine", "squared L2", "margin", "threshold", "FAR", "FPIR"):
        assert word in line


def test_identify_in_an_empty_bank_answers_unknown(folder, tmp_path, capsys):
    bank = str(tmp_path / "b.db")
    call(folder, bank, "calibrate", "--pairs", str(folder / "lfw.bin"))
    call(folder, bank, "identify", "--images", str(folder / "anna.jpg"), "--threshold", "1.0")
    assert "unknown (the bank is empty)" in capsys.readouterr().out


def test_verify_compares_two_photos(folder, capsys):
    photos = [str(folder / "anna.jpg"), str(folder / "people" / "Anna" / "0.jpg")]
    flags = ["--model", str(folder / "model.onnx"), "--detector", "none", "--threshold", "0.5"]
    facebank.main(["verify"] + photos + flags)
    assert capsys.readouterr().out.startswith("same person (cosine 1.000")
    facebank.main(["verify"] + flags + [str(folder / "unknown.jpg"), photos[0]])
    assert capsys.readouterr().out.startswith("different people")


def test_calibrate_stores_a_threshold_for_far(folder, bank, capsys):
    report = answer(capsys, folder, bank, "calibrate", "--pairs", str(folder / "lfw.bin"))
    (row,) = report["thresholds"]
    words = ["--images", str(folder / "anna.jpg"), "--far", "0.1"]
    (found,) = answer(capsys, folder, bank, "identify", *words)["photos"]
    assert found["threshold"]["cosine"] == row["cosine"]
    assert found["threshold"]["calibrated_on"] == "lfw.bin"


def test_list_remove_and_erase(bank, capsys):
    facebank.main(["erase", "Anna", "--bank", bank])
    facebank.main(["remove", "--bank", bank, "Ben"])
    facebank.main(["list", "--json", "--bank", bank])
    last = capsys.readouterr().out.splitlines()[-1]
    assert [person["name"] for person in json.loads(last)["people"]] == ["李明"]


def test_check_reports_a_sound_and_a_damaged_bank(bank, capsys):
    assert facebank.main(["check", "--bank", bank]) == 0
    os.chmod(bank, 0o640)
    assert facebank.main(["check", "--bank", bank]) == 1
    assert "chmod 600" in capsys.readouterr().out


def test_export_and_import_keep_every_sample(folder, bank, tmp_path):
    facebank.main(["export", "--bank", bank, "--output", str(tmp_path / "a.npz")])
    copy = str(tmp_path / "copy.db")
    call(folder, copy, "import", "--source", str(tmp_path / "a.npz"))
    rows = [sorted(row.tobytes() for _, _, row in FaceBank(p).embeddings()) for p in (bank, copy)]
    assert FaceBank(copy).counts() == (3, 6)
    first, second = (np.array([np.frombuffer(row, "<f4") for row in part]) for part in rows)
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_export_writes_the_ports_directory(bank, tmp_path):
    facebank.main(["export", "--bank", bank, "--output", str(tmp_path / "port")])
    assert np.load(str(tmp_path / "port" / "names.npy")).tolist() == ["Unknown"] + sorted(PEOPLE)


def run(*words):
    """(exit code, what is on standard error) of facebank.py as a process."""
    done = subprocess.run(
        [sys.executable, "facebank.py"] + list(words),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    return done.returncode, done.stderr


MISTAKES = {
    "no verb": ([], "a command is missing"),
    "another verb": (["add"], "add is not a command"),
    "no name": (["erase", "--bank", "BANK"], "name is missing"),
    "an unknown name": (["erase", "Nobody", "--bank", "BANK"], "nobody named 'Nobody'"),
    "no bank": (["list", "--bank", "nowhere.db"], "no such file"),
    "a threshold of letters": (["identify", "MODEL", "--threshold", "abc"], "neither a squared L2"),
    "two thresholds": (["identify", "MODEL", "--threshold", "1", "--far", "0.1"], "exclude"),
    "no threshold": (["identify", "MODEL"], "calibrat"),
    "far without calibration": (["identify", "MODEL", "--far", "0.1"], "--far needs a calibration"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistake_is_one_sentence(folder, bank, kind):
    words, sentence = MISTAKES[kind]
    model = ["--bank", bank, "--model", str(folder / "model.onnx"), "--detector", "none"]
    model += ["--images", str(folder / "anna.jpg")]
    words = [part for word in words for part in (model if word == "MODEL" else [word])]
    with pytest.raises(ValueError, match="^[^\n]*$") as error:
        facebank.main([bank if word == "BANK" else word for word in words])
    assert sentence in str(error.value)


def test_exit_code_of_a_mistake_is_2_without_a_traceback():
    code, error = run("list", "--bank", "nowhere.db")
    assert code == 2 and error.startswith("error: ") and error.count("\n") == 1


def test_bank_of_another_model_is_refused_with_the_command(folder, bank):
    with pytest.raises(ValueError, match="facebank.py enrol"):
        words = ["--images", str(folder / "anna.jpg"), "--threshold", "1"]
        call(folder, bank, "identify", *words, model="other.onnx")


def test_single_photo_that_cannot_be_used_is_one_sentence(folder, bank, tmp_path):
    (tmp_path / "text.jpg").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"text\.jpg is neither a JPEG nor a PNG\."):
        words = ["--images", str(tmp_path / "text.jpg"), "--threshold", "1"]
        call(folder, bank, "identify", *words)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A folder with a frozen graph: what Python 3.7 with TensorFlow 1.15 runs."""
    if importlib.util.find_spec("onnxruntime") is not None:
        pytest.skip("the same verbs are tested with ONNX Runtime")
    folder = tmp_path_factory.mktemp("graph")
    write_graph(folder / "model.pb")
    write_people(folder / "people", PEOPLE)
    write_calibration_set(folder / "lfw.bin")
    return folder


def test_every_verb_runs_without_onnxruntime(graph, tmp_path, capsys):
    flags = ["--bank", str(tmp_path / "b.db"), "--model", str(graph / "model.pb")]
    flags += ["--detector", "none", "--json"]
    photos = [str(graph / "people" / "Anna" / f"{shot}.jpg") for shot in (0, 1)]
    facebank.main(["calibrate", "--pairs", str(graph / "lfw.bin")] + flags)
    facebank.main(["enrol", "--images", str(graph / "people")] + flags)
    facebank.main(["verify"] + photos + flags + ["--threshold", "2"])
    capsys.readouterr()
    facebank.main(["identify", "--images", photos[0], "--threshold", "cosine:0.99"] + flags)
    assert json.loads(capsys.readouterr().out)["photos"][0]["name"] == "Anna"


def test_server_runs_without_onnxruntime(graph, tmp_path):
    config = dict(bank=str(tmp_path / "b.db"), model=str(graph / "model.pb"))
    server = serve(config_of(graph, **config))
    try:
        assert enrol(server, "Anna", face(1, 0))[0] == 200
        status, answer = send_photo(server, "/v1/identify", face(1, 0))
        assert (status, answer["name"]) == (200, "Anna")
    finally:
        server.shutdown()
        server.server_close()


def test_onnx_without_a_runtime_is_one_sentence(graph, tmp_path):
    (tmp_path / "model.onnx").write_bytes(SMALL_ONNX)
    words = ["enrol", "--images", str(graph / "people"), "--bank", str(tmp_path / "b.db")]
    with pytest.raises(ValueError, match="pip install onnxruntime"):
        facebank.main(words + ["--model", str(tmp_path / "model.onnx")])
