"""A server of a tiny model in a thread, and requests to it over sockets."""

import http.client
import json
import threading

from serving.web import WebConfig, build_server


def config_of(folder, **more):
    values = dict(
        bank=str(folder / "bank.db"),
        model=str(folder / "model.onnx"),
        detector="none",
        threshold="cosine:0.9",
        port=0,
    )
    return WebConfig(**dict(values, **more))


def serve(config):
    server = build_server(config)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


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
