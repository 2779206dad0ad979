"""The REST API's routes: one table for the server and for the OpenAPI document."""

import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from serving.multipart import parse_multipart
from serving.service import MAX_TOP, RequestError, Service

PHOTO, FORM, NOTHING = "photo", "form", "nothing"
PHOTO_TYPES = ("image/jpeg", "image/png", "application/octet-stream")
MAX_BODY = 48 << 20  # bytes of a request


class Request(NamedTuple):
    """What a handler needs of a request."""

    ids: Tuple[int, ...]  # numbers of the path
    query: Dict[str, str]
    content_type: str
    body: bytes


class Route(NamedTuple):
    """An operation of the API."""

    method: str
    path: str  # with {id} and {sample_id}
    operation: str  # its name in the OpenAPI document
    summary: str
    body: str  # PHOTO, FORM or NOTHING
    fields: Tuple[str, ...]  # of a form; a name in [] may be repeated
    query: Tuple[str, ...]
    call: Callable[[Service, Request], Any]


def _form(request: Request, texts: Tuple[str, ...], files: Tuple[str, ...]) -> Dict[str, Any]:
    """{field: text or list of bytes}; unknown and missing fields are refused."""
    try:
        parts = parse_multipart(request.content_type, request.body)
    except ValueError as error:
        raise RequestError(400, "bad_form", f"The body cannot be read: {error}.") from None
    values: Dict[str, Any] = {name: [] for name in files}
    for part in parts:
        if part.name in files:
            values[part.name].append(part.content)
        elif part.name in texts and part.name not in values:
            values[part.name] = _text(part.content)
        else:
            raise RequestError(400, "bad_form", f"The field {part.name[:40]!r} is not expected.")
    missing = [name for name in texts + files if not values.get(name)]
    if missing:
        raise RequestError(400, "bad_form", f"The field {missing[0]!r} is missing or empty.")
    return values


def _text(content):
    try:
        return content[:4096].decode("utf-8")
    except UnicodeDecodeError:
        raise RequestError(400, "bad_form", "A text of the form is not UTF-8.") from None


def _verify(service, request):
    form = _form(request, (), ("first", "second"))
    if len(form["first"]) + len(form["second"]) != 2:
        raise RequestError(400, "bad_form", "Give one first and one second photo.")
    return service.verify(form["first"][0], form["second"][0])


def _enrol(service, request):
    form = _form(request, ("name",), ("photo",))
    return service.enrol(form["name"], form["photo"], _confirmed(request))


def _identify(service, request):
    return service.identify(request.body, _number(request, "top", 5, MAX_TOP))


def _confirmed(request):
    return request.query.get("confirm") in ("1", "true")


def _number(request, name, default, largest):
    text = request.query.get(name, str(default))
    if not re.match(r"^[0-9]{1,6}$", text) or not 1 <= int(text) <= largest:
        raise RequestError(400, "bad_query", f"{name} must be a whole number from 1 to {largest}.")
    return int(text)


ROUTES = (
    Route("GET", "/v1/health", "health", "State of the server, the model and the bank.", NOTHING,
          (), (), lambda s, r: s.health()),
    Route("GET", "/v1/calibration", "calibration", "Cosines of the calibration's pairs.", NOTHING,
          (), (), lambda s, r: s.calibration()),
    Route("POST", "/v1/detect", "detect", "Faces of a photo.", PHOTO,
          (), (), lambda s, r: s.detect(r.body)),
    Route("POST", "/v1/embed", "embed", "Unit embedding of the face on a photo.", PHOTO,
          (), (), lambda s, r: s.embed(r.body)),
    Route("POST", "/v1/verify", "verify", "Whether two photos show one person.", FORM,
          ("first", "second"), (), _verify),
    Route("POST", "/v1/identify", "identify", "Who is on a photo, or unknown.", PHOTO,
          (), ("top",), _identify),
    Route("GET", "/v1/persons", "list_persons", "Everyone in the bank.", NOTHING,
          (), (), lambda s, r: s.persons()),
    Route("POST", "/v1/persons", "enrol", "Adds photos of a person.", FORM,
          ("name", "[photo]"), ("confirm",), _enrol),
    Route("DELETE", "/v1/persons/{id}", "erase", "Erases a person.", NOTHING,
          (), (), lambda s, r: s.erase(r.ids[0])),
    Route("GET", "/v1/persons/{id}/samples", "list_samples", "A person's samples.", NOTHING,
          (), (), lambda s, r: s.samples(r.ids[0])),
    Route("POST", "/v1/persons/{id}/samples", "add_sample", "Adds a photo of a person.", PHOTO,
          (), ("confirm",), lambda s, r: s.add_sample(r.ids[0], r.body, _confirmed(r))),
    Route("DELETE", "/v1/persons/{id}/samples/{sample_id}", "remove_sample", "Removes a sample.",
          NOTHING, (), (), lambda s, r: s.remove_sample(*r.ids)),
)  # fmt: skip


def find_route(method: str, path: str) -> Tuple[Route, Tuple[int, ...]]:
    """The route of a request and the numbers in its path, or a RequestError 404 or 405."""
    allowed: List[str] = []
    for route in ROUTES:
        ids = _match(route.path, path)
        if ids is not None and route.method == method:
            return route, ids
        if ids is not None:
            allowed.append(route.method)
    if allowed:
        raise RequestError(405, "bad_method", f"Use {' or '.join(allowed)}.")
    raise RequestError(404, "no_route", "There is no such path; see /v1/openapi.json.")


def _match(pattern, path) -> Optional[Tuple[int, ...]]:
    wanted, given = pattern.split("/"), path.split("/")
    if len(wanted) != len(given):
        return None
    ids = []
    for part, text in zip(wanted, given):
        if part.startswith("{"):
            if not re.match(r"^[1-9][0-9]{0,17}$", text):
                return None
            ids.append(int(text))
        elif part != text:
            return None
    return tuple(ids)
