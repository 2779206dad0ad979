"""The files of the Ascend inference guide: one tensor a file before the card, one result after it.

P pairs, N = 2 P images, D embedding. Before: `{i}.bin` and the mirrored `{i}_flip.bin`, float32
[3, H, W]. After, as ais_bench writes them: `{i}_0.txt` and `{i}_flip_0.txt`, where 0 is the number
of the output; .bin and .npy hold the same values.
"""

import io
import os
import re
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np

from data.eval_data_reader import decode_images, read_pairs
from inference.batches import prefetch
from inference.embedder import Embedder
from inference.preprocessing import Preprocessing
from runtime.files import atomic_write, read_npy

RESULT = re.compile(r"^(\d+)(_flip)?_0\.(txt|bin|npy)$")
TENSOR_ENDINGS = (".bin", ".npy")
AT_ONCE = 16  # images that one thread prepares between two reports of progress
NAMED = 3  # missing files that a message lists

Progress = Callable[[int], Any]


def guide_tables() -> np.ndarray:
    """float32 [3, 256]: what the guide makes of a byte, by torchvision: (v / 255 - 0.5) / 0.5."""
    byte_T: np.ndarray = np.arange(256, dtype=np.float32) / np.float32(255)
    table_T = (byte_T - np.float32(0.5)) / np.float32(0.5)
    return np.stack([table_T] * 3)


def tables_of(preprocessing: Preprocessing) -> np.ndarray:
    """float32 [3, 256]: the value of each byte in each channel, in the model's channel order."""
    mean_C = np.array(preprocessing.mean * (3 // len(preprocessing.mean)), np.float32)
    byte_T: np.ndarray = np.arange(256, dtype=np.float32)
    return (byte_T - mean_C[:, None]) / np.float32(preprocessing.scale)


class TensorForm(NamedTuple):
    """What the tensors of a set look like."""

    channel_order: str  # "RGB" or "BGR"
    tables_CT: np.ndarray  # float32 [3, 256]: the value of each byte, see tables_of
    size: Tuple[int, int] = (112, 112)  # height, width; others are resized as evaluation does
    file_format: str = "bin"  # "bin", the bytes alone, or "npy"


GUIDE = TensorForm("BGR", guide_tables())


def write_tensors(
    bin_path: str,
    directory: str,
    form: TensorForm,
    progress: Optional[Progress] = None,
) -> np.ndarray:
    """A .bin set -> two files an image in `directory`; returns issame, bool [P]."""
    encoded, issame_P = read_pairs(bin_path)
    os.makedirs(directory, exist_ok=True)

    def work(start: int) -> int:
        part = encoded[start : start + AT_ONCE]
        images_NHWC = decode_images(part, form.size, f"{bin_path}: image", start)
        for number, image_HWC in enumerate(images_NHWC, start):
            pixels_HWC = image_HWC[:, :, ::-1] if form.channel_order == "BGR" else image_HWC
            planes_CHW = np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1))
            tensor_CHW = np.stack(
                [cv2.LUT(plane, table) for plane, table in zip(planes_CHW, form.tables_CT)]
            )
            _write_tensor(os.path.join(directory, f"{number}.{form.file_format}"), tensor_CHW)
            mirrored_CHW = np.ascontiguousarray(tensor_CHW[:, :, ::-1])
            _write_tensor(
                os.path.join(directory, f"{number}_flip.{form.file_format}"), mirrored_CHW
            )
        return len(part)

    for done in prefetch(work, range(0, len(encoded), AT_ONCE)):
        if progress is not None:
            progress(done)
    return issame_P


