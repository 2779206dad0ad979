"""Files of named tensors <-> {name: NumPy array}: .pth, .safetensors, .npz, MXNet's .params.

Nothing of a file is executed: pickles go through PyTorch's weights_only reader, the others hold
only numbers.
"""

import json
import os
import struct
import zipfile
from typing import Any, BinaryIO, Dict, NamedTuple, Tuple

import numpy as np

from runtime.files import atomic_write, first_line, write_npz

Tensors = Dict[str, np.ndarray]  # by name

NESTS = ("state_dict", "net_state_dict", "state_dict_backbone", "model_state_dict", "model")
PREFIXES = ("module.", "net.", "backbone.", "model.", "arg:", "aux:")
SAFETENSORS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1"}
MODELS = (".onnx", ".tflite", ".pb", ".om", ".mindir", ".xml", ".h5", ".keras")  # not weights alone
INFLATION = 100  # a .npz that claims to hold more bytes per byte is no file of weights
MXNET_LIST, MXNET_V1, MXNET_V2 = 0x112, 0xF993FAC8, 0xF993FAC9
MXNET_TYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8"}


def read_tensors(path: str) -> Tensors:
    """{name: array} of a file by its ending; wrappers such as `module.` are removed from names."""
    if not os.path.isfile(path):
        raise ValueError(f"--source {path} is not a file; pass the weights to convert.")
    readers = {
        ".npz": _read_npz,
        ".safetensors": _read_safetensors,
        ".params": _read_mxnet,
        ".pth": _read_torch,
        ".pt": _read_torch,
        ".ckpt": _read_torch,
        ".bin": _read_torch,
    }
    ending = os.path.splitext(path)[1]
    if ending not in readers:
        raise ValueError(
            f"--source {path} ends in {ending or 'nothing'}; its weights are read from "
            f"{', '.join(sorted(readers))}."
        )
    tensors = readers[ending](path)
    if not tensors:
        raise ValueError(f"{path} holds no tensors.")
    return _unwrapped(tensors)


def write_tensors(path: str, tensors: Tensors) -> None:
    """{name: array} -> a file by its ending: .npz, .safetensors, .pth or .pt."""
    check_writable(path)
    ending = os.path.splitext(path)[1]
    if ending == ".npz":
        write_npz(path, tensors)
        return
    with atomic_write(path, "wb") as stream:
        if ending == ".safetensors":
            _write_safetensors(stream, tensors)
        else:
            torch = _torch(path)
            torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, stream)


def check_writable(path: str) -> None:
    """Refuses a file that write_tensors cannot write; call it before hours of work."""
    ending = os.path.splitext(path)[1]
    if ending in MODELS:
        raise ValueError(
            f"{path}: weights are written to .npz, .safetensors, .pth or .pt. export_model.py "
            "writes models for other runtimes, such as ONNX."
        )
    if ending not in (".npz", ".safetensors", ".pth", ".pt"):
        raise ValueError(f"{path}: weights are written to .npz, .safetensors, .pth or .pt.")
    if ending in (".pth", ".pt"):
        _torch(path)


def _unwrapped(tensors: Tensors) -> Tensors:
    """Removes the prefixes that all names share, one after the other."""
    while True:
        for prefix in PREFIXES:
            wrapped = [name for name in tensors if name.startswith(prefix)]
            if prefix.endswith(":"):
                if wrapped:
                    tensors = {name.split(":", 1)[-1]: array for name, array in tensors.items()}
                    break
            elif wrapped and len(wrapped) == len(tensors):
                tensors = {name[len(prefix) :]: array for name, array in tensors.items()}
                break
        else:
            return tensors


def _torch(path: str) -> Any:
    try:
        import torch
    except ImportError:
        raise ValueError(
            f"{path} needs PyTorch; pip install torch, or convert from .npz or .safetensors."
        ) from None
    return torch


