"""infer.py: its verbs on real files, and each wrong input in one sentence."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

import eval_ckpt_file
import infer
from data.eval_data_reader import write_pairs
from nets.lineages import NetSpec
from tests.checkpoint.test_reader import write
from tests.inference import tiny_models
from tests.inference.test_sources import PNG
from tests.nets.tiny_nets import embed, numbers, shapes_of
from tests.test_architecture import ROOT

SPEC = NetSpec("insightface_tf", 18, "ir", 0.125, 24, (32, 32))
IMAGES = np.random.RandomState(1).randint(0, 256, (5, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write(tmp_path_factory.mktemp("ckpt") / "a.ckpt", shapes_of(SPEC), SPEC)


def _embed(checkpoint, tmp_path, images, *more):
    output = str(tmp_path / "out.npy")
    flags = ["--ckpt_file", checkpoint, "--images", str(images), "--output", output]
    infer.main(["embed"] + flags + ["--batch_size", "2"] + list(more))
    return np.load(output)


def _expected(images_NHWC):
    arrays = {name: numbers(name, shape) for name, shape in shapes_of(SPEC).items()}
    return embed(SPEC, arrays, images_NHWC)


def test_an_array_and_a_directory_of_the_same_images_embed_alike(checkpoint, tmp_path):
    np.save(str(tmp_path / "images.npy"), IMAGES)
    (tmp_path / "images").mkdir()
    for number, image in enumerate(IMAGES):
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), image[:, :, ::-1])
    expected = _expected(IMAGES)
    from_array = _embed(checkpoint, tmp_path, tmp_path / "images.npy")
    assert from_array.dtype == np.float32 and from_array.shape == (5, 24)
    np.testing.assert_allclose(from_array, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(_embed(checkpoint, tmp_path, tmp_path / "images"), from_array)


def test_flip_adds_the_mirrored_images_embedding(checkpoint, tmp_path):
    np.save(str(tmp_path / "images.npy"), IMAGES)
    both = _embed(checkpoint, tmp_path, tmp_path / "images.npy", "--flip")
    expected = _expected(IMAGES) + _expected(IMAGES[:, :, ::-1])
    np.testing.assert_allclose(both, expected, rtol=1e-3, atol=1e-4)


def _array(tmp_path, array):
    np.save(str(tmp_path / "images.npy"), array)
    return tmp_path / "images.npy"


def _directory(tmp_path, **files):
    (tmp_path / "images").mkdir()
    for name, content in files.items():
        (tmp_path / "images" / name.replace("_", ".")).write_bytes(content)
    return tmp_path / "images"


def _png(height, width):
    return cv2.imencode(".png", np.zeros((height, width, 3), np.uint8))[1].tobytes()


MISTAKES = {
    "floats": (lambda t: _array(t, IMAGES / 255.0), "float64 [5, 32, 32, 3]"),
    "channels first": (lambda t: _array(t, IMAGES.transpose(0, 3, 1, 2)), "[5, 3, 32, 32]"),
    "no images": (lambda t: _array(t, IMAGES[:0]), "holds no images"),
    "a text as .npy": (lambda t: _directory(t, a_npy=b"text") / "a.npy", "not a whole .npy"),
    "a text file": (lambda t: _directory(t, a_png=_png(32, 32), b_txt=b"x"), "b.txt is not an"),
    "a broken image": (lambda t: _directory(t, a_png=b"x"), "a.png cannot be decoded"),
    "an empty image": (lambda t: _directory(t, a_png=b""), "a.png cannot be decoded"),
    "another size": (lambda t: _directory(t, a_png=_png(40, 32)), "a.png is 40x32 pixels"),
    "an empty directory": (lambda t: _directory(t), "is empty"),
    "another kind of file": (lambda t: _directory(t, a_jpg=b"") / "a.jpg", "neither a directory"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory, checkpoint):
    """A model of 32 x 32 images; an .onnx where it can be run, because TensorFlow starts slowly."""
    if importlib.util.find_spec("onnxruntime") is None:
        return checkpoint
    path = tmp_path_factory.mktemp("onnx") / "a.onnx"
    return tiny_models.write_onnx(path, size=(32, 32))


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_a_mistake_is_one_sentence_and_writes_nothing(model, tmp_path, mistake):
    prepare, says = MISTAKES[mistake]
    with pytest.raises(ValueError, match="^[^\n]*$") as error:
        _embed(model, tmp_path, prepare(tmp_path))
    assert says in str(error.value)
    assert not (tmp_path / "out.npy").exists()


def test_missing_files_are_refused(model, tmp_path):
    with pytest.raises(OSError):
        _embed(model, tmp_path, tmp_path / "none.npy")
    with pytest.raises(ValueError, match="names no checkpoint"):
        _embed(str(tmp_path / "none.ckpt"), tmp_path, _array(tmp_path, IMAGES))


@pytest.mark.parametrize("argv", [[], ["emned"], ["embed"]])
def test_a_wrong_command_line_is_one_sentence(argv):
    with pytest.raises(ValueError, match="^[^\n]*$"):
        infer.main(argv)


@pytest.mark.parametrize("output", ["out.txt", "none/out.npy"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(checkpoint, tmp_path, output):
    flags = ["--ckpt_file", checkpoint, "--images", "x", "--output", str(tmp_path / output)]
    with pytest.raises(ValueError, match="^--output"):
        infer.main(["embed"] + flags)


def test_the_model_flag_takes_a_checkpoint_too(checkpoint, tmp_path):
    flags = ["--model", checkpoint, "--images", str(_array(tmp_path, IMAGES))]
    infer.main(["embed"] + flags + ["--output", str(tmp_path / "out.npy")])
    assert np.load(str(tmp_path / "out.npy")).shape == (5, 24)


onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")),
    reason="needs onnx and onnxruntime",
)


@pytest.fixture
def lfw(tmp_path):
    """A directory with a set of pairs of tiny_models' images."""
    (tmp_path / "sets").mkdir()
    encoded = [PNG[i % len(PNG)] for pair in range(12) for i in (pair, pair + pair % 2)]
    write_pairs(str(tmp_path / "sets" / "lfw.bin"), encoded, np.arange(12) % 2 == 0)
    return tmp_path / "sets"


