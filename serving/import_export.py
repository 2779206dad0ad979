"""Banks of other programs <-> ours: the PyTorch port's facebank.pth + names.npy, Keras .npz.

Nothing is unpickled: .npy and .npz are read without objects, .pth through PyTorch's weights_only
reader, or, without PyTorch, as the numbers of its zip archive. N people or samples, D embedding.
"""

import os
import zipfile
from typing import List, NamedTuple

import numpy as np

from runtime.files import atomic_write, first_line, write_npz
from serving.face_bank import FaceBank, NewSample
from serving.recognizer import digest

PORT_BANK, PORT_NAMES, PLAIN_BANK = "facebank.pth", "names.npy", "facebank.npy"
PORT_UNKNOWN = "Unknown"  # the first of the port's names, for index -1


class NamedEmbeddings(NamedTuple):
    """Embeddings and the names of their people."""

    names: List[str]  # one a row; a person may have several
    embeddings_ND: np.ndarray  # float32


def read_bank(path: str) -> NamedEmbeddings:
    """A directory with facebank.pth (or .npy) and names.npy, or an .npz of Keras_insightface."""
    bank = _read_npz(path) if path.endswith(".npz") else _read_port(path)
    names, embeddings_ND = bank
    if embeddings_ND.ndim != 2 or len(names) != len(embeddings_ND):
        raise ValueError(
            f"{path} has {len(names)} names for embeddings of shape "
            f"{list(embeddings_ND.shape)}; it must have one name a row."
        )
    if not np.isfinite(embeddings_ND).all():
        raise ValueError(f"{path} holds embeddings that are not finite; build it again.")
    return bank


def write_port_bank(directory: str, bank: NamedEmbeddings) -> str:
    """Writes names.npy and facebank.pth (facebank.npy without PyTorch); returns the latter."""
    os.makedirs(directory, exist_ok=True)
    with atomic_write(os.path.join(directory, PORT_NAMES), "wb") as stream:
        np.save(stream, np.array([PORT_UNKNOWN] + bank.names))
    try:
        import torch
    except ImportError:
        path = os.path.join(directory, PLAIN_BANK)
        with atomic_write(path, "wb") as stream:
            np.save(stream, bank.embeddings_ND)
        return path
    path = os.path.join(directory, PORT_BANK)
    with atomic_write(path, "wb") as stream:
        torch.save(torch.from_numpy(np.array(bank.embeddings_ND)), stream)
    return path


def write_keras_bank(path: str, bank: NamedEmbeddings) -> None:
    """Writes the .npz that Keras_insightface's video_test.py reads."""
    classes = np.array(bank.names, dtype=str)
    write_npz(path, {"embeddings": bank.embeddings_ND, "image_classes": classes})


def import_bank(bank: FaceBank, source: str) -> int:
    """Adds every row of another program's bank as a sample; returns how many are new."""
    names, embeddings_ND = read_bank(source)
    samples = [
        NewSample(name, row_D, digest(b"import" + row_D.tobytes()))
        for name, row_D in zip(names, embeddings_ND)
    ]
    return bank.add(samples) if samples else 0


def samples_of(bank: FaceBank) -> NamedEmbeddings:
    """Every sample of a bank."""
    names = {person.id: person.name for person in bank.persons()}
    rows = [(names[person_id], row_D) for _, person_id, row_D in bank.embeddings()]
    width = bank.contract.embedding_size
    embeddings_ND = np.array([row for _, row in rows], np.float32).reshape(-1, width)
    return NamedEmbeddings([name for name, _ in rows], embeddings_ND)


def means_of(samples: NamedEmbeddings) -> NamedEmbeddings:
    """Each person's mean of unit vectors, not scaled to length 1: what the port's bank holds."""
    names = list(dict.fromkeys(samples.names))
    places = np.array([names.index(name) for name in samples.names], int)
    means = [samples.embeddings_ND[places == k].mean(axis=0) for k in range(len(names))]
    width = samples.embeddings_ND.shape[1]
    return NamedEmbeddings(names, np.array(means, np.float32).reshape(-1, width))


def _read_npz(path):
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not {"embeddings", "image_classes"} <= set(archive.files):
                raise ValueError(f"it holds {', '.join(archive.files)}")
            names = [str(name) for name in archive["image_classes"].ravel()]
            return NamedEmbeddings(names, archive["embeddings"].astype(np.float32))
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile and NumPy raise a dozen kinds at a damaged file
        raise ValueError(
            f"{path} is not an .npz with embeddings and image_classes ({first_line(error)[:120]})."
        ) from None


def _read_port(directory):
    names_path = os.path.join(directory, PORT_NAMES)
    path = os.path.join(directory, PORT_BANK)
    if not os.path.exists(path) and os.path.exists(os.path.join(directory, PLAIN_BANK)):
        path = os.path.join(directory, PLAIN_BANK)
    for needed in (path, names_path):
        if not os.path.isfile(needed):
            raise ValueError(
                f"{needed} is not there; give a directory with {PORT_BANK} and "
                f"{PORT_NAMES}, or an .npz."
            )
    names = [str(name) for name in _load(names_path).ravel()]
    embeddings = _load(path) if path.endswith(".npy") else _read_pth(path, len(names) - 1)
    if len(names) == len(embeddings) + 1:
        names = names[1:]
    return NamedEmbeddings(names, np.asarray(embeddings, np.float32))


def _load(path):
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(
            f"{path} is not a whole .npy without objects ({first_line(error)[:120]})."
        ) from None


def _read_pth(path, people):
    try:
        import torch
    except ImportError:
        return _read_zip(path, people)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds at a damaged file
        raise ValueError(
            f"{path} is not a whole PyTorch file ({first_line(error)[:120]})."
        ) from None
    if not torch.is_tensor(content):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a tensor of embeddings.")
    return content.float().numpy()


def _read_zip(path, people):
    """The one storage of a tensor's archive: float32, as the port writes it."""
    try:
        with zipfile.ZipFile(path) as archive:
            storages = [name for name in archive.namelist() if "/data/" in name]
            numbers = np.frombuffer(archive.read(storages[0]), "<f4") if storages else np.empty(0)
    except (zipfile.BadZipFile, ValueError) as error:
        raise ValueError(f"{path} needs PyTorch ({error}); pip install torch.") from None
    if len(storages) != 1 or people < 1 or len(numbers) % people:
        raise ValueError(f"{path} is not a single tensor of {people} rows; pip install torch.")
    return numbers.reshape(people, -1)
