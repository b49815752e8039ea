"""The API as OpenAPI 3.1, made from the routes themselves."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from rest.codec import FIELDS, MAX_LIFETIME
from rest.http import JSON, PROBLEM
from rest.routes import PARAMETERS, ROUTES, Route
from ryu_lw4o6 import __version__
from ryu_lw4o6.core.binding import Origin
from ryu_lw4o6.core.settings import Failover
from ryu_lw4o6.service import SwitchState


def document() -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "ryu-lw4o6", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _operation(route: Route) -> dict[str, Any]:
    in_path = re.findall(r"{(\w+)}", route.path)
    operation: dict[str, Any] = {
        "operationId": route.handler,
        "summary": route.summary,
        "parameters": [
            {
                "name": name,
                "in": "path" if name in in_path else "query",
                "required": name in in_path,
                "description": PARAMETERS[name].description,
                "schema": PARAMETERS[name].schema,
            }
            for name in (*in_path, *route.query)
        ],
        "responses": {
            str(status): {"description": HTTPStatus(status).phrase}
            | ({"content": {route.media: {"schema": _schema(name)}}} if name else {})
            for status, name in route.answers.items()
        }
        | {
            "default": {
                "description": "a problem (RFC 9457)",
                "content": {PROBLEM: {"schema": _schema("Problem")}},
            }
        },
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": _schema(route.body)}},
        }
    return operation


def _schema(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_TEXT = {"type": "string"}
_NUMBER = {"type": "integer", "minimum": 0}
_TOTAL = _object({"packets": _NUMBER, "bytes": _NUMBER})
_IPV6 = {"type": "string", "format": "ipv6"}
_OWNED = {
    "lwb4": _IPV6 | {"description": "the lwB4's address"},
    "ipv4": {"type": "string", "format": "ipv4", "description": "its public address"},
    "psid": {"type": "integer", "minimum": 0, "maximum": 65535, "default": 0},
    "psid_offset": {"type": "integer", "description": "a of RFC 7597; that of the prefix"},
    "psid_length": {"type": "integer", "description": "k of RFC 7597; that of the prefix"},
    "br_address": {
        "type": ["string", "null"],
        "format": "ipv6",
        "description": "the lwAFTR address of this softwire; null: the default of the instance",
    },
}
_LIFETIME = {
    "type": "number",
    "exclusiveMinimum": 0,
    "maximum": MAX_LIFETIME,
    "description": "seconds until the binding ends; without it there is no end",
}
_NEW = _OWNED | {"lifetime": _LIFETIME}

SCHEMAS: dict[str, Any] = {
    "NewBinding": {
        "type": "object",
        "required": ["lwb4", "ipv4"],
        "additionalProperties": False,
        "properties": {name: _NEW[name] for name in FIELDS},
    },
    "Binding": _object(
        _OWNED
        | {
            "ports": _array(_TEXT | {"examples": ["1232-1247"]}),
            "origin": {"type": "string", "enum": [str(origin) for origin in Origin]},
            "expires_at": {"type": ["string", "null"], "format": "date-time"},
            "state": {
                "type": "object",
                "description": "by the name of each instance that carries the binding",
                "additionalProperties": _object(
                    {
                        "state": {"type": "string", "enum": [str(s) for s in SwitchState]},
                        "error": _TEXT,
                    },
                    "error",
                ),
            },
        },
        "ports",
    ),
    "Bindings": _object(
        {"total": _NUMBER, "bindings": _array(_schema("Binding")), "next": _TEXT}, "next"
    ),
    "Key": _object({"ipv4": _OWNED["ipv4"], "psid": _OWNED["psid"]}, "psid")
    | {"additionalProperties": False},
    "Bulk": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "create": _array(_schema("NewBinding")),
            "replace": _array(_schema("NewBinding")),
            "delete": _array(_schema("Key")),
        },
    },
    "BulkDone": _object({"created": _NUMBER, "replaced": _NUMBER, "deleted": _NUMBER}),
    "Switch": {"type": "object", "required": ["name"], "properties": {"name": _TEXT}},
    "Switches": _object({"switches": _array(_schema("Switch"))}),
    "Counters": _object(
        {
            "instance": _TEXT,
            "connected": {"type": "boolean"},
            "counters": {"type": "object", "additionalProperties": _TOTAL},
            "traffic-stat": {
                "type": ["object", "null"],
                "description": "the leaves of the YANG module ietf-softwire-br (RFC 8676)",
            },
            "shim": {
                "type": ["object", "null"],
                "description": "packets; null where the controller cannot read them",
                "additionalProperties": _NUMBER,
            },
            "icmp_errors_withheld": _object({"icmpv4": _NUMBER, "icmpv6": _NUMBER}),
        }
    ),
    "BindingCounters": _object(
        {
            "counters": {
                "type": "object",
                "additionalProperties": _object({"upstream": _TOTAL, "downstream": _TOTAL}),
            },
        }
    ),
    "AllCounters": _object({"counters": _array(_schema("Counters"))}),
    "Failover": {
        "type": "object",
        "required": ["name", "mechanism", "drained"],
        "properties": {
            "name": _TEXT,
            "mechanism": {"type": "string", "enum": [str(f) for f in Failover]},
            "drained": {"type": "boolean"},
            "obstacle": {
                "type": ["string", "null"],
                "description": "why routers must not send packets to this instance now",
            },
        },
    },
    "AllFailover": _object(
        {
            "supporting_system": {"type": ["object", "null"]},
            "instances": _array(_schema("Failover")),
        }
    ),
    "Provisioning": {
        "type": "object",
        "required": ["name", "pcp", "dhcp"],
        "properties": {
            "name": _TEXT,
            "pcp": {"type": ["object", "null"]},
            "dhcp": {"type": ["object", "null"]},
        },
    },
    "AllProvisioning": _object({"instances": _array(_schema("Provisioning"))}),
    "Events": _object(
        {
            "last": _NUMBER,
            "events": _array(
                {
                    "type": "object",
                    "required": ["id", "at", "type"],
                    "properties": {
                        "id": _NUMBER,
                        "at": {"type": "string", "format": "date-time"},
                        "type": _TEXT,
                    },
                }
            ),
        }
    ),
    "EventStream": _TEXT | {"description": "server-sent events; the data of each is an event"},
    "Index": _object({"name": _TEXT, "version": _TEXT, "links": {"type": "object"}}),
    "OpenApi": {"type": "object"},
    "Problem": _object(
        {
            "type": _TEXT,
            "title": _TEXT,
            "status": {"type": "integer"},
            "detail": _TEXT,
            "errors": _array(_object({"field": _TEXT, "reason": _TEXT, "suggestion": _TEXT})),
            "existing": _schema("Binding"),
        },
        "errors",
        "existing",
    ),
}