@onnx
def test_embedding_with_onnx_loads_no_training_framework(tmp_path):
    model = tiny_models.write_onnx(tmp_path / "a.onnx")
    flags = ["--model", model, "--images", str(_array(tmp_path, tiny_models.IMAGES))]
    argv = ["infer.py", "embed"] + flags + ["--output", str(tmp_path / "out.npy")]
    code = (
        f"import runpy, sys; sys.argv = {argv!r}; sys.path.insert(0, '.')\n"
        "try: runpy.run_path('infer.py', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "names = ('tensorflow', 'torch', 'matplotlib', 'onnx')\n"
        "assert not [name for name in names if name in sys.modules]"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    found = np.load(str(tmp_path / "out.npy"))
    np.testing.assert_allclose(found, tiny_models.expected(tiny_models.IMAGES), atol=1e-4)


@onnx
def test_skipped_images_are_counted_and_named(tmp_path, caplog):
    model = tiny_models.write_onnx(tmp_path / "a.onnx")
    folder = _directory(tmp_path, good_png=PNG[0], bad_png=b"x", notes_txt=b"x")
    flags = ["--model", model, "--images", str(folder), "--output", str(tmp_path / "out.npy")]
    infer.main(["embed"] + flags + ["--on_error", "skip"])
    assert "1 of 2 images could not be read (bad.png)" in caplog.text
    assert "1 files are not images: notes.txt" in caplog.text


@onnx
def test_an_image_of_another_size_than_the_models_is_refused(tmp_path):
    model = tiny_models.write_onnx(tmp_path / "a.onnx")
    flags = ["--model", model, "--images", str(_directory(tmp_path, a_png=_png(40, 32)))]
    with pytest.raises(ValueError, match="a.png is 40x32 pixels.*takes 12x16"):
        infer.main(["embed"] + flags + ["--output", str(tmp_path / "out.npy")])


def _guide(tmp_path, lfw, outfmt):
    """The guide's chain with ONNX Runtime in place of the card."""
    model = tiny_models.write_onnx(tmp_path / "a.onnx")
    info, result = str(tmp_path / "lfw"), str(tmp_path / "result")
    size = ["--width", "16", "--height", "12", "--model", model]
    infer.main(["preprocess", "--data_path", str(lfw / "lfw.bin"), "--info_path", info] + size)
    infer.main(["run", "--model", model, "--input", info, "--output", result, "--outfmt", outfmt])
    infer.main(["postprocess", "--result", result, "--data_path", f"{info}_list.npy"])
    return model


@onnx
@pytest.mark.parametrize("outfmt", ["TXT", "BIN", "NPY"])
def test_the_guides_accuracy_is_eval_ckpt_files_to_the_digit(tmp_path, lfw, capsys, outfmt):
    model = _guide(tmp_path, lfw, outfmt)
    printed = capsys.readouterr().out.splitlines()
    report = str(tmp_path / "eval.json")
    eval_ckpt_file.main(["--ckpt_path", model, "--eval_db_path", str(lfw), "--json", report])
    row = json.load(open(report))[0]
    assert printed[-4:] == [
        "*" * 50,
        f"accuracy: {row['accuracy_flip']}",
        f"best_thresholds: {row['threshold']}",
        "*" * 50,
    ]


@onnx
def test_a_run_prints_the_guides_throughput(tmp_path, lfw, capsys):
    _guide(tmp_path, lfw, "BIN")
    pattern = r"\[INFO\] throughput 1000\*batchsize.mean\(1\)/NPU_compute_time.mean\([\d.]+\): "
    assert re.search(pattern, capsys.readouterr().out)


def test_preprocess_writes_the_guides_files(tmp_path, lfw, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    os.replace(str(lfw / "lfw.bin"), str(tmp_path / "data" / "lfw.bin"))
    infer.main(["preprocess", "--file_type", "jpg", "--width", "112", "--height", "112"])
    assert len(os.listdir(str(tmp_path / "data" / "lfw"))) == 48
    assert os.path.getsize(str(tmp_path / "data" / "lfw" / "23_flip.bin")) == 150528
    assert np.load(str(tmp_path / "data" / "lfw_list.npy")).tolist() == [True, False] * 6


@onnx
def test_preprocess_refuses_a_size_that_is_not_the_models(tmp_path, lfw):
    model = tiny_models.write_onnx(tmp_path / "a.onnx")
    flags = ["--data_path", str(lfw / "lfw.bin"), "--info_path", str(tmp_path / "lfw")]
    with pytest.raises(ValueError, match="takes images of 12x16, not 112x112"):
        infer.main(["preprocess", "--model", model] + flags)


@onnx
def test_evaluate_prints_the_table_of_eval_ckpt_file(tmp_path, lfw, capsys):
    model = tiny_models.write_onnx(tmp_path / "a.onnx")
    infer.main(["evaluate", "--model", model, "--eval_db_path", str(lfw)])
    by_infer = capsys.readouterr().out
    eval_ckpt_file.main(["--ckpt_file", model, "--eval_db_path", str(lfw)])
    assert by_infer == capsys.readouterr().out and "a.onnx" in by_infer


@onnx
def test_a_directory_of_exported_models_is_evaluated(tmp_path, lfw):
    (tmp_path / "export").mkdir()
    for name in ("a.onnx", "b.onnx"):
        tiny_models.write_onnx(tmp_path / "export" / name)
    report = str(tmp_path / "eval.json")
    flags = ["--ckpt_path", str(tmp_path / "export"), "--eval_db_path", str(lfw)]
    eval_ckpt_file.main(flags + ["--json", report])
    rows = json.load(open(report))
    assert [os.path.basename(row["checkpoint"]) for row in rows] == ["a.onnx", "b.onnx"]
    assert [row["step"] for row in rows] == [9, 9]


@onnx
def test_benchmark_writes_speed_and_accuracy(tmp_path, lfw, capsys):
    model = tiny_models.write_onnx(tmp_path / "a.onnx")
    flags = ["--batch_sizes", "1", "2", "--seconds", "0.01", "--eval_db_path", str(lfw)]
    report = ["--json", str(tmp_path / "b.json"), "--markdown", str(tmp_path / "b.md")]
    infer.main(["benchmark", "--model", model] + flags + report)
    rows = json.load(open(str(tmp_path / "b.json")))
    assert [row["batch"] for row in rows] == [1, 2]
    assert set(rows[0]["accuracy"]) == {"lfw"}
    assert (tmp_path / "b.md").read_text() in capsys.readouterr().out


@onnx
def test_benchmark_of_a_fixed_batch_needs_that_batch(tmp_path):
    model = tiny_models.write_onnx(tmp_path / "a.onnx", batch=3)
    with pytest.raises(ValueError, match="fixed batch size 3"):
        infer.main(["benchmark", "--model", model, "--batch_sizes", "1", "2"])


def test_help_lists_every_verb(capsys):
    with pytest.raises(SystemExit) as exit_:
        infer.main(["--help"])
    assert exit_.value.code == 0
    printed = capsys.readouterr().out
    assert all(verb in printed for verb in infer.VERBS)
