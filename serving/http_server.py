"""The HTTP side of the page and the REST API: limits, checks of host and origin, headers.

Python's own threading server. No path of a request reaches the file system: the page's files are
read at the start and have fixed addresses.
"""

import hmac
import http.server
import json
import logging
import os
import re
import socket
import threading
import time
from typing import Any, Dict, FrozenSet, NamedTuple, Optional, Tuple
from urllib.parse import parse_qsl, urlsplit

from faces.photo import PhotoError
from serving.bank_file import BankError
from serving.openapi import document
from serving.routes import FORM, MAX_BODY, NOTHING, PHOTO, PHOTO_TYPES, Request, find_route
from serving.service import RequestError, Service

MAX_CONNECTIONS = 64
IDLE_SECONDS = 30  # without a byte
BODY_SECONDS = 60  # for a whole body
DRAIN_SECONDS = 2  # for the rest of a request that was refused
BLOCK = 1 << 16
MAX_BODIES = 256 << 20  # bytes of all requests that are read or answered at one moment
PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page")
PAGE_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Access(NamedTuple):
    """Who may send requests."""

    hosts: FrozenSet[str]  # names that the Host header may hold, without port
    token: Optional[str]  # that the Authorization header must hold; None: none is needed


class Server(http.server.ThreadingHTTPServer):
    """A thread for each connection, MAX_CONNECTIONS at most."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: Tuple[str, int], service: Service, access: Access) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.service, self.access = service, access
        self.files = {path: _read(*entry) for path, entry in PAGE_FILES.items()}
        self.openapi = _json(document())
        self.budget = _Budget(MAX_BODIES)
        self._connections = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a thread, or answers 503 at once where all are taken."""
        if not self._connections.acquire(blocking=False):
            body = _json(_error("busy", "The server is busy; try again."))
            head = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            try:
                request.settimeout(1)
                request.sendall(head.encode() + body)
            except OSError:
                pass
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that the client broke is no event; anything else goes to the log."""
        logging.debug("connection ended", exc_info=True)


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection's requests."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "facebank", ""
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:  # noqa: N802
        """Reads."""
        self._answer()

    do_POST = do_DELETE = do_PUT = do_PATCH = do_HEAD = do_OPTIONS = do_GET  # noqa: N815

    def _answer(self) -> None:
        self._body_read = False
        try:
            status, kind, content = self._respond()
        except RequestError as error:
            status, kind, content = error.status, "json", _error(error.code, str(error))
        except PhotoError as error:
            status, kind, content = 422, "json", _error(error.code, f"{error}.")
        except BankError as error:
            logging.error("%s", error)
            status, kind, content = (
                503,
                "json",
                _error("bank", "The bank cannot be used now."),
            )
        except ConnectionError:
            self.close_connection = True
            return
        except OSError as error:
            logging.error("%s", error)
            self.close_connection = True
            status, kind, content = 503, "json", _error("storage", "The bank cannot be written.")
        except Exception:  # a defect of ours: to the log, never to the client
            logging.exception("request failed")
            status, kind, content = 500, "json", _error("internal", "The request failed.")
        unread = not self._body_read and self._declares_body()
        if unread:
            self.close_connection = True  # the unread body would be taken for the next request
        self._send(status, content if isinstance(content, bytes) else _json(content), kind)
        if unread:
            self._drain()

    def _respond(self) -> Tuple[int, str, Any]:
        self._check_host_and_origin()
        path, query = _split(self.path)
        if self.command in ("GET", "HEAD") and path in self.server.files:
            kind, content = self.server.files[path]
            return 200, kind, content
        self._check_token()
        if self.command == "GET" and path == "/v1/openapi.json":
            return 200, "json", self.server.openapi
        route, ids = find_route(self.command, path)
        content_type = self.headers.get("Content-Type", "")
        self._check_type(route.body, content_type)
        length = self._body_length() if route.body != NOTHING else 0
        if not self.server.budget.take(length):
            raise RequestError(503, "busy", "The server is busy; try again.")
        try:
            request = Request(ids, query, content_type, self._read_body(length))
            return 200, "json", route.call(self.server.service, request)
        finally:
            self.server.budget.give(length)

    def _check_host_and_origin(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or _host(hosts[0]) not in self.server.access.hosts:
            raise RequestError(403, "bad_host", "The Host header names another host; see --hosts.")
        origin = self.headers.get("Origin")
        if origin is not None and origin.split("://")[-1] != hosts[0]:
            raise RequestError(403, "bad_origin", "Requests of other sites are refused.")
        if self.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
            if self.path != "/":
                raise RequestError(403, "bad_origin", "Requests of other sites are refused.")

    def _check_token(self) -> None:
        token = self.server.access.token
        given = self.headers.get("Authorization", "").encode("utf-8", "replace")
        if token is not None and not hmac.compare_digest(given, f"Bearer {token}".encode()):
            raise RequestError(401, "bad_token", "Send the header Authorization: Bearer TOKEN.")

    def _check_type(self, body: str, content_type: str) -> None:
        kind = content_type.split(";")[0].strip().lower()
        if body == PHOTO and kind not in PHOTO_TYPES:
            raise RequestError(415, "bad_type", f"Send the photo as {' or '.join(PHOTO_TYPES)}.")
        if body == FORM and kind != "multipart/form-data":
            raise RequestError(415, "bad_type", "Send a form as multipart/form-data.")

    def _body_length(self) -> int:
        lengths = self.headers.get_all("Content-Length") or []
        if self.headers.get("Transfer-Encoding") or len(lengths) != 1 or not _digits(lengths[0]):
            raise RequestError(411, "no_length", "Send one Content-Length and no chunks.")
        if int(lengths[0]) > MAX_BODY:
            raise RequestError(413, "too_large", f"Send {MAX_BODY >> 20} MiB or less.")
        return int(lengths[0])

    def _read_body(self, left: int) -> bytes:
        blocks, deadline = [], time.monotonic() + BODY_SECONDS
        while left:
            block = self.rfile.read1(min(BLOCK, left))  # type: ignore[attr-defined]
            if not block or time.monotonic() > deadline:
                self.close_connection = True
                raise ConnectionError("the body ended early")
            blocks.append(block)
            left -= len(block)
        self._body_read = True
        return b"".join(blocks)

    def _declares_body(self) -> bool:
        if self.headers.get("Transfer-Encoding"):
            return True
        return self.headers.get("Content-Length", "0") != "0"

    def _send(self, status: int, content: bytes, kind: str) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if kind == "json" else kind)
            self.send_header("Content-Length", str(len(content)))
            for name, value in SECURITY_HEADERS.items():
                self.send_header(name, value)
            if self.close_connection:
                self.send_header("Connection", "close")
            if status == 401:
                self.send_header("WWW-Authenticate", "Bearer")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
        except OSError:
            self.close_connection = True

    def _drain(self) -> None:
        """Reads what the client still sends: closing a connection with unread bytes resets it, and
        the client would lose the answer."""
        deadline = time.monotonic() + DRAIN_SECONDS
        try:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(DRAIN_SECONDS)
            while time.monotonic() < deadline and self.rfile.read1(BLOCK):  # type: ignore[attr-defined]
                pass
        except OSError:
            pass

    def send_error(self, code: int, message: Optional[str] = None, explain: Any = None) -> None:
        """What http.server answers to a request that is no HTTP, as JSON."""
        self.close_connection = True
        self.command = getattr(self, "command", None) or "GET"
        self._send(
            int(code), _json(_error("bad_request", "The request is not valid HTTP.")), "json"
        )
        self._drain()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: a log of who was identified when would be a second bank."""


