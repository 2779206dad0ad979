"""Other projects' files -> checkpoints and back; a mistake is one sentence and writes nothing."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import convert_weights
from checkpoint.format import read_record
from checkpoint.reader import spec_of, variable_arrays
from nets.lineages import NetSpec
from nets.weights.files import read_tensors, write_tensors
from nets.weights.layout import tensors_of
from tests.nets.tiny_nets import numbers, shapes_of
from tests.nets.weights.test_files import write_params

SIZES = ["--width", "0.125", "--embedding_size", "24", "--image_size", "32,32"]


def _spec(lineage="arcface_torch", depth=18, block="ir", embedding=24):
    return NetSpec(lineage, depth, block, 0.125, embedding, (32, 32))


def _tensors(spec):
    return tensors_of({n: numbers(n, shape) for n, shape in shapes_of(spec).items()}, spec)


def _write(path, spec=None, **changes):
    """A source file of a spec's tensors, some changed; None takes one out."""
    tensors = dict(_tensors(spec or _spec()), **changes)
    write_tensors(str(path), {n: a for n, a in tensors.items() if a is not None})
    return str(path)


def _convert(tmp_path, source, *more, lineage="arcface_torch", depth=18):
    out = str(tmp_path / "ckpt" / "InsightFace_iter_0.ckpt")
    flags = ["--lineage", lineage, "--net_depth", str(depth), "--source", source]
    convert_weights.main(flags + ["--ckpt_file", out] + list(more or SIZES))
    return out


@pytest.mark.parametrize(
    "lineage, block, depth",
    [("arcface_torch", "ir", 18), ("insightface_mxnet", "se", 18), ("cvlface", "se", 18)],
)
def test_there_and_back_again_is_the_same_file(tmp_path, lineage, block, depth):
    spec = _spec(lineage, depth, block)
    source = _write(tmp_path / "in.npz", spec)
    more = SIZES + (["--se"] if block == "se" else [])
    out = _convert(tmp_path, source, *more, lineage=lineage, depth=depth)
    assert spec_of(out) == spec and read_record(out)["step"] == 0
    back = str(tmp_path / "out.safetensors")
    convert_weights.main(["--ckpt_file", out, "--to", lineage, back])
    original, returned = read_tensors(source), read_tensors(back)
    assert sorted(original) == sorted(returned)
    for name, array in original.items():
        if name != "fc1_gamma":  # MXNet's fixed gamma is read as 1
            assert np.array_equal(array, returned[name]), name


