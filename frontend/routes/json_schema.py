"""Build JSON Schemas from parts that many bodies have in common."""

from __future__ import annotations

from typing import Any

from frontend.transport.params import LABEL_CHARS
from lifecycle.ids import ENDPOINT, MODEL_CHARS, REQUEST_ID

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
INTEGER: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
OBJECT: Schema = {"type": "object"}
LABEL: Schema = {"type": "string", "maxLength": LABEL_CHARS}
RID: Schema = {"type": "string", "pattern": f"^{REQUEST_ID.pattern}$"}
ENDPOINT_NAME: Schema = {"type": "string", "pattern": f"^{ENDPOINT.pattern}$"}
MODEL: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": MODEL_CHARS,
    "pattern": r"^[^\s\x00-\x1f\x7f-\x9f]+$",
}
ONLY_MODEL = "may be left out if there is only one"
PRIORITY: Schema = {
    "type": "integer",
    "minimum": -(2**53),
    "maximum": 2**53,
    "description": "orders the queue: a lower one starts first",
}
SECS: Schema = {"type": "number", "minimum": 0}
TOKEN_ID: Schema = {"type": "string", "pattern": "^[0-9]{1,19}-[0-9]{1,19}$"}


def ref(name: str) -> Schema:
    """Refer to one of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


def one_of(*values: str) -> Schema:
    """Describe a string with a fixed set of values."""
    return {"type": "string", "enum": [str(value) for value in values]}


def array(items: Schema, **bounds: int) -> Schema:
    """Describe an array of items of one schema."""
    return {"type": "array", "items": items, **bounds}


def number(low: float, high: float) -> Schema:
    """Describe a number within bounds, both inclusive."""
    return {"type": "number", "minimum": low, "maximum": high}


def integer(low: int, high: int) -> Schema:
    """Describe an integer within bounds, both inclusive."""
    return {"type": "integer", "minimum": low, "maximum": high}


def nullable(schema: Schema) -> Schema:
    """Describe a value that may also be null."""
    return {"anyOf": [schema, {"type": "null"}]}


def exact_object(required: list[str] | None = None, /, **properties: Schema) -> Schema:
    """Describe an object with exactly these fields, all required unless `required` names some of them."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def listing(item: Schema, **further: Schema) -> Schema:
    """Describe OpenAI's `list` object."""
    return exact_object(object=one_of("list"), data=array(item), **further)


def open_object(schema: Schema) -> Schema:
    """Let an object have further fields, which are the engine's."""
    return schema | {"additionalProperties": True}


def gated(schema: Schema, what: str) -> Schema:
    """Say of a parameter that only some engines take it; `what` are the values that this concerns."""
    return schema | {"description": f"{what} only if the model's engine accepts it"}


def call_body(required: list[str], properties: dict[str, Schema]) -> Schema:
    """Describe the body of a call. Other fields are passed to the engine unchanged; null means the same as no value."""
    properties = {**properties, "priority": PRIORITY}
    shown = {name: schema if name in required else nullable(schema) for name, schema in properties.items()}
    return {"type": "object", "properties": shown, "required": required}
