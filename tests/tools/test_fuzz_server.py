"""The fuzzer: the same bytes for the same seed, and a fault where the server answers wrongly."""

import random
import socket
import threading

import pytest

from tools.fuzz_server import NO_ANSWER, FuzzPlan, fuzz, mutated, mutated_request, request_seeds


def answering(content):
    """The address of a server that sends the same bytes to everyone."""
    listener = socket.create_server(("127.0.0.1", 0)) if hasattr(socket, "create_server") else None
    if listener is None:  # Python 3.7
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)

    def serve():
        while True:
            client, _ = listener.accept()
            client.settimeout(5)
            while client.recv(1 << 16):
                pass
            client.sendall(content)
            client.close()

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[:2]


def test_same_seed_mutates_alike():
    first, second, other = (mutated(random.Random(seed), b"content" * 20) for seed in (1, 1, 2))
    assert first == second != other


def test_nothing_is_mutated_to_nothing():
    assert all(mutated(random.Random(seed), b"x") for seed in range(50))


def test_every_kind_of_request_is_a_seed():
    heads = [head.split()[1].decode() for head, _ in request_seeds((112, 112))]
    assert {head.split("?")[0].split("/")[2] for head in heads} == {
        "persons", "identify", "embed", "detect", "verify",
    }  # fmt: skip


def test_most_mutated_bodies_have_their_length():
    chooser, seed = random.Random(0), (b"POST / HTTP/1.1\r\n", b"x" * 30)
    whole = 0
    for _ in range(200):
        content = mutated_request(chooser, seed)
        length, _, body = content.rpartition(b"Content-Length: ")[2].partition(b"\r\n\r\n")
        whole += int(length) == len(body)
    assert whole > 120


@pytest.mark.parametrize(
    "content, status, faulty",
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", 404, False),
        (b"HTTP/1.1 500 Internal Server Error\r\n\r\n", 500, True),
        (b"HTTP/1.1 200 OK\r\n\r\nTraceback (most recent", 200, True),
        (b"", NO_ANSWER, False),
        (b"garbage", NO_ANSWER, True),
    ],
)
def test_answer_is_counted_and_faults_are_kept(content, status, faulty):
    report = fuzz(answering(content), FuzzPlan(requests=3, seed=0))
    assert report.statuses == {status: 3} and len(report.faults) == (3 if faulty else 0)
