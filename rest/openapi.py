"""The API as OpenAPI 3.1, made from the routes themselves."""

from __future__ import annotations

import re
from typing import Any

from rest.api import ROUTES
from rest.codec import FIELDS
from ryu_lw4o6 import __version__


def document() -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        in_path = re.findall(r"{(\w+)}", route.template)
        operation: dict[str, Any] = {
            "operationId": route.handler,
            "summary": route.summary,
            "parameters": [
                {"name": n, "in": "path", "required": True, "schema": {"type": "string"}}
                for n in in_path
            ]
            + [{"name": n, "in": "query", "schema": {"type": "string"}} for n in route.query],
            "responses": {
                "2XX": {"description": "done", "content": {"application/json": {}}},
                "default": {
                    "description": "a problem (RFC 9457)",
                    "content": {
                        "application/problem+json": {
                            "schema": {"$ref": "#/components/schemas/Problem"}
                        }
                    },
                },
            },
        }
        if route.method in ("POST", "PUT"):
            name = "Bulk" if route.handler == "bulk" else "Binding"
            schema = {"$ref": f"#/components/schemas/{name}"}
            operation["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": schema}},
            }
        paths.setdefault(route.template, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "ryu-lw4o6", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


_TYPES: dict[str, dict[str, Any]] = {
    "lwb4": {"type": "string", "format": "ipv6", "description": "the lwB4's address"},
    "ipv4": {"type": "string", "format": "ipv4", "description": "its public address"},
    "psid": {"type": "integer", "minimum": 0, "maximum": 65535, "default": 0},
    "br_address": {"type": ["string", "null"], "description": "default: the anycast address"},
    "lifetime": {"type": "number", "description": "seconds; without it there is no end"},
    "psid_offset": {"type": "integer", "description": "must be the prefix's"},
    "psid_length": {"type": "integer", "description": "must be the prefix's"},
}
_SCHEMAS: dict[str, Any] = {
    "Binding": {
        "type": "object",
        "required": ["lwb4", "ipv4"],
        "additionalProperties": False,
        "properties": {name: _TYPES[name] for name in FIELDS},
    },
    "Bulk": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "create": {"type": "array", "items": {"$ref": "#/components/schemas/Binding"}},
            "replace": {"type": "array", "items": {"$ref": "#/components/schemas/Binding"}},
            "delete": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["ipv4"],
                    "properties": {"ipv4": _TYPES["ipv4"], "psid": _TYPES["psid"]},
                },
            },
        },
    },
    "Problem": {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        n: {"type": "string"} for n in ("field", "reason", "suggestion")
                    },
                },
            },
        },
    },
}
