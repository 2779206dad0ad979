"""The face bank against its limits, each in one interleaved run.

python benchmarks/facebank.py identify                     a search in 100,000 samples, in ms
python benchmarks/facebank.py memory --samples 1000000     a search against reading the matrix once
python benchmarks/facebank.py enrol --model model.onnx     enrolment against the bare network
python benchmarks/facebank.py clients --model model.onnx   20 clients at once against one
"""

import dataclasses
import http.client
import os
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np  # noqa: E402

from data.convert.worker_pool import allowed_cores  # noqa: E402
from data.synthetic import draw_person  # noqa: E402
from runtime.cli import run  # noqa: E402
from runtime.flags import flag, parse_command  # noqa: E402
from serving.enrolment import BATCH, enrol_directory  # noqa: E402
from serving.face_bank import FaceBank, ModelContract, NewSample  # noqa: E402
from serving.identification import identify  # noqa: E402
from serving.index import Index  # noqa: E402
from serving.recognizer import Recognizer  # noqa: E402
from serving.thresholds import Threshold  # noqa: E402
from serving.unit_vectors import unit  # noqa: E402
from tools.fuzz_server import server_address  # noqa: E402

ADDED = 20000  # samples of one transaction
EACH = 4  # samples of a person
THRESHOLD = Threshold(0.3, None, None, None)


@dataclasses.dataclass(frozen=True)
class IdentifyConfig:
    """A search by one embedding in a bank of 100,000: at most 15 ms."""

    samples: int = flag(100000, "in the bank", low=1)
    dimension: int = flag(512, "of an embedding", low=2)
    queries: int = flag(50, "that are timed", low=1)
    limit: float = flag(15.0, "ms, of the fastest search", above=0)


@dataclasses.dataclass(frozen=True)
class MemoryConfig:
    """A search against one pass over the matrix in memory: at most 1.3 times its duration."""

    samples: int = flag(250000, "in the bank", low=1)
    dimension: int = flag(512, "of an embedding", low=2)
    queries: int = flag(10, "that are timed", low=1)
    limit: float = flag(1.3, "ratio, of the medians", above=0)


@dataclasses.dataclass(frozen=True)
class EnrolConfig:
    """Enrolment of a directory of crops against embedding them: at least 0.9 of its rate."""

    model: str = flag(dataclasses.MISSING, "an exported model (.onnx, ...)")
    crops: int = flag(512, "JPEGs, ten a person", low=BATCH)
    rounds: int = flag(2, "of both, in turn", low=1)
    limit: float = flag(0.9, "ratio of the rates", above=0)


@dataclasses.dataclass(frozen=True)
class ClientsConfig:
    """Clients that identify one after the other at once: p95, errors, the server's memory."""

    model: str = flag(dataclasses.MISSING, "an exported model (.onnx, ...)")
    clients: int = flag(20, "at once", low=1, high=60)
    seconds: float = flag(20.0, "of all clients; a quarter of it for the single one", above=0)
    limit: float = flag(1.5, "p95 / (one client's p95 x clients / cores)", above=0)
    growth: float = flag(10.0, "percent that memory may grow after the first quarter", above=0)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """1 where a limit is missed."""
    kinds = dict(
        identify=IdentifyConfig, memory=MemoryConfig, enrol=EnrolConfig, clients=ClientsConfig
    )
    verbs: Dict[str, Callable[[Any], bool]] = dict(
        identify=time_identify, memory=time_memory, enrol=time_enrol, clients=time_clients
    )
    name, config = parse_command(kinds, argv, __doc__ or "")
    return 0 if verbs[name](config) else 1