def open_server(host: str, port: int, service: Service, access: Access) -> Server:
    """A server that listens; a port in use is a ValueError."""
    try:
        return Server((host, port), service, access)
    except socket.gaierror:
        raise ValueError(f"--host {host} is not an address of this machine.") from None
    except OSError as error:
        raise ValueError(
            f"--host {host} --port {port} cannot be used ({error.strerror}); choose another "
            "--port, or 0 for a free one."
        ) from None
    except OverflowError:
        raise ValueError(f"--port {port} must be from 0 to 65535.") from None


def _host(text: str) -> str:
    """A Host header without its port, in lower case."""
    name, separator, port = text.lower().rpartition(":")
    if separator and _digits(port) and (":" not in name or name.endswith("]")):
        text = name
    return text.lower().strip("[]")


def _digits(text):
    return re.match("^[0-9]{1,15}$", text) is not None


def _split(path):
    """(path, {name: value}) of a request line's address."""
    try:
        url = urlsplit(path)
        return url.path, dict(parse_qsl(url.query, max_num_fields=16))
    except ValueError:
        raise RequestError(400, "bad_address", "The address cannot be read.") from None


class _Budget:
    """Bytes that all requests together may hold."""

    def __init__(self, size: int) -> None:
        self._left, self._lock = size, threading.Lock()

    def take(self, size: int) -> bool:
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give(self, size: int) -> None:
        with self._lock:
            self._left += size


def _read(name, kind):
    with open(os.path.join(PAGE, name), "rb") as stream:
        return kind, stream.read()


def _json(value) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _error(code: str, message: str) -> Dict[str, Any]:
    return {"error": {"code": code, "message": message[:1].upper() + message[1:]}}
