"""Sends mutated requests and photos to a face bank's server and counts what it answers.

python -m tools.fuzz_server --model model.onnx --requests 100000

Starts python -m serving.web on an empty bank, in a process of its own. A crash, a hang, a status
500 and a traceback are faults: they are printed and the exit code is 1. The same --seed sends the
same bytes.
"""

import collections
import dataclasses
import http.client
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import Counter, List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np
from tqdm import tqdm

from data.synthetic import draw_person
from runtime.cli import run
from runtime.flags import flag, parse_flags

Address = Tuple[str, int]
TIMEOUT = 30  # seconds without an answer: a hang
CLIENTS = 4  # connections at once; each has its own random numbers
MOST_FAULTS = 20
NO_ANSWER = 0  # the connection was closed: the mutated request promised more bytes than it has
FILLINGS = (
    b"\xff\xff",
    b"\r\n",
    b"--",
    b"%00",
    b"\0" * 9,
    b"%2e%2e/",
    b"\xf0\x9f\x98\x80",
    b"9" * 20,
)


@dataclasses.dataclass(frozen=True)
class FuzzConfig:
    """Flags of tools.fuzz_server."""

    model: str = flag(dataclasses.MISSING, "an exported model (.onnx, ...)")
    detector: str = flag("auto", "a YuNet .onnx, mtcnn, auto or none")
    requests: int = flag(2000, "how many to send", low=1)
    seconds: float = flag(600.0, "time after which no more are sent", above=0)
    seed: int = flag(0, "of the mutations", low=0)


class FuzzPlan(NamedTuple):
    """What is sent."""

    requests: int
    seed: int
    seconds: float = 600.0  # after which no more are sent
    image_size: Tuple[int, int] = (112, 112)  # of the model, so that crops reach it


class FuzzReport(NamedTuple):
    """What came back."""

    statuses: Counter[int]  # HTTP's, or NO_ANSWER
    faults: List[str]  # a sentence each, MOST_FAULTS at most


def main(argv: Optional[Sequence[str]] = None) -> int:
    config = parse_flags(FuzzConfig, argv, __doc__)
    with tempfile.TemporaryDirectory() as directory:
        log = os.path.join(directory, "log")
        with open(log, "wb") as stream:
            process = subprocess.Popen(_server_command(config, directory), stderr=stream)
        try:
            address = server_address(process, log)
            plan = FuzzPlan(config.requests, config.seed, config.seconds, _image_size(address))
            with tqdm(total=config.requests, unit="request", disable=None) as bar:
                report = fuzz(address, plan, bar)
            alive = process.poll() is None and _healthy(address)
        finally:
            process.terminate()
            process.wait()
        with open(log, encoding="utf-8", errors="replace") as stream:
            tracebacks = stream.read().count("Traceback")
    print(", ".join(f"{status}: {n}" for status, n in sorted(report.statuses.items())))
    faults = list(report.faults)
    faults += ["the server does not run any more."] * (not alive)
    faults += [f"the server's log has {tracebacks} tracebacks."] * bool(tracebacks)
    print("\n".join(faults) or f"{sum(report.statuses.values())} requests, no fault.")
    return 1 if faults else 0


def fuzz(address: Address, plan: FuzzPlan, bar: Optional[tqdm] = None) -> FuzzReport:
    """Sends mutated requests over CLIENTS connections at once."""
    seeds = request_seeds(plan.image_size)
    report = FuzzReport(collections.Counter(), [])
    lock, deadline = threading.Lock(), time.monotonic() + plan.seconds

    def client(number: int) -> None:
        chooser = random.Random(plan.seed * CLIENTS + number)
        for turn in range(number, plan.requests, CLIENTS):
            content = mutated_request(chooser, seeds[turn % len(seeds)])
            status, fault = _send(address, content)
            with lock:
                report.statuses[status] += 1
                if fault and len(report.faults) < MOST_FAULTS:
                    report.faults.append(f"seed {plan.seed}, request {turn}: {fault}.")
                if bar is not None:
                    bar.update()
            if time.monotonic() > deadline or len(report.faults) == MOST_FAULTS:
                return

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return report


def request_seeds(image_size: Tuple[int, int]) -> List[Tuple[bytes, bytes]]:
    """[(head without the length, body)] of sound requests, one for each kind of body."""
    crops = [_crop(person, image_size) for person in (1, 2)]
    large = cv2.imencode(".png", np.zeros((40, 50, 3), np.uint8))[1].tobytes()
    head = "%s HTTP/1.1\r\nHost: localhost\r\n"
    photo = head + "Content-Type: image/jpeg\r\n"
    form = head + "Content-Type: multipart/form-data; boundary=limit\r\n"
    requests = [
        (head % "GET /v1/persons/1/samples", b""),
        (head % "DELETE /v1/persons/1", b""),
        (photo % "POST /v1/identify?top=3", crops[0]),
        (photo % "POST /v1/embed", crops[1]),
        (photo % "POST /v1/detect", large),
        (photo % "POST /v1/persons/1/samples?confirm=1", crops[0]),
        (form % "POST /v1/persons?confirm=1", _form(name="Anna".encode(), photo=crops[0])),
        (form % "POST /v1/verify", _form(first=crops[0], second=crops[1])),
    ]
    return [(text.encode("ascii"), body) for text, body in requests]


