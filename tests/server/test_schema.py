"""What is served: the committed schema is the one that is served, and the OpenAPI document too."""

from __future__ import annotations

from pathlib import Path

import dspex_server.api
from dspex_server.api.openapi import document
from dspex_server.api.rest import routes
from dspex_server.api.schema import sdl
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from starlette.routing import Route

SCHEMA = Path(dspex_server.api.__file__).parent / "schema.graphql"


def test_the_committed_schema_is_the_one_that_is_served() -> None:
    assert SCHEMA.read_text() == sdl(), f"write sdl() to {SCHEMA}, and look at what changed"


def test_the_openapi_document_has_every_route_and_no_other() -> None:
    served = {
        (route.path, method)
        for route in routes()
        if isinstance(route, Route) and route.path != "/v1/openapi.json"
        for method in (route.methods or set()) - {"HEAD"}
    }
    told = {
        (path, method.upper())
        for path, item in document()["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert told == served


def test_the_schemas_of_the_openapi_document_are_json_schemas() -> None:
    for schema in document()["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
