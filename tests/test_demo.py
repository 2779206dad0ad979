"""demo.py: the port's lines, its arithmetic and its bank."""

import numpy as np
import pytest

import demo
from faces.photo import read_photo
from serving.recognizer import Recognizer
from serving.unit_vectors import unit
from tests.serving.tiny_models import face, write_model, write_people

PEOPLE = {"Anna": 1, "Ben": 2}


@pytest.fixture
def folder(tmp_path):
    write_model(tmp_path / "model.onnx")
    write_people(tmp_path / "bank", PEOPLE)
    (tmp_path / "demo_img.jpg").write_bytes(face(1, 0))
    return tmp_path


def call(folder, *words, image="demo_img.jpg"):
    flags = ["--weights_path", str(folder / "model.onnx"), "--data_path", str(folder / image)]
    flags += ["--facebank_dir", str(folder / "bank"), "--detector", "none"]
    return demo.main(flags + list(words))


def embeddings(folder, *images):
    recognizer = Recognizer(str(folder / "model.onnx"), "none")
    return recognizer.embed_crops(np.stack([read_photo(image) for image in images]))


def test_embedding_is_printed(folder, capsys):
    call(folder)
    line = capsys.readouterr().out
    assert line.startswith("emb_batch: [[")
    numbers = np.array(line[len("emb_batch: [[") :].replace("]", " ").split(), float)
    np.testing.assert_allclose(numbers, embeddings(folder, face(1, 0))[0], atol=1e-4)


def test_check_prints_the_ports_lines(folder, capsys):
    call(folder, "--check", "1", "--update", "1")
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("*" * 50)
    assert "start building face_bank, Have a cup of coffee first ? " in lines
    mean = embeddings(folder, face(1, 0), face(1, 1)).mean(axis=0)
    distance = float(np.square(mean - embeddings(folder, face(1, 0))[0]).sum())
    assert lines[start : start + 4] == [
        "*" * 50,
        "facebank name list: ['Unknown', 'Anna', 'Ben']",
        "result: tensor([0])",
        "name: Anna",
    ]
    score = float(lines[start + 4][len("score: tensor([") : -2])
    assert score == pytest.approx(distance, abs=1e-3)
    assert lines[start + 5] == "*" * 50


def test_bank_is_loaded_again(folder, capsys):
    call(folder, "--update", "1")
    capsys.readouterr()
    call(folder, "--check", "1")
    lines = capsys.readouterr().out.splitlines()
    assert "start loading face_bank" in lines and "name: Anna" in lines


def test_distance_above_the_threshold_is_unknown(folder, capsys):
    (folder / "other.jpg").write_bytes(face(50, 0))
    call(folder, "--check", "1", "--update", "1", "--threshold", "0.01", image="other.jpg")
    lines = capsys.readouterr().out.splitlines()
    assert "result: tensor([-1])" in lines and "name: Unknown" in lines


def test_port_bank_is_read(folder, capsys):
    torch = pytest.importorskip("torch")
    rows = torch.from_numpy(
        np.concatenate([-embeddings(folder, face(1)), embeddings(folder, face(1))])
    )
    torch.save(rows, str(folder / "bank" / "facebank.pth"))
    np.save(str(folder / "bank" / "names.npy"), np.array(["Unknown", "Opposite", "Same"]))
    call(folder, "--check", "1")
    assert "name: Same" in capsys.readouterr().out


def test_check_without_a_bank_is_one_sentence(folder):
    with pytest.raises(ValueError, match="please update facebank first"):
        call(folder, "--check", "1")


def test_unusable_photos_of_the_bank_are_reported(folder, caplog):
    (folder / "bank" / "Anna" / "notes.txt").write_bytes(b"text")
    call(folder, "--update", "1")
    assert "notes.txt is neither a JPEG nor a PNG; it is skipped" in caplog.text


def test_weights_of_pytorch_name_the_converter(folder):
    with pytest.raises(ValueError, match="convert_weights.py"):
        demo.main(["--weights_path", "model_ir_se100.pth"])


def test_nearest_is_by_squared_distance():
    bank = unit(np.eye(3))
    assert demo.nearest(bank[1], bank, 1.54) == demo.Answer(1, 0.0)
    assert demo.nearest(bank[1], bank[[0, 2]], 1.54).place == -1
    assert demo.nearest(bank[1], bank[:0], 1.54).place == -1


def test_bank_of_another_width_is_refused():
    with pytest.raises(ValueError, match="have 3 numbers, the model's 4"):
        demo.nearest(np.ones(4), np.eye(3), 1.54)