def _read_torch(path: str) -> Tensors:
    torch = _torch(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds; none of them is a defect of ours
        raise ValueError(_torch_sentence(path, error)) from None
    for nest in NESTS:
        if isinstance(content, dict) and isinstance(content.get(nest), dict):
            content = content[nest]
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors.")
    tensors = {name: value for name, value in content.items() if torch.is_tensor(value)}
    for name, value in tensors.items():  # an expanded tensor repeats one stored number
        if value.numel() * value.element_size() > os.path.getsize(path):
            raise ValueError(f"{path}: tensor {name} is larger than the file. Copy it again.")
    return {
        name: (value.float() if value.is_floating_point() else value).cpu().numpy()
        for name, value in tensors.items()
    }


def _torch_sentence(path, error):
    if "weights_only" in str(error) or "Unsupported" in str(error) or "GLOBAL" in str(error):
        return (
            f"{path} holds Python objects besides tensors, and those are not executed here; save "
            "its state_dict alone with torch.save(model.state_dict(), ...)."
        )
    return f"{path} is not a whole PyTorch file ({first_line(error)[:120]}); copy it again."


def _read_npz(path: str) -> Tensors:
    _check_inflation(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile and NumPy raise a dozen kinds at a damaged file
        raise ValueError(
            f"{path} is not a whole .npz of numbers ({error}); copy it again."
        ) from None


def _check_inflation(path: str) -> None:
    """Refuses a small archive that unpacks to a large one, before anything is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(info.file_size for info in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # the reader reports it
    if claimed > INFLATION * os.path.getsize(path) + (64 << 20):
        raise ValueError(
            f"{path} has {os.path.getsize(path)} bytes and claims to hold {claimed}, which no file "
            "of weights does."
        )


def _read_safetensors(path: str) -> Tensors:
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            raise ValueError(f"{path} is not a whole .safetensors file; copy it again.")
        try:
            header = json.loads(stream.read(length).decode("utf-8"))
            plan = [_entry(name, e) for name, e in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            raise ValueError(
                f"{path} has no readable .safetensors header; copy it again."
            ) from None
        return {entry.name: _safetensor(stream, path, length + 8, size, entry) for entry in plan}


class _Entry(NamedTuple):
    """A tensor in the header of a .safetensors file."""

    name: str
    dtype: str  # a key of SAFETENSORS, or BF16
    shape: Tuple[int, ...]
    begin: int  # bytes from the end of the header
    end: int


def _entry(name: str, entry: Dict[str, Any]) -> _Entry:
    begin, end = entry["data_offsets"]
    shape = tuple(int(side) for side in entry["shape"])
    return _Entry(name, str(entry["dtype"]), shape, int(begin), int(end))


def _safetensor(stream: BinaryIO, path: str, base: int, size: int, entry: _Entry) -> np.ndarray:
    """One tensor of a file of `size` bytes with a header of `base` bytes."""
    name, dtype, shape, begin, end = entry
    known = "<u2" if dtype == "BF16" else SAFETENSORS.get(dtype)
    if known is None:
        raise ValueError(f"{path}: tensor {name} is of type {dtype}, which is not supported.")
    length = np.dtype(known).itemsize
    for side in shape:
        length *= side
    if not 0 <= begin <= end <= size - base or end - begin != length or min(shape, default=0) < 0:
        raise ValueError(f"{path}: tensor {name} lies outside of the file; copy it again.")
    stream.seek(base + begin)
    array = np.frombuffer(stream.read(end - begin), known)
    if dtype == "BF16":  # the upper half of a float32
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.reshape(shape)


def _write_safetensors(stream: BinaryIO, tensors: Tensors) -> None:
    header: Dict[str, Any] = {}
    offset = 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.size * 4],
        }
        offset += array.size * 4
    text = json.dumps(header).encode("utf-8")
    text += b" " * (-len(text) % 8)
    stream.write(struct.pack("<Q", len(text)) + text)
    for array in tensors.values():
        stream.write(np.ascontiguousarray(array, "<f4").tobytes())


def _read_mxnet(path: str) -> Tensors:
    """MXNet's list of named arrays: dense arrays of format 0, 1 and 2, little endian."""
    with open(path, "rb") as stream:
        if stream.read(8) != struct.pack("<Q", MXNET_LIST):
            raise ValueError(f"{path} does not begin as MXNet's .params files do.")
        try:
            _exactly(stream, 8)
            arrays = [_mxnet_array(stream) for _ in range(_number(stream, "<Q"))]
            named = range(_number(stream, "<Q"))
            names = [_exactly(stream, _number(stream, "<Q")).decode() for _ in named]
        except (struct.error, EOFError, KeyError, ValueError, OverflowError, MemoryError):
            raise ValueError(f"{path} is not a whole .params file; copy it again.") from None
    if len(names) != len(arrays):
        raise ValueError(f"{path} has {len(arrays)} arrays and {len(names)} names; copy it again.")
    return dict(zip(names, arrays))


def _mxnet_array(stream):
    first = _number(stream, "<I")
    if first == MXNET_V2 and _number(stream, "<i") != 0:
        raise KeyError("a sparse array")
    if first in (MXNET_V1, MXNET_V2):
        rank = _number(stream, "<I")
        shape = struct.unpack(f"<{rank}q", _exactly(stream, 8 * rank))
    else:  # the oldest format: the rank stands where the others have their magic
        shape = struct.unpack(f"<{first}I", _exactly(stream, 4 * first))
    _exactly(stream, 8)  # the device that held it
    dtype = np.dtype(MXNET_TYPES[_number(stream, "<i")])
    count = int(np.prod(shape, dtype=np.int64)) if shape else 0
    return np.frombuffer(_exactly(stream, count * dtype.itemsize), dtype).reshape(shape)


def _number(stream, form):
    return struct.unpack(form, _exactly(stream, struct.calcsize(form)))[0]


def _exactly(stream, count):
    if not 0 <= count <= os.fstat(stream.fileno()).st_size - stream.tell():
        raise EOFError
    return stream.read(count)
