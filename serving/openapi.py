"""The OpenAPI 3.0 document of the REST API, from its table of routes."""

from typing import Any, Dict

from serving.routes import FORM, PHOTO, PHOTO_TYPES, ROUTES, Route

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}
BINARY = {"type": "string", "format": "binary"}
REFUSALS = {
    "400": "The request is malformed.",
    "401": "The token is missing or wrong.",
    "403": "The request comes from another site, or for another host.",
    "404": "There is no such path, person or sample.",
    "409": "The photo resembles another person; repeat with confirm=1.",
    "413": "The body is too large.",
    "415": "The body has another type.",
    "422": "The photo cannot be used; the code names the reason.",
    "503": "The server is busy, or the bank cannot be read.",
}


def document() -> Dict[str, Any]:
    """The whole document."""
    paths: Dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.0.3",
        "info": {"title": "Face bank", "version": "1", "description": __doc__},
        "paths": paths,
        "security": [{}, {"token": []}],
        "components": {
            "schemas": {"Error": ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> Dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses: Dict[str, Any] = {
        "200": {
            "description": "The answer.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
    }
    for status, text in REFUSALS.items():
        responses[status] = {"description": text, "content": error}
    operation = {
        "operationId": route.operation,
        "summary": route.summary,
        "responses": responses,
        "parameters": _parameters(route),
    }
    if route.body == PHOTO:
        content = {kind: {"schema": BINARY} for kind in PHOTO_TYPES}
        operation["requestBody"] = {"required": True, "content": content}
    elif route.body == FORM:
        operation["requestBody"] = {"required": True, "content": _form(route)}
    return operation


def _parameters(route):
    ids = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    integer = {"type": "integer", "minimum": 1}
    found = [{"name": name, "in": "path", "required": True, "schema": integer} for name in ids]
    return found + [{"name": name, "in": "query", "schema": integer} for name in route.query]


def _form(route):
    properties = {}
    for field in route.fields:
        many = {"type": "array", "items": BINARY}
        schema = many if field.startswith("[") else BINARY
        properties[field.strip("[]")] = {"type": "string"} if field == "name" else schema
    schema = {"type": "object", "properties": properties, "required": sorted(properties)}
    return {"multipart/form-data": {"schema": schema}}