def test_wrappers_and_counters_are_taken_off(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {f"module.{n}": torch.from_numpy(a) for n, a in _tensors(_spec()).items()}
    tensors["module.bn1.num_batches_tracked"] = torch.tensor(7)
    torch.save({"epoch": 3, "state_dict_backbone": tensors}, str(tmp_path / "in.pt"))
    out = _convert(tmp_path, str(tmp_path / "in.pt"))
    names = shapes_of(_spec())
    for name, array in variable_arrays(out, list(names)).items():
        assert np.array_equal(array, numbers(name, array.shape))


def test_pth_comes_back_into_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    out = _convert(tmp_path, _write(tmp_path / "in.npz"))
    convert_weights.main(["--ckpt_file", out, "--to", "arcface_torch", str(tmp_path / "m.pth")])
    state = torch.load(str(tmp_path / "m.pth"), weights_only=True)
    assert np.array_equal(state["fc.weight"].numpy(), _tensors(_spec())["fc.weight"])


def test_class_weights_are_left_out_and_said(tmp_path, capsys):
    spec = _spec("insightface_mxnet")
    source = _write(tmp_path / "in.npz", spec, fc7_weight=np.zeros((9, 24), np.float32))
    _convert(tmp_path, source, lineage="insightface_mxnet")
    assert "class weights: fc7_weight." in capsys.readouterr().out


def test_the_originals_names_pass_through_an_npz(tmp_path):
    spec = _spec("insightface_tf")
    arrays = {n: numbers(n, shape) for n, shape in shapes_of(spec).items()}
    np.savez(str(tmp_path / "in.npz"), **arrays)
    out = _convert(tmp_path, str(tmp_path / "in.npz"), lineage="insightface_tf")
    assert np.array_equal(
        variable_arrays(out, ["resnet_v1_18/E_DenseLayer/W"])["resnet_v1_18/E_DenseLayer/W"],
        arrays["resnet_v1_18/E_DenseLayer/W"],
    )


@pytest.mark.parametrize("version", [0, 1, 2])
def test_mxnets_params_are_read(tmp_path, version):
    spec = _spec("insightface_mxnet")
    source = write_params(tmp_path / "model-0000.params", _tensors(spec), version)
    out = _convert(tmp_path, source, lineage="insightface_mxnet")
    name = "resnet_v1_18/block4/unit_2/bottleneck_v1/conv2/W_conv2d"
    array = variable_arrays(out, [name])[name]
    assert np.array_equal(array, numbers(name, array.shape))


def _broken(tmp_path, ending):
    source = tmp_path / f"in{ending}"
    if ending == ".params":
        write_params(source, _tensors(_spec("insightface_mxnet")))
    else:
        _write(source)
    content = source.read_bytes()
    source.write_bytes(content[: len(content) // 2])
    return str(source)


MISTAKES = {
    "another depth": (
        lambda t: (_write(t / "in.npz", _spec(depth=34)), []),
        ["120 extra: layer1.2.bn1.", "--lineage arcface_torch --net_depth 34"],
    ),
    "another lineage": (
        lambda t: (_write(t / "in.npz", _spec("cvlface")), []),
        ["missing: conv1.weight", "--lineage cvlface --net_depth 18"],
    ),
    "another embedding size": (
        lambda t: (_write(t / "in.npz", _spec(embedding=16)), []),
        ["fc.weight 16x256 instead of 24x256", "--embedding_size 16"],
    ),
    "a missing tensor": (
        lambda t: (_write(t / "in.npz", **{"fc.bias": None}), []),
        ["1 missing: fc.bias"],
    ),
    "an extra tensor": (
        lambda t: (_write(t / "in.npz", extra=np.zeros(2, np.float32)), []),
        ["1 extra: extra"],
    ),
    "a truncated npz": (lambda t: (_broken(t, ".npz"), []), ["copy it again"]),
    "a truncated safetensors": (lambda t: (_broken(t, ".safetensors"), []), ["copy it again"]),
    "a truncated params": (lambda t: (_broken(t, ".params"), []), ["copy it again"]),
    "no such file": (lambda t: (str(t / "none.npz"), []), ["is not a file"]),
    "an unknown ending": (lambda t: (_write_text(t / "in.txt"), []), ["ends in .txt"]),
    "an npz of objects": (lambda t: (_objects(t / "in.npz"), []), ["not a whole .npz of numbers"]),
    "both ways at once": (
        lambda t: (_write(t / "in.npz"), ["--to", "arcface_torch", "x.npz"]),
        ["either --source FILE"],
    ),
    "se where there is none": (lambda t: (_write(t / "in.npz"), ["--se"]), ["it has ir"]),
}


def _write_text(path):
    path.write_text("x")
    return str(path)


def _objects(path):
    np.savez(str(path), x=np.array([{}], dtype=object))
    return str(path)


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_a_mistake_is_one_sentence_and_writes_nothing(tmp_path, mistake):
    prepare, says = MISTAKES[mistake]
    source, more = prepare(tmp_path)
    with pytest.raises(ValueError, match="^[^\n]*$") as error:
        _convert(tmp_path, source, *(SIZES + more))
    assert all(part in str(error.value) for part in says), str(error.value)
    assert not (tmp_path / "ckpt").exists()


class _Code:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize("kind", ["code", "truncated"])
def test_a_pickle_is_never_executed(tmp_path, monkeypatch, kind):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    if kind == "code":
        torch.save({"state_dict": _Code()}, "in.pth")
        (tmp_path / "plain.pth").write_bytes(pickle.dumps(_Code()))
        with pytest.raises(ValueError, match="^[^\n]*$"):
            _convert(tmp_path, "plain.pth")
    else:
        torch.save({"x": torch.zeros(1000)}, "in.pth")
        with open("in.pth", "r+b") as stream:
            stream.truncate(600)
    with pytest.raises(ValueError, match="^[^\n]*$"):
        _convert(tmp_path, "in.pth")
    assert not (tmp_path / "executed").exists() and not (tmp_path / "ckpt").exists()


def test_without_pytorch_a_pth_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "in.pth").write_bytes(b"x")
    with pytest.raises(ValueError, match="pip install torch"):
        _convert(tmp_path, str(tmp_path / "in.pth"))


def test_exporting_as_another_lineage_says_what_differs(tmp_path):
    out = _convert(tmp_path, _write(tmp_path / "in.npz"))
    with pytest.raises(ValueError, match="differs from insightface_mxnet in .*eps.*divisor"):
        convert_weights.main(["--ckpt_file", out, "--to", "insightface_mxnet", "x.npz"])
    with pytest.raises(ValueError, match="names no checkpoint"):
        convert_weights.main(["--ckpt_file", out + "x", "--to", "arcface_torch", "x.npz"])


def test_the_script_ends_with_2(tmp_path):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    run = subprocess.run(
        [sys.executable, os.path.join(root, "convert_weights.py"), "--source", "none.npz"]
        + ["--ckpt_file", str(tmp_path / "a.ckpt")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run.returncode == 2 and b"error: --source none.npz is not a file" in run.stderr


def test_onnx_is_referred_to_the_exporter(tmp_path):
    words = ["--ckpt_file", str(tmp_path / "a.ckpt"), "--to", "arcface_torch", "model.onnx"]
    with pytest.raises(ValueError, match="export_model.py writes models for other runtimes"):
        convert_weights.main(words)