def time_identify(config: IdentifyConfig) -> bool:
    """Median of whole searches: generation of the bank, product, order, names."""
    with tempfile.TemporaryDirectory() as directory:
        bank, queries_BD = _random_bank(directory, config.samples, config.dimension)
        index = Index(bank)
        identify(index, queries_BD[:1], THRESHOLD)
        seconds = [
            _time(lambda q=query_D: identify(index, q[None], THRESHOLD))
            for query_D in np.resize(queries_BD, (config.queries, config.dimension))
        ]
        words = _words(bank, config.samples)
        bare = min(_time(lambda: _read_once(words)) for _ in range(config.queries))
    best, median = 1e3 * min(seconds), 1e3 * float(np.median(seconds))
    print(
        f"identify in {config.samples:,} x {config.dimension}: fastest {best:.1f} ms, median "
        f"{median:.1f} ms (limit {config.limit:g}); reading the matrix once {1e3 * bare:.1f} ms"
    )
    return best <= config.limit


def time_memory(config: MemoryConfig) -> bool:
    """Searches and passes over the matrix in turn."""
    with tempfile.TemporaryDirectory() as directory:
        bank, queries_BD = _random_bank(directory, config.samples, config.dimension)
        index = Index(bank)
        words = _words(bank, config.samples)
        searches: List[float] = []
        passes: List[float] = []
        for turn in range(config.queries + 1):
            query_D = queries_BD[turn % len(queries_BD)]
            searches.append(_time(lambda q=query_D: identify(index, q[None], THRESHOLD)))
            passes.append(_time(lambda: _read_once(words)))
    size = words.nbytes
    search, bare = float(np.median(searches[1:])), float(np.median(passes[1:]))
    print(
        f"{config.samples:,} x {config.dimension} ({size / 1e9:.2f} GB): search "
        f"{1e3 * search:.1f} ms ({size / search / 1e9:.1f} GB/s), reading once {1e3 * bare:.1f} ms "
        f"({size / bare / 1e9:.1f} GB/s), ratio {search / bare:.2f} (limit {config.limit:g})"
    )
    return search / bare <= config.limit


def time_enrol(config: EnrolConfig) -> bool:
    """enrol_directory into a new bank, and the same crops through the network alone."""
    recognizer = Recognizer(config.model, "none")
    with tempfile.TemporaryDirectory() as directory:
        folder = os.path.join(directory, "people")
        _write_people(folder, config.crops, recognizer.image_size)
        shape = (BATCH,) + recognizer.image_size + (3,)
        images = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
        for _ in range(4):  # the number of images in a run is chosen by then
            recognizer.embed_crops(images)
        runs = config.crops // BATCH
        ours: List[float] = []
        bare: List[float] = []
        for turn in range(config.rounds):
            path = os.path.join(directory, f"{turn}.db")
            bank = FaceBank.create(path, recognizer.contract)
            ours.append(_time(lambda b=bank: enrol_directory(b, recognizer, folder)))
            bare.append(_time(lambda: [recognizer.embed_crops(images) for _ in range(runs)]))
    ours_rate, bare_rate = config.crops / min(ours), runs * BATCH / min(bare)
    ratio = ours_rate / bare_rate
    print(
        f"enrolment of {config.crops:,} crops: {ours_rate:.1f} a second, the network alone "
        f"{bare_rate:.1f}, ratio {ratio:.3f} (limit {config.limit:g})"
    )
    return ratio >= config.limit


def time_clients(config: ClientsConfig) -> bool:
    """A server in a process of its own; one client, then all of them."""
    photos = _crops(8, Recognizer(config.model, "none").image_size)
    with tempfile.TemporaryDirectory() as directory:
        log = os.path.join(directory, "log")
        command = [sys.executable, "-m", "serving.web", "--model", config.model, "--port", "0"]
        command += ["--bank", os.path.join(directory, "bank.db"), "--detector", "none"]
        with open(log, "wb") as stream:
            process = subprocess.Popen(command + ["--threshold", "1.0"], stderr=stream)
        try:
            address = server_address(process, log)
            _identify_for(address, photos, 1, 2.0)  # the number of images in a run is chosen
            one, _ = _identify_for(address, photos, 1, config.seconds / 4)
            many, wrong = _identify_for(address, photos, config.clients, config.seconds / 4)
            before = _resident_megabytes(process.pid)
            more, errors = _identify_for(address, photos, config.clients, config.seconds * 3 / 4)
            after = _resident_megabytes(process.pid)
        finally:
            process.terminate()
            process.wait()
    errors, many = errors + wrong, many + more
    share = config.clients / allowed_cores()
    single, p95 = (1e3 * float(np.percentile(part, 95)) for part in (one, many))
    ratio, grown = p95 / (single * share), 100 * (after / before - 1)
    print(
        f"{config.clients} clients for {config.seconds:g} s: {len(many)} answers, {errors} errors\n"
        f"  p95 {p95:.0f} ms, one client {single:.0f} ms, {share:g} clients a core: ratio "
        f"{ratio:.2f} (limit {config.limit:g})\n"
        f"  memory {before:.0f} MB, then {after:.0f} MB: {grown:+.1f} % (limit {config.growth:g})"
    )
    return ratio <= config.limit and grown <= config.growth and not errors


