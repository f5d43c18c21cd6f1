"""Write the HTTP API, from the document that `GET /openapi.json` returns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from frontend.auth.policy import RULES, Level
from frontend.routes.json_schema import ENDPOINT_NAME, RID, TOKEN_ID
from frontend.routes.openapi import document
from frontend.routes.schemas import SCHEMAS
from lifecycle.tracking.idempotency import KEY
from lifecycle.types import ErrorType
from tests.reference.table import code, items, table

Schema = dict[str, Any]

METHODS = ("get", "post", "delete")
_PATTERNS = {
    RID["pattern"]: "request id",
    TOKEN_ID["pattern"]: "token id",
    ENDPOINT_NAME["pattern"]: "name of an endpoint: 1 to 64 of a-z 0-9 _",
    SCHEMAS["ChatCall"]["properties"]["model"]["pattern"]: "string without spaces",
    f"^{KEY.pattern}$": "1 to 255 visible ASCII characters",
}
_AS = {"text/event-stream": " as events", "text/plain": " (text)"}
_MAX_CHARS = 96
_COMMON = {"400", "408", "414", "421", "431", "500"}  # possible answers of every call


def calls() -> str:
    """Return all calls: their purpose and callers, their bodies and answers, and their errors."""
    operations = list(_operations())
    purposes = [(code(call), operation["summary"], _who(call)) for call, operation in operations]
    bodies = [(code(call), _body(operation), _answers(operation)) for call, operation in operations]
    by_errors: dict[str, list[str]] = {}
    for call, operation in operations:
        by_errors.setdefault(_errors(operation), []).append(code(call))
    errors = [f"{statuses}: {', '.join(names)}" for statuses, names in by_errors.items() if statuses]
    return "\n\n".join(
        [
            table(("call", "purpose", "callers, if there are API keys"), purposes),
            "Their bodies and answers:",
            table(("call", "body", "answer"), bodies),
            "Every call may answer 400, 408, 414, 421, 431 and 500. Further errors, before their calls:",
            items(errors),
        ]
    )


def parameters() -> str:
    """Return the parameters, in the query or as headers, of the calls that have any."""
    groups: dict[str, list[str]] = {}
    for call, operation in _operations():
        rows = [(code(p["name"]), p["in"], _type(p["schema"])) for p in operation["parameters"]]
        if rows:
            groups.setdefault(table(("name", "place", "values"), rows), []).append(code(call))
    return "\n\n".join(f"{_heading(names)}\n\n{rows}" for rows, names in groups.items())


def _heading(names: list[str]) -> str:
    """Return the heading for the calls that have the same parameters, whose names may not fit into one line."""
    heading, others = f"### {', '.join(names)}", ", ".join(names[1:])
    if len(heading) <= _MAX_CHARS:
        return heading
    return f"### {names[0]} and others\n\n{items([f'the others: {others}'])}"


def bodies() -> str:
    """Return the fields of all objects."""
    return "\n\n".join(f"### {name}\n\n{_shape(schema)}" for name, schema in SCHEMAS.items())


def _operations() -> Iterator[tuple[str, Schema]]:
    for path, item in document()["paths"].items():
        for method in METHODS:
            if method in item:
                yield f"{method.upper()} {path}", item[method]


def _who(call: str) -> str:
    method, path = call.split()
    rule = next(r for r in RULES if method in r.methods.split() and r.path.replace(":path", "") == path)
    return {Level.ANYBODY: "anybody", Level.CLIENT: "clients", Level.OPERATOR: "operators"}[rule.level]


def _body(operation: Schema) -> str:
    return _content(operation["requestBody"]["content"]) if "requestBody" in operation else ""


def _answers(operation: Schema) -> str:
    fine = {status: answer for status, answer in operation["responses"].items() if status < "400"}
    health = {s: a for s, a in operation["responses"].items() if s == "503" and "Health" in str(a)}
    return "; ".join(f"{status} {_content(answer['content'])}" for status, answer in sorted((fine | health).items()))


def _errors(operation: Schema) -> str:
    failed = sorted(s for s, a in operation["responses"].items() if s >= "400" and "Error" in str(a))
    return ", ".join(status for status in failed if status not in _COMMON)


def _content(content: Schema) -> str:
    return " or ".join(_type(media["schema"]) + _AS.get(kind, "") for kind, media in content.items())


def _shape(schema: Schema) -> str:
    """Return the fields of one object."""
    asked = "messages" in schema["properties"] or "prompt" in schema["properties"]
    rows = [
        (code(name), "yes" if always else "", _type(field, null=not asked) + _said(field))
        for name, field, always in _flat(schema)
    ]
    said = f"{schema['description']}\n\n" if "description" in schema else ""
    return said + table(("field", "always", "values"), rows)


def _flat(schema: Schema, above: str = "") -> Iterator[tuple[str, Schema, bool]]:
    """Yield the fields; those of an object within the object are named `group.field`."""
    for name, field in schema["properties"].items():
        inner = field.get("items", field)
        if inner.get("additionalProperties") is False and inner["properties"]:
            yield from _flat(inner, f"{above}{name}{'[]' if 'items' in field else ''}.")
        else:
            yield above + name, field, name in schema.get("required", [])


def _said(field: Schema) -> str:
    said = [part["description"] for part in (field, *field.get("anyOf", [])) if "description" in part]
    return f"; {said[0]}" if said else ""


def _type(schema: Schema, *, null: bool = True) -> str:
    if schema.get("pattern") in _PATTERNS:
        return _PATTERNS[schema["pattern"]]
    if schema.get("enum") == list(ErrorType):
        return "[one of these](errors.md#error_type), or empty"
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return ", ".join(code(value) if value else "empty" for value in schema["enum"])
    if "const" in schema:
        return code(str(schema["const"]).lower())
    if "anyOf" in schema and "type" not in schema:
        kinds = [_type(kind, null=null) for kind in schema["anyOf"] if null or kind.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"array of {_type(schema['items'])}" if "items" in schema else "array"
    if kind == "object" and "data" in schema.get("properties", {}):
        return f"list of {_type(schema['properties']['data']['items'])}"
    return kind + _bounds(schema)


def _bounds(schema: Schema) -> str:
    parts = []
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    if above is not None:
        parts.append(f"above {above}")
    elif low is not None and low > -(2**63):
        parts.append(f"from {low}")
    if schema.get("maximum", 2**63) < 2**63 - 1:
        parts.append(f"to {schema['maximum']}")
    if "maxLength" in schema:
        parts.append(f"up to {schema['maxLength']} characters")
    return " " + " ".join(parts) if parts else ""
