"""What of a document, a command line or an OpenAPI document is the contract."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_SCALARS = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
_METHODS = ("get", "post", "put", "patch", "delete")


def shape(documents: Iterable[Any]) -> Any:
    """Keys and JSON types of all these together; `key?` is not in all of them.

    A list has the shape of its items together; `any of` are types of one place.
    """
    values = list(documents)
    found: list[Any] = sorted({_SCALARS[type(value)] for value in values if _is_scalar(value)})
    if {"integer", "number"} <= set(found):
        found.remove("integer")
    if mappings := [value for value in values if isinstance(value, dict)]:
        found.append(_object(mappings))
    if lists := [value for value in values if isinstance(value, list)]:
        items = [item for value in lists for item in value]
        found.append([shape(items)] if items else [])
    if not found:
        return "nothing"
    return found[0] if len(found) == 1 else {"any of": found}


def _is_scalar(value: Any) -> bool:
    return type(value) in _SCALARS


def _object(mappings: list[dict[str, Any]]) -> dict[str, Any]:
    keys = sorted({key for mapping in mappings for key in mapping})
    having = {key: [mapping[key] for mapping in mappings if key in mapping] for key in keys}
    return {
        key if len(values) == len(mappings) else f"{key}?": shape(values)
        for key, values in having.items()
    }


def command_line(command: Any, path: str = "mindtrace") -> dict[str, Any]:
    """Every command below a command of Typer's, with its options and arguments."""
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    found = {path: {_words(parameter): _parameter(parameter) for parameter in shown}}
    for name, below in sorted(getattr(command, "commands", {}).items()):
        found |= command_line(below, f"{path} {name}")
    return found


def _words(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return ", ".join([*parameter.opts, *parameter.secondary_opts])


def _parameter(parameter: Any) -> dict[str, Any]:
    if getattr(parameter, "is_flag", False):
        return {"flag": True}
    kind = {int: "integer", float: "number"}.get(parameter.type_descriptor.annotation, "text")
    fields = {
        "kind": parameter.param_type_name,
        "type": kind,
        "metavar": parameter.metavar,
        "required": parameter.required,
        "repeatable": parameter.nargs == -1 or getattr(parameter, "multiple", False),
        "default": None if parameter.default is None else str(parameter.default),
        "min": parameter.min,
        "max": parameter.max,
    }
    return {key: value for key, value in fields.items() if value not in (None, False)}


def openapi(document: Mapping[str, Any]) -> dict[str, Any]:
    """Paths, methods, parameters, bodies, statuses and schemas, without a word of prose."""
    return {
        "paths": {
            f"{method.upper()} {path}": _operation(item[method])
            for path, item in sorted(document["paths"].items())
            for method in _METHODS
            if method in item
        },
        "schemas": {
            name: _schema(schema)
            for name, schema in sorted(document["components"]["schemas"].items())
        },
    }


def _operation(operation: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for parameter in operation.get("parameters", ()):
        mark = "" if parameter.get("required") else "?"
        words = f"{parameter['in']} {parameter['name']}{mark}"
        found.setdefault("parameters", {})[words] = _schema(parameter["schema"])
    if "requestBody" in operation:
        found["body"] = _content(operation["requestBody"])
    found["responses"] = {
        status: _content(response) for status, response in sorted(operation["responses"].items())
    }
    return found


def _content(body: Mapping[str, Any]) -> dict[str, Any]:
    content = sorted(body.get("content", {}).items())
    return {media_type: _schema(media.get("schema", {})) for media_type, media in content}


def _schema(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            found = [_schema(one) for one in schema[word]]
            return found[0] if len(found) == 1 else {"any of": sorted(found, key=str)}
    if "enum" in schema or "const" in schema:
        return {"one of": sorted(schema.get("enum", [schema.get("const")]), key=str)}
    kind = schema.get("type", "object" if "properties" in schema else "any")
    if kind == "array":
        return [_schema(schema.get("items", {}))]
    if kind == "object":
        required = schema.get("required", ())
        return {
            key if key in required else f"{key}?": _schema(value)
            for key, value in sorted(schema.get("properties", {}).items())
        }
    return kind if isinstance(kind, str) else {"any of": sorted(kind)}
