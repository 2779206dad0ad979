"""The OpenAPI document describes what the routes take."""

from serving.openapi import document
from serving.routes import ROUTES


def test_every_route_has_its_body_and_parameters():
    paths = document()["paths"]
    for route in ROUTES:
        operation = paths[route.path][route.method.lower()]
        assert operation["operationId"] == route.operation
        names = {parameter["name"] for parameter in operation["parameters"]}
        assert names == {p[1:-1] for p in route.path.split("/") if "{" in p} | set(route.query)
        assert ("requestBody" in operation) == (route.body != "nothing")


def test_errors_have_one_schema():
    for operations in document()["paths"].values():
        for operation in operations.values():
            schema = operation["responses"]["422"]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Error"}
