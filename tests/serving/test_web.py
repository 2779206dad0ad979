"""The server over real sockets: answers, limits, other hosts and origins, mutated requests."""

import http.client
import json
import random
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

from faces.photo import read_photo
from serving import http_server
from serving.face_bank import FaceBank
from serving.openapi import document
from serving.recognizer import Recognizer
from serving.routes import ROUTES
from serving.web import WebConfig, build_server, check_network
from tests.serving.tiny_models import face, write_model

TOKEN = "0123456789abcdef"


def config_of(folder, **more):
    values = dict(
        bank=str(folder / "bank.db"),
        model=str(folder / "model.onnx"),
        detector="none",
        threshold="cosine:0.9",
        port=0,
    )
    return WebConfig(**dict(values, **more))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    write_model(folder / "model.onnx")
    return folder


def serve(config):
    server = build_server(config)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


@pytest.fixture(scope="module")
def server(folder):
    server = serve(config_of(folder))
    yield server
    server.shutdown()
    server.server_close()


def request(server, method, path, body=None, **headers):
    """(status, answer) over a new connection; header names with _ for -."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, json.loads(content.decode()) if "json" in response.headers[
        "Content-Type"
    ] else content


def send_photo(server, path, content, method="POST", **headers):
    return request(server, method, path, content, Content_Type="image/jpeg", **headers)


def form(*fields):
    """(body, content type) of [(name, bytes)]."""
    parts = [
        b'--limit\r\nContent-Disposition: form-data; name="%s"; filename="../../x"\r\n\r\n%s\r\n'
        % (name.encode(), content)
        for name, content in fields
    ]
    return b"".join(parts) + b"--limit--\r\n", "multipart/form-data; boundary=limit"


def send_form(server, path, *fields):
    body, kind = form(*fields)
    return request(server, "POST", path, body, Content_Type=kind)


def enrol(server, name, *photos, query="?confirm=1"):
    fields = [("name", name.encode("utf-8"))] + [("photo", photo) for photo in photos]
    return send_form(server, "/v1/persons" + query, *fields)


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


def test_embed_equals_the_model(server, folder):
    status, answer = send_photo(server, "/v1/embed", face(1))
    recognizer = Recognizer(str(folder / "model.onnx"), "none")
    expected = recognizer.embed_crops(read_photo(face(1))[None])[0]
    assert status == 200
    np.testing.assert_allclose(answer["embedding"], expected, atol=1e-5)


def test_identify_names_the_person_of_the_photo(server, anna):
    status, answer = send_photo(server, "/v1/identify", face(1, 0))
    assert status == 200 and answer["name"] == "Anna" and answer["known"]
    assert answer["candidates"][0]["cosine"] == pytest.approx(1, abs=1e-4)


def test_identify_answers_unknown(server, anna):
    status, answer = send_photo(server, "/v1/identify", face(40, 0))
    assert status == 200 and answer["name"] == "unknown" and answer["person_id"] is None
    assert answer["candidates"][0]["name"] == "Anna"


def test_identify_in_an_empty_bank_answers_unknown(server):
    status, answer = send_photo(server, "/v1/identify", face(1))
    assert status == 200 and answer["name"] == "unknown" and answer["candidates"] == []


def test_verify_compares_two_photos(server):
    status, answer = send_form(server, "/v1/verify", ("first", face(1)), ("second", face(1)))
    assert status == 200 and answer["same"] and answer["squared_l2"] == pytest.approx(0, abs=1e-3)
    status, answer = send_form(server, "/v1/verify", ("first", face(1)), ("second", face(30)))
    assert status == 200 and not answer["same"]


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


def test_photo_that_resembles_another_person_needs_a_confirmation(server, anna):
    status, answer = enrol(server, "Ben", face(1, 0), query="")
    assert status == 409 and answer["error"]["code"] == "similar_person"
    assert "Anna" in answer["error"]["message"]


def test_second_person_of_a_name_needs_a_confirmation(server, anna):
    status, answer = enrol(server, "Anna", face(30, 0), query="")
    assert status == 409 and answer["error"]["code"] == "different_person"


@pytest.mark.parametrize("name", ["a/b", "..", "a\nb", "x" * 300, ""])
def test_bad_name_is_refused(server, name):
    status, answer = enrol(server, name, face(1))
    assert status == 400 and answer["error"]["code"] in ("bad_name", "bad_form")


PHOTOS = {
    "empty": b"",
    "not_a_photo": b"GIF89a" + bytes(100),
    "damaged": face(1)[:500],
    "no_detector": None,
}


@pytest.mark.parametrize("code", PHOTOS)
def test_bad_photo_is_an_answer_with_a_code(server, code):
    import cv2

    content = PHOTOS[code]
    if content is None:
        content = cv2.imencode(".png", np.zeros((50, 60, 3), np.uint8))[1].tobytes()
    status, answer = send_photo(server, "/v1/identify", content)
    assert (status, answer["error"]["code"]) == (422, code)


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


def test_address_beyond_loopback_needs_a_token(folder):
    with pytest.raises(ValueError, match="pass --token"):
        check_network(config_of(folder, host="0.0.0.0"))
    check_network(config_of(folder, host="0.0.0.0", token=TOKEN))


def test_short_token_is_refused(folder):
    with pytest.raises(ValueError, match="longer"):
        check_network(config_of(folder, token="abc"))


def test_port_in_use_is_one_sentence(server, folder):
    done = subprocess.run(
        [sys.executable, "-m", "serving.web", "--bank", str(folder / "bank.db"), "--model"]
        + [str(folder / "model.onnx"), "--threshold", "1.0", "--detector", "none", "--port"]
        + [str(server.server_address[1])],
        stderr=subprocess.PIPE,
    )
    assert done.returncode == 2 and b"choose another --port" in done.stderr
    assert b"Traceback" not in done.stderr


def test_server_without_a_threshold_does_not_start(folder):
    with pytest.raises(ValueError, match="calibrate"):
        build_server(config_of(folder, threshold=None))


def test_openapi_lists_every_route(server):
    status, answer = request(server, "GET", "/v1/openapi.json")
    assert status == 200 and answer == json.loads(json.dumps(document()))
    assert sum(len(operations) for operations in answer["paths"].values()) == len(ROUTES)


def test_connections_beyond_the_limit_are_answered_busy(server, monkeypatch):
    monkeypatch.setattr(server, "_connections", threading.BoundedSemaphore(1))
    idle = socket.create_connection(server.server_address[:2], timeout=30)
    idle.sendall(b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    idle.recv(10)  # its thread has the one place
    with socket.create_connection(server.server_address[:2], timeout=30) as second:
        assert b" 503 " in second.recv(1000)
    idle.close()


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


def mutated(chooser, content):
    """Bytes with a few places changed, cut, repeated or filled."""
    content = bytearray(content)
    for _ in range(chooser.randint(1, 6)):
        at = chooser.randrange(len(content) + 1)
        kind = chooser.randrange(4)
        if kind == 0 and at < len(content):
            content[at] = chooser.randrange(256)
        elif kind == 1:
            del content[at : at + chooser.choice((1, 3, 40))]
        elif kind == 2:
            content[at:at] = content[at : at + chooser.choice((1, 8, 100))]
        else:
            filling = chooser.choice((b"\xff\xff", b"\r\n", b"--", b"%00", b"\0" * 9))
            content[at:at] = filling
        content = content or bytearray(b"x")
    return bytes(content)


def raw(server, content):
    """What the server sends back to these bytes until it closes."""
    with socket.create_connection(server.server_address[:2], timeout=30) as client:
        answer = b""
        try:
            client.sendall(content)
            client.shutdown(socket.SHUT_WR)
            for block in iter(lambda: client.recv(1 << 16), b""):
                answer += block
        except (ConnectionError, BrokenPipeError):
            pass
    return answer


def test_mutated_requests_never_reach_a_traceback(server, caplog):
    chooser = random.Random(0)
    body, kind = form(("name", b"Anna"), ("photo", face(1)))
    seeds = [
        b"GET /v1/persons/1/samples HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"DELETE /v1/persons/999999 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/persons?confirm=1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (kind.encode(), len(body), body),
        b"POST /v1/identify?top=3 HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(face(2)), face(2)),
    ]
    for number in range(1500):
        answer = raw(server, mutated(chooser, seeds[number % len(seeds)]))
        assert b"Traceback" not in answer and b" 500 " not in answer.split(b"\r\n")[0]
    assert "request failed" not in caplog.text
    assert request(server, "GET", "/v1/health")[0] == 200


def test_mutated_photos_are_answered(server, caplog):
    chooser = random.Random(1)
    for _ in range(500):
        status, answer = send_photo(server, "/v1/identify", mutated(chooser, face(3)))
        assert status in (200, 422), answer
    assert "request failed" not in caplog.text


def test_requests_write_nothing_to_the_log(server, caplog):
    caplog.set_level("INFO")
    send_photo(server, "/v1/identify", face(1))
    assert caplog.text == ""


def test_limits_are_what_the_documentation_has():
    assert http_server.MAX_CONNECTIONS * 2 < 1024  # file descriptors of a default shell


def test_bank_is_created_with_the_servers_model(server, folder):
    bank = FaceBank(str(folder / "bank.db"))
    assert bank.contract == Recognizer(str(folder / "model.onnx"), "none").contract