def _random_bank(directory: str, samples: int, width: int) -> Tuple[FaceBank, np.ndarray]:
    """A bank of random unit vectors, and 16 queries that are near some of them."""
    contract = ModelContract("0" * 64, width, "RGB", False)
    bank = FaceBank.create(os.path.join(directory, "bank.db"), contract)
    chooser = np.random.RandomState(0)
    for first in range(0, samples, ADDED):
        rows = chooser.standard_normal((min(ADDED, samples - first), width)).astype(np.float32)
        bank.add(
            [
                NewSample(f"p{(first + i) // EACH}", row, str(first + i))
                for i, row in enumerate(rows)
            ]
        )
    return bank, unit(rows[:16] + 0.1 * chooser.standard_normal((len(rows[:16]), width)))


def _words(bank: FaceBank, samples: int) -> np.ndarray:
    """The mapped matrix of a bank as 64-bit words."""
    path, size = bank.cache_path, 4 * samples * bank.contract.embedding_size
    offset = os.path.getsize(path) - size
    return np.asarray(np.memmap(path, np.uint64, "r", offset, (size // 8,)))


def _read_once(words: np.ndarray) -> None:
    """One pass over memory by all cores: an OR of 64-bit words, which waits for memory only."""
    parts = np.array_split(words, allowed_cores())
    threads = [threading.Thread(target=np.bitwise_or.reduce, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _crops(people: int, size: Tuple[int, int]) -> List[bytes]:
    import cv2

    found = []
    for person in range(people):
        encoded = np.frombuffer(draw_person((0, person, ("frontal",), max(size)))[0], np.uint8)
        image_HWC = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[: size[0], : size[1]]
        found.append(cv2.imencode(".jpg", image_HWC)[1].tobytes())
    return found


def _write_people(folder: str, crops: int, size: Tuple[int, int]) -> None:
    """<folder>/<ten crops each>; every file differs, so that none is known already."""
    encoded = _crops(20, size)
    for number in range(crops):
        person = os.path.join(folder, f"p{number // 10:05}")
        os.makedirs(person, exist_ok=True)
        with open(os.path.join(person, f"{number}.jpg"), "wb") as stream:
            stream.write(encoded[number % len(encoded)] + str(number).encode())


def _identify_for(
    address: Tuple[str, int], photos: List[bytes], clients: int, seconds: float
) -> Tuple[List[float], int]:
    """(seconds of each answer, errors) of clients that ask again as soon as they are answered."""
    lasted: List[float] = []
    errors: List[int] = []
    deadline = time.monotonic() + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(*address, timeout=60)
        turn = number
        while time.monotonic() < deadline:
            begin, turn = time.perf_counter(), turn + 1
            body, headers = photos[turn % len(photos)], {"Content-Type": "image/jpeg"}
            connection.request("POST", "/v1/identify", body, headers)
            response = connection.getresponse()
            response.read()
            lasted.append(time.perf_counter() - begin)
            errors.extend([response.status] * (response.status != 200))
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return lasted, len(errors)


def _resident_megabytes(pid: int) -> float:
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as stream:
        line = next(line for line in stream if line.startswith("VmRSS:"))
    return float(line.split()[1]) / 1024


def _time(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    run(main)
