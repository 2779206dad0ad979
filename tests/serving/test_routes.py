"""Routes: each has one operation, and other paths and methods are refused."""

import pytest

from serving.routes import ROUTES, find_route
from serving.service import RequestError


def test_operations_are_unique():
    names = [route.operation for route in ROUTES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)
def test_route_is_found_with_its_numbers(route):
    path = route.path.replace("{id}", "12").replace("{sample_id}", "7")
    found, ids = find_route(route.method, path)
    assert found is route and ids == tuple([12, 7][: route.path.count("{")])


@pytest.mark.parametrize("part", ["0", "-1", "1.5", "x", "", "9" * 30, "1%0A"])
def test_number_of_a_path_is_checked(part):
    with pytest.raises(RequestError) as caught:
        find_route("DELETE", f"/v1/persons/{part}")
    assert caught.value.status == 404


def test_other_method_is_not_allowed():
    with pytest.raises(RequestError) as caught:
        find_route("POST", "/v1/health")
    assert caught.value.status == 405
