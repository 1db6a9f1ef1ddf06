"""Write docs/use/config.md from the config's models: `python docs/use/make_config.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from flows.config.schema import PRESETS, DistillConfig

PAGE = Path(__file__).with_name("config.md")
HEAD = """\
# Configuration

<!-- Written by `python docs/use/make_config.py` from flows/config/. Change the descriptions there. -->

A config is a YAML file. Unknown keys and wrong types are errors. Paths are relative to the file. `--set KEY=VALUE`
changes a key for one run. In the column *key*, `[]` stands for each item of a list and `NAME` for a name of yours.
"""
BOUNDS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
WORDS = {"number": "number", "integer": "integer", "string": "text", "boolean": "true or false", "null": "null"}


def page() -> str:
    """Return the text of config.md."""
    schema = DistillConfig.model_json_schema()
    models = schema["$defs"]
    fields = schema["properties"]
    sections = {name: _model(field, models) for name, field in fields.items() if "$ref" in field}
    whole = {"properties": {name: field for name, field in fields.items() if name not in sections}}
    parts = [HEAD, *_section("The whole run", "", {**whole, "required": schema["required"]}, models)]
    for name, model in sections.items():
        parts += _section(f"`{name}`", name, model, models)
    parts.append("## Presets\n\nA preset sets these keys where the config does not. `standard` sets none.\n")
    for name, sections in PRESETS.items():
        if sections:
            parts.append(f"`{name}`:\n\n```yaml\n{yaml.safe_dump(sections, sort_keys=False)}```\n")
    return "\n".join(parts)


def _section(title: str, prefix: str, model: dict[str, Any], models: dict[str, Any]) -> list[str]:
    head = f"## {title}\n"
    if text := model.get("description"):
        head += f"\n{' '.join(text.split())}\n"
    rows = ["| key | values | default | meaning |", "|---|---|---|---|", *_rows(prefix, model, models)]
    return [head, "\n".join(rows) + "\n"]


def _rows(prefix: str, model: dict[str, Any], models: dict[str, Any]) -> Iterator[str]:
    for name, field in model["properties"].items():
        key = f"{prefix}.{name}".lstrip(".")
        required = name in model.get("required", ())
        default = "required" if required else f"`{_plain(field.get('default'))}`"
        cells = (f"`{key}`", _values(field, models), default, field.get("description", ""))
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
        yield from _inner(key, field, models)


def _inner(key: str, field: dict[str, Any], models: dict[str, Any]) -> Iterator[str]:
    """Yield the rows of a model inside a field: alone, in a list, by name, or beside other values."""
    if "$ref" in field and "properties" in (model := _model(field, models)):
        yield from _rows(key, model, models)
    for choice in [*field.get("anyOf", ()), *field.get("allOf", ())]:
        yield from _inner(key, choice, models)
    if isinstance(field.get("items"), dict):
        yield from _inner(f"{key}[]", field["items"], models)
    if isinstance(field.get("additionalProperties"), dict):
        yield from _inner(f"{key}.NAME", field["additionalProperties"], models)


def _values(field: dict[str, Any], models: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_values(choice, models) for choice in field["anyOf"])
    if "$ref" in field:
        model = _model(field, models)
        return "the keys below" if "properties" in model else _values(model, models)
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return f"list of: {_values(field['items'], models)}" if field.get("items") else "list"
    if field.get("type") == "object":
        inner = field.get("additionalProperties")
        return f"NAME: {_values(inner, models)}" if isinstance(inner, dict) and inner else "keys and values"
    bounds = [text.format(_plain(field[name])) for name, text in BOUNDS.items() if name in field]
    return " ".join([WORDS.get(field.get("type", ""), "any"), ", ".join(bounds)]).strip()


def _model(field: dict[str, Any], models: dict[str, Any]) -> dict[str, Any]:
    model: dict[str, Any] = models[field["$ref"].rsplit("/", 1)[1]]
    return model


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{}" if not any(value.values()) else str(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page())
