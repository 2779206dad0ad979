"""Readers of weights: what comes back, and damage as one sentence, whatever byte it hits."""

import json
import os
import struct

import numpy as np
import pytest

from nets.weights.files import read_tensors, write_tensors

TENSORS = {
    "module.a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "module.b": np.array([0.5, -1.0], np.float32),
}


def write_params(path, tensors, version=2):
    """An MXNet .params file, written from the format's description; versions 0, 1 and 2."""
    content = struct.pack("<QQQ", 0x112, 0, len(tensors))
    for array in tensors.values():
        if version == 2:
            content += struct.pack("<Ii", 0xF993FAC9, 0)
        elif version == 1:
            content += struct.pack("<I", 0xF993FAC8)
        size = "I" if version == 0 else "q"
        content += struct.pack(f"<I{array.ndim}{size}", array.ndim, *array.shape)
        content += struct.pack("<iii", 1, 0, 0) + array.astype("<f4").tobytes()
    content += struct.pack("<Q", len(tensors))
    for name in tensors:
        named = f"{'aux' if 'moving_' in name else 'arg'}:{name}".encode()
        content += struct.pack("<Q", len(named)) + named
    path.write_bytes(content)
    return str(path)


def _write(path):
    if path.suffix == ".params":
        return write_params(path, TENSORS)
    write_tensors(str(path), TENSORS)
    return str(path)


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".params"])
def test_tensors_come_back_without_their_wrapper(tmp_path, ending):
    tensors = read_tensors(_write(tmp_path / f"a{ending}"))
    assert sorted(tensors) == ["a.weight", "b"]
    for name, array in tensors.items():
        assert np.array_equal(array, TENSORS[f"module.{name}"])


def test_bfloat16_is_the_upper_half_of_float32(tmp_path):
    array = np.array([1.0, -2.5, 0.15625], np.float32)
    half = (array.view(np.uint32) >> 16).astype("<u2")
    entry = {"x": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}
    header = json.dumps(entry).encode()
    content = struct.pack("<Q", len(header)) + header + half.tobytes()
    (tmp_path / "a.safetensors").write_bytes(content)
    assert np.array_equal(read_tensors(str(tmp_path / "a.safetensors"))["x"], array)


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".params"])
def test_damage_anywhere_is_one_sentence_or_harmless(tmp_path, ending):
    source = tmp_path / f"a{ending}"
    _write(source)
    whole, draw = source.read_bytes(), np.random.RandomState(5)
    for trial in range(150):
        content = bytearray(whole)
        if trial % 3:
            for place in draw.randint(0, len(content), 1 + trial % 4):
                content[place] = draw.randint(0, 256)
        else:
            content = content[: draw.randint(0, len(content))]
        source.write_bytes(bytes(content))
        try:
            read_tensors(str(source))
        except ValueError as error:
            assert str(source) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [float("inf")], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
        {"dtype": "F32", "shape": [1], "data_offsets": 7},
        [],
    ],
)
def test_a_lying_safetensors_header_is_refused(tmp_path, entry):
    header = json.dumps({"x": entry}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"1234")
    with pytest.raises(ValueError, match="^[^\n]*$"):
        read_tensors(str(path))


def test_a_small_npz_that_claims_to_be_large_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(str(path), x=np.zeros((8, 4 << 20), np.float32))  # 128 MiB of zeros
    with pytest.raises(ValueError, match="claims to hold"):
        read_tensors(str(path))


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_a_file_is_replaced_completely_or_not_at_all(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    write_tensors(str(path), {"x": np.zeros(3, np.float32)})
    before = path.read_bytes()
    with pytest.raises((AttributeError, TypeError, ValueError)):
        write_tensors(str(path), {"x": np.zeros(3, np.float32), "y": NoArray()})
    assert path.read_bytes() == before and os.listdir(str(tmp_path)) == [path.name]


class NoArray:
    """Something that no writer can store."""

    def __array__(self, *arguments, **options):
        raise TypeError("no array")


@pytest.mark.parametrize("name, message", [("a.onnx", "export_model.py"), ("a.txt", ".npz, .saf")])
def test_a_format_that_is_not_of_weights_is_refused(tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        write_tensors(str(tmp_path / name), {"x": np.zeros(1, np.float32)})
    assert not os.listdir(str(tmp_path))