def mutated_request(chooser: random.Random, seed: Tuple[bytes, bytes]) -> bytes:
    """A request with mutations in its head, in its body, or in both; mostly of the right length."""
    head, body = seed
    where = chooser.randrange(3)
    if body and where != 0:
        body = mutated(chooser, body)
    if where != 1 or not body:
        head = mutated(chooser, head)
    length = len(body) if chooser.randrange(8) else chooser.choice((0, 1, 2 * len(body), 10**9))
    ending = b"Content-Length: %d\r\n\r\n" % length if body or chooser.randrange(2) else b"\r\n"
    return head + ending + body


def mutated(chooser: random.Random, content: bytes) -> bytes:
    """Bytes with a few places changed, cut, repeated or filled."""
    places = bytearray(content)
    for _ in range(chooser.randint(1, 6)):
        at = chooser.randrange(len(places) + 1)
        kind = chooser.randrange(5)
        if kind == 0 and at < len(places):
            places[at] = chooser.randrange(256)
        elif kind == 1:
            del places[at : at + chooser.choice((1, 3, 40))]
        elif kind == 2:
            places[at:at] = places[at : at + chooser.choice((1, 8, 100))]
        elif kind == 3 and at < len(places):
            places[at] ^= 1 << chooser.randrange(8)
        else:
            places[at:at] = chooser.choice(FILLINGS)
    return bytes(places) or b"x"


def _send(address: Address, content: bytes) -> Tuple[int, str]:
    """(status, what is wrong with the answer or "")."""
    answer = b""
    try:
        with socket.create_connection(address, timeout=TIMEOUT) as client:
            client.sendall(content)
            client.shutdown(socket.SHUT_WR)
            for block in iter(lambda: client.recv(1 << 16), b""):
                answer += block
    except socket.timeout:
        return NO_ANSWER, f"no answer within {TIMEOUT} s"
    except ConnectionRefusedError:
        return NO_ANSWER, "the connection is refused"
    except OSError:  # the server closed before it had read everything
        pass
    if not answer:
        return NO_ANSWER, ""
    found = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    status = int(found.group(1)) if found else NO_ANSWER
    if not found:
        # HTTP/0.9 has no status line: the JSON of an error, or a file of the page
        return NO_ANSWER, "" if answer.startswith((b"{", b"<", b"/", b":", b'"')) else "no HTTP"
    if status == 500 or b"Traceback" in answer:
        return status, f"{answer[:200]!r}"
    return status, ""


def _form(**fields: bytes) -> bytes:
    head = b'--limit\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'
    parts = [head % name.encode() + value + b"\r\n" for name, value in fields.items()]
    return b"".join(parts) + b"--limit--\r\n"


def _crop(person: int, image_size: Tuple[int, int]) -> bytes:
    encoded = draw_person((0, person, ("frontal",), max(image_size)))[0]
    image_HWC = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode(".jpg", image_HWC[: image_size[0], : image_size[1]])[1].tobytes()


def _server_command(config: FuzzConfig, directory: str) -> List[str]:
    bank = os.path.join(directory, "bank.db")
    command = [sys.executable, "-m", "serving.web", "--bank", bank, "--model", config.model]
    return command + ["--detector", config.detector, "--threshold", "cosine:0.5", "--port", "0"]


def server_address(process: subprocess.Popen, log: str) -> Address:
    """The address that the server logs when it listens."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        with open(log, encoding="utf-8", errors="replace") as stream:
            text = stream.read()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", text)
        if found:
            return "127.0.0.1", int(found.group(1))
        if process.poll() is not None:
            raise ValueError(f"the server did not start: {text.strip().splitlines()[-1]}")
        time.sleep(0.1)
    raise ValueError(f"the server did not listen within {TIMEOUT} s.")


def _image_size(address: Address) -> Tuple[int, int]:
    height, width = json.loads(_get(address, "/v1/health"))["image_size"]
    return int(height), int(width)


def _healthy(address: Address) -> bool:
    try:
        return b'"ok"' in _get(address, "/v1/health")
    except OSError:
        return False


def _get(address: Address, path: str) -> bytes:
    connection = http.client.HTTPConnection(*address, timeout=TIMEOUT)
    connection.request("GET", path)
    content = connection.getresponse().read()
    connection.close()
    return content


if __name__ == "__main__":
    run(main)
