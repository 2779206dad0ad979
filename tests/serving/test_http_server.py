"""The server over real sockets: limits, other hosts and origins, errors, mutated requests."""

import http.client
import json
import socket
import threading

import numpy as np
import pytest

from serving import http_server
from serving.openapi import document
from serving.routes import ROUTES
from tests.serving.clients import config_of, enrol, request, send_photo, serve
from tests.serving.tiny_models import face
from tools.fuzz_server import FuzzPlan, fuzz

TOKEN = "0123456789abcdef"
PHOTOS = {
    "empty": b"",
    "not_a_photo": b"GIF89a" + bytes(100),
    "damaged": face(1)[:500],
    "no_detector": None,
}


@pytest.fixture
def anna(server):
    status, answer = enrol(server, "Anna", face(1, 0), face(1, 1))
    assert status == 200
    yield answer["person"]
    request(server, "DELETE", f"/v1/persons/{answer['person']['id']}")


def test_page_has_a_strict_policy(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1])
    connection.request("GET", "/")
    response = connection.getresponse()
    assert response.status == 200 and b"<script src=" in response.read()
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    connection.close()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil"])
def test_other_host_is_refused(server, host):
    status, answer = request(server, "GET", "/v1/persons", Host=host)
    assert (status, answer["error"]["code"]) == (403, "bad_host")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"])
def test_loopback_host_is_accepted(server, host):
    assert request(server, "GET", "/v1/persons", Host=host)[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_other_origin_is_refused(server, origin):
    status, answer = send_photo(server, "/v1/embed", face(1), Origin=origin)
    assert (status, answer["error"]["code"]) == (403, "bad_origin")


def test_own_origin_is_accepted(server):
    own = f"http://127.0.0.1:{server.server_address[1]}"
    assert send_photo(server, "/v1/embed", face(1), Origin=own)[0] == 200


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/page/../web.py", "/%2e%2e/x", "//[", "/v2"]
)
def test_other_path_reads_no_file(server, path):
    assert request(server, "GET", path)[0] in (400, 404)


def test_other_method_is_refused_with_the_right_one(server):
    status, answer = request(server, "PUT", "/v1/embed")
    assert status == 405 and "POST" in answer["error"]["message"]


def test_large_body_is_refused_before_it_is_sent(server):
    with socket.create_connection(server.server_address[:2], timeout=30) as client:
        client.sendall(
            b"POST /v1/embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
            b"Content-Length: 99999999999\r\n\r\n"
        )
        answer = client.recv(10000)
    assert b" 413 " in answer.split(b"\r\n")[0]


def test_answer_to_a_refused_upload_arrives_while_the_body_is_sent(server):
    """Closing with unread bytes would reset the connection and lose the answer."""
    status, answer = send_photo(server, "/v1/embed", bytes(1 << 22), Host="evil.example")
    assert (status, answer["error"]["code"]) == (403, "bad_host")


def test_body_without_length_is_refused(server):
    with socket.create_connection(server.server_address[:2], timeout=30) as client:
        client.sendall(
            b"POST /v1/embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        )
        assert b" 411 " in client.recv(10000).split(b"\r\n")[0]


def test_token_is_needed_where_one_is_set(folder):
    server = serve(config_of(folder, token=TOKEN))
    try:
        assert request(server, "GET", "/v1/persons")[0] == 401
        assert request(server, "GET", "/v1/persons", Authorization="Bearer wrong")[0] == 401
        assert request(server, "GET", "/v1/persons", Authorization=f"Bearer {TOKEN}")[0] == 200
        assert request(server, "GET", "/")[0] == 200
    finally:
        server.shutdown()
        server.server_close()


def test_connections_beyond_the_limit_are_answered_busy(folder, monkeypatch):
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 1)
    server = serve(config_of(folder))
    try:
        with socket.create_connection(server.server_address[:2], timeout=30) as idle:
            idle.sendall(b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            idle.recv(10)  # its thread has the one place
            with socket.create_connection(server.server_address[:2], timeout=30) as second:
                assert b" 503 " in second.recv(1000)
    finally:
        server.shutdown()
        server.server_close()


def test_damaged_bank_is_an_answer(folder, tmp_path):
    server = serve(config_of(folder, bank=str(tmp_path / "bank.db")))
    try:
        with open(str(tmp_path / "bank.db"), "r+b") as stream:
            stream.write(b"\xff" * 2000)
        status, answer = request(server, "GET", "/v1/persons")
        assert (status, answer["error"]["code"]) == (503, "bank")
    finally:
        server.shutdown()
        server.server_close()


def test_requests_write_nothing_to_the_log(server, caplog):
    caplog.set_level("INFO")
    send_photo(server, "/v1/identify", face(1))
    assert caplog.text == ""


def test_openapi_lists_every_route(server):
    status, answer = request(server, "GET", "/v1/openapi.json")
    assert status == 200 and answer == json.loads(json.dumps(document()))
    assert sum(len(operations) for operations in answer["paths"].values()) == len(ROUTES)


def test_twenty_clients_at_once_get_their_own_answers(server):
    expected = {person: send_photo(server, "/v1/embed", face(person))[1] for person in range(4)}
    wrong = []

    def client(number):
        for turn in range(10):
            person = (number + turn) % 4
            if send_photo(server, "/v1/embed", face(person)) != (200, expected[person]):
                wrong.append(number)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("code", PHOTOS)
def test_bad_photo_is_an_answer_with_a_code(server, code):
    import cv2

    content = PHOTOS[code]
    if content is None:
        content = cv2.imencode(".png", np.zeros((50, 60, 3), np.uint8))[1].tobytes()
    status, answer = send_photo(server, "/v1/identify", content)
    assert (status, answer["error"]["code"]) == (422, code)


def test_erase_removes_the_person(server, anna):
    path = f"/v1/persons/{anna['id']}"
    assert request(server, "DELETE", path)[0] == 200
    assert request(server, "DELETE", path)[0] == 404
    assert send_photo(server, "/v1/identify", face(1, 0))[1]["candidates"] == []


def test_samples_are_listed_added_and_removed(server, anna):
    path = f"/v1/persons/{anna['id']}/samples"
    assert send_photo(server, path + "?confirm=1", face(1, 2))[1]["added"] == 1
    samples = request(server, "GET", path)[1]["samples"]
    assert len(samples) == 3
    assert request(server, "DELETE", f"{path}/{samples[0]['id']}")[0] == 200
    assert request(server, "DELETE", f"{path}/{samples[0]['id']}")[0] == 404
    assert len(request(server, "GET", path)[1]["samples"]) == 2


def test_limits_are_what_the_documentation_has():
    assert http_server.MAX_CONNECTIONS * 2 < 1024  # file descriptors of a default shell


def test_mutated_requests_and_photos_are_answered(server, caplog):
    report = fuzz(server.server_address[:2], FuzzPlan(requests=400, seed=0))
    assert report.faults == [] and sum(report.statuses.values()) > 0.8 * 400
    assert "request failed" not in caplog.text
    assert request(server, "GET", "/v1/health")[0] == 200
