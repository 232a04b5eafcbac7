"""Checks answers against the shapes of the Engine API's specification (tests/data/engine-api-1.51.json).

The file holds the names, types and requirements of the published specification of version 1.51, nothing else.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

_SPECIFICATION = json.loads((Path(__file__).parent / "data" / "engine-api-1.51.json").read_text())
_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,), "object": (dict,),
}  # fmt: skip
# Lists and maps that are empty may come as null, as Go writes them.
_NULL = ("array", "object")


class Findings(NamedTuple):
    """What differs: paths of wrong values, of keys that the specification has not, of keys that are left out."""

    wrong: set[str]
    unknown: set[str]
    missing: set[str]


def check(route: str, value: Any) -> Findings:
    """Compare an answer with the schema of a route such as `GET /info`."""
    found = Findings(set(), set(), set())
    _value(value, _SPECIFICATION["responses"][route], "", found)
    return found


def check_as(definition: str, value: Any) -> Findings:
    """Compare a value with one of the specification's definitions."""
    found = Findings(set(), set(), set())
    _value(value, {"$ref": f"#/definitions/{definition}"}, "", found)
    return found


def _resolved(schema: Any) -> Any:
    while "$ref" in schema:
        schema = _SPECIFICATION["definitions"][schema["$ref"].split("/")[-1]]
    if "allOf" not in schema:
        return schema
    if len(schema["allOf"]) == 1 and _resolved(schema["allOf"][0]).get("type") != "object":
        return _resolved(schema["allOf"][0])
    merged: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
    for part in (*schema["allOf"], {k: v for k, v in schema.items() if k != "allOf"}):
        part = _resolved(part)
        merged["properties"] |= part.get("properties") or {}
        merged["required"] = [*merged["required"], *(part.get("required") or [])]
        merged |= {k: v for k, v in part.items() if k not in ("properties", "required", "type")}
    return merged


def _value(value: Any, schema: Any, path: str, found: Findings) -> None:
    schema = _resolved(schema)
    kind = schema.get("type") or ("object" if "properties" in schema else "")
    if value is None:
        if kind not in ("", *_NULL) and not schema.get("x-nullable"):
            found.wrong.add(f"{path}: null instead of {kind}")
        return
    wanted = _KINDS.get(kind)
    if wanted is not None and (not isinstance(value, wanted) or (isinstance(value, bool) and kind != "boolean")):
        found.wrong.add(f"{path}: {type(value).__name__} instead of {kind}")
        return
    if schema.get("enum") and value not in ("", *schema["enum"]):
        found.wrong.add(f"{path}: {value!r} is none of {schema['enum']}")
    if isinstance(value, list):
        for item in value:
            _value(item, schema.get("items") or {}, f"{path}[]", found)
    elif isinstance(value, dict):
        _object(value, schema, path, found)


def _object(value: dict[str, Any], schema: Any, path: str, found: Findings) -> None:
    properties = schema.get("properties") or {}
    more = schema.get("additionalProperties")
    for key, item in value.items():
        if key in properties:
            _value(item, properties[key], f"{path}.{key}", found)
        elif isinstance(more, dict):
            _value(item, more, f"{path}.*", found)
        elif properties:
            found.unknown.add(f"{path}.{key}")
    for key in properties:
        if key not in value:
            found.missing.add(f"{path}.{key}")
    for key in schema.get("required") or []:
        if key not in value:
            found.wrong.add(f"{path}.{key} is required")