def _write_tensor(path: str, tensor_CHW: np.ndarray) -> None:
    try:
        with open(path, "wb", buffering=0) as stream:
            if path.endswith(".npy"):
                buffer = io.BytesIO()
                np.save(buffer, tensor_CHW)
                content: Any = buffer.getbuffer()
            else:
                content = tensor_CHW.data.cast("B")
            while len(content):
                content = content[stream.write(content) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


class TensorFolder(NamedTuple):
    """A directory of tensors, as ais_bench reads one."""

    directory: str  # where they are
    names: List[str]  # file names in natural order: 0.bin, 0_flip.bin, 1.bin ...

    def read(self, names: Sequence[str], shape: Tuple[int, ...], dtype: str) -> np.ndarray:
        """The tensors of some of the files, each of `shape`: [B, ...]."""
        out: np.ndarray = np.empty((len(names),) + shape, dtype)
        for row, name in enumerate(names):
            path = os.path.join(self.directory, name)
            if name.lower().endswith(".npy"):
                values = read_npy(path)
            else:
                values = np.fromfile(path, dtype)
            if values.nbytes != out[row].nbytes:
                raise ValueError(
                    f"{path} holds {values.nbytes} bytes, but the model takes {dtype} "
                    f"{list(shape)}: {out[row].nbytes}; preprocess for this model."
                )
            out[row] = values.reshape(shape)
        return out


def open_tensors(directory: str) -> TensorFolder:
    """The .bin and .npy files of a directory."""
    names = [name for name in os.listdir(directory) if name.lower().endswith(TENSOR_ENDINGS)]
    if not names:
        raise ValueError(
            f"{directory} holds no .bin or .npy tensors; write them with infer.py preprocess."
        )
    return TensorFolder(directory, sorted(names, key=_natural))


def _natural(name: str) -> List[Any]:
    """Digits compare as numbers, so that 2.bin comes before 10.bin."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def write_result(directory: str, tensor_name: str, row_D: np.ndarray, file_format: str) -> None:
    """One embedding as ais_bench writes it: `<stem>_0.txt`, values with 6 decimals and a blank."""
    path = os.path.join(directory, f"{tensor_name.split('.')[0]}_0.{file_format}")
    try:
        if file_format == "txt":
            with open(path, "w", encoding="ascii") as stream:
                stream.write("".join("%f " % value for value in row_D.tolist()) + "\n")
        elif file_format == "bin":
            with open(path, "wb") as stream:
                stream.write(row_D.astype(np.float32).tobytes())
        else:
            with open(path, "wb") as stream:
                np.save(stream, row_D[np.newaxis])
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def run_tensors(
    embedder: Embedder,
    tensors: TensorFolder,
    directory: str,
    file_format: str,
    batch_size: int,
    progress: Optional[Progress] = None,
) -> List[float]:
    """Runs a model on every tensor and writes a result for each; returns the seconds of each run.

    The last batch is filled up with its first tensor, as ais_bench does."""
    shape = tuple(size or 0 for size in embedder.input_shape[1:])
    os.makedirs(directory, exist_ok=True)
    groups = [
        tensors.names[start : start + batch_size]
        for start in range(0, len(tensors.names), batch_size)
    ]

    def read(names: List[str]) -> np.ndarray:
        filled = names + names[:1] * (batch_size - len(names))
        return tensors.read(filled, shape, embedder.input_dtype)

    seconds = []
    for names, x in zip(groups, prefetch(read, groups)):
        start = time.perf_counter()
        rows_BD = embedder.run(x)
        seconds.append(time.perf_counter() - start)
        for name, row_D in zip(names, rows_BD):
            write_result(directory, name, row_D, file_format)
        if progress is not None:
            progress(len(names))
    return seconds


def results_directory(path: str) -> str:
    """The directory with the result files: `path`, or the one run directory inside it."""
    if not os.path.isdir(path):
        raise ValueError(f"--result {path} is not a directory; pass the one ais_bench wrote.")
    found = []
    for folder, folders, files in os.walk(path):
        folders.sort()
        if any(RESULT.match(name) for name in files):
            found.append(folder)
    if not found:
        raise ValueError(
            f"--result {path} holds no results: no {{i}}_0.txt, .bin or .npy; run the model first."
        )
    if len(found) > 1:
        raise ValueError(
            f"--result {path} holds the results of {len(found)} runs; pass one of them, such as "
            f"{found[-1]}."
        )
    return found[0]


def read_results(directory: str, images: int) -> Tuple[np.ndarray, np.ndarray]:
    """float32 (plain [N, D], mirrored [N, D]) of a directory that must hold exactly N images."""
    files: Dict[Tuple[int, bool], str] = {}
    formats = set()
    for name in os.listdir(directory):
        found = RESULT.match(name)
        if found:
            formats.add(found.group(3))
            files[int(found.group(1)), found.group(2) is not None] = name
    if len(formats) > 1:
        raise ValueError(
            f"{directory} mixes {' and '.join(sorted(formats))} results; keep those of one run."
        )
    wanted = [(number, mirrored) for number in range(images) for mirrored in (False, True)]
    missing = [key for key in wanted if key not in files]
    ending = formats.pop()
    if missing:
        names = ", ".join(_result_name(key, ending) for key in missing[:NAMED])
        more = ", ..." if len(missing) > NAMED else ""
        raise ValueError(
            f"{directory} lacks {len(missing)} of {2 * images} results ({names}{more}); run the "
            "model on all tensors, or pass the list of the same set."
        )
    if len(files) > len(wanted):
        raise ValueError(
            f"{directory} holds {len(files)} results, but the list has {images // 2} pairs, which "
            f"make {2 * images}; pass the list of the same set."
        )
    rows = list(_read_rows(directory, [files[key] for key in wanted]))
    both = np.stack(rows).reshape(images, 2, -1)
    return both[:, 0], both[:, 1]


def _result_name(key: Tuple[int, bool], ending: str) -> str:
    return f"{key[0]}{'_flip' if key[1] else ''}_0.{ending}"


def _read_rows(directory: str, names: List[str]) -> Iterator[np.ndarray]:
    dimension = None
    for name in names:
        path = os.path.join(directory, name)
        row_D = _read_row(path)
        dimension = dimension or len(row_D)
        if len(row_D) != dimension or not dimension:
            raise ValueError(
                f"{path} holds {len(row_D)} values, but {names[0]} holds {dimension}; the results "
                "are of different models or cut off, so run the model again."
            )
        yield row_D


def _read_row(path: str) -> np.ndarray:
    try:
        if path.endswith(".txt"):
            with open(path, encoding="ascii") as stream:
                return np.array(stream.read().split(), np.float32)
        if path.endswith(".bin"):
            return np.fromfile(path, np.float32)
        return read_npy(path).astype(np.float32).ravel()
    except (ValueError, EOFError):
        raise ValueError(f"{path} holds no list of numbers; run the model again.") from None


def write_pair_list(path: str, issame_P: np.ndarray) -> None:
    """lfw_list.npy: bool [P], whether a pair is of one person."""
    with atomic_write(path, "wb") as stream:
        np.save(stream, np.asarray(issame_P, bool))


def read_pair_list(path: str) -> np.ndarray:
    """bool [P] of lfw_list.npy."""
    with open(path, "rb"):  # a missing file is reported as the system reports it
        pass
    issame_P = read_npy(path)
    if issame_P.ndim != 1 or not np.isin(issame_P, (0, 1)).all():
        raise ValueError(
            f"{path} holds {issame_P.dtype} {list(issame_P.shape)}, but a pair list is bool [P]; "
            "write it with infer.py preprocess."
        )
    return issame_P.astype(bool)
