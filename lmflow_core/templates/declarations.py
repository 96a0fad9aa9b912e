"""Tools declared as elements of markup, one for each of their properties; in Python and, step by step, in Jinja."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_TOLD = ("type", "name", "description", "parameters")


def as_elements(tool: Mapping[str, Any]) -> str:
    """Return the declaration of a tool, a JSON schema in OpenAI's form or the inside of one."""
    function = _mapping(tool.get("function")) or tool
    parameters = _mapping(function.get("parameters"))
    text = f"<function>\n<name>{function.get('name', '')}</name>{_description(function)}\n<parameters>"
    for name, schema in _mapping(parameters.get("properties")).items():
        told = _mapping(schema)
        kind = _element("type", told["type"]) if "type" in told else ""
        others = _others(told, ("name", "type", "description"))
        text += f"\n<parameter>\n<name>{name}</name>{kind}{_description(told)}{others}\n</parameter>"
    others = _others(parameters, ("type", "properties"))
    return f"{text}{others}\n</parameters>{_others(function, _TOLD)}\n</function>"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _description(told: Mapping[str, Any]) -> str:
    return _element("description", str(told["description"]).strip()) if "description" in told else ""


def _others(told: Mapping[str, Any], done: tuple[str, ...]) -> str:
    return "".join(_element(key, _written(value)) for key, value in told.items() if key not in done)


def _element(name: str, text: object) -> str:
    return f"\n<{name}>{text}</{name}>"


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | tuple) else str(value)


# A macro each for _others, _description and as_elements.
DECLARED = (
    "{%- macro others(told, done) -%}{%- for key, value in told.items() -%}{%- if key not in done -%}"
    "{{- '\\n<' ~ key ~ '>' ~ (value|tojson if value is mapping or (value is sequence and value is not string) "
    "else value|string) ~ '</' ~ key ~ '>' -}}"
    "{%- endif -%}{%- endfor -%}{%- endmacro -%}"
    "{%- macro description(told) -%}{%- if 'description' in told -%}"
    "{{- '\\n<description>' ~ told['description']|trim ~ '</description>' -}}{%- endif -%}{%- endmacro -%}"
    "{%- macro declared(tool) -%}"
    "{%- set function = tool['function'] if tool['function'] is mapping and tool['function'] else tool -%}"
    "{%- set parameters = function['parameters'] if function['parameters'] is mapping else {} -%}"
    "{{- '<function>\\n<name>' ~ (function['name'] if 'name' in function else '') ~ '</name>' -}}"
    "{{- description(function) ~ '\\n<parameters>' -}}"
    "{%- set properties = parameters['properties'] if parameters['properties'] is mapping else {} -%}"
    "{%- for name, schema in properties.items() -%}{%- set told = schema if schema is mapping else {} -%}"
    "{{- '\\n<parameter>\\n<name>' ~ name ~ '</name>' -}}"
    "{%- if 'type' in told -%}{{- '\\n<type>' ~ told['type'] ~ '</type>' -}}{%- endif -%}"
    "{{- description(told) ~ others(told, ['name', 'type', 'description']) ~ '\\n</parameter>' -}}"
    "{%- endfor -%}"
    "{{- others(parameters, ['type', 'properties']) ~ '\\n</parameters>' -}}"
    "{{- others(function, ['type', 'name', 'description', 'parameters']) ~ '\\n</function>' -}}{%- endmacro -%}"
)
