"""Run files: YAML with option names as keys. What comes from elsewhere cannot harm: neither code nor bombs are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmflow_core.errors import RequestError

_LARGEST = 64 << 20
_LONGEST_NAME = 100


def read_run_file(path: Path) -> dict[str, object]:
    """Return the values of a run file: YAML with option names as keys. A ``run.json`` serves too.

    Raises:
        RequestError: the file cannot be read, or does not hold a mapping whose keys are names, each of them once.
    """
    content = _content(path, "a run file maps option names to values")
    options = content.get("options")
    return _named(options if isinstance(options, dict) else content, path)


def read_mapping(path: Path, otherwise: str) -> dict[str, object]:
    """Return what a YAML or JSON file maps names to, dashes in the names as underscores.

    Args:
        path: of the file.
        otherwise: what the error says of a file that holds something else.

    Raises:
        RequestError: the file cannot be read, or does not hold a mapping whose keys are names, each of them once.
    """
    return _named(_content(path, otherwise), path)


def _content(path: Path, otherwise: str) -> dict[Any, Any]:
    text = _text(path)
    # Every ``run.json`` is YAML too, and read as such it would take a hundred times as long.
    content = _json(text, path) if text.lstrip().startswith("{") else None
    content = content if isinstance(content, dict) else _yaml(text, path)
    if not isinstance(content, dict):
        raise RequestError(f"{path}: {otherwise}")
    return content


def _named(content: dict[Any, Any], path: Path) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if len(name) > _LONGEST_NAME:
            raise RequestError(f"{path}: a key of {len(name)} characters is no option name")
        if name in values:
            raise RequestError(f"{path}: {name!r} is there twice; leave one out")
        values[name] = value
    return values


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise RequestError(f"{path}: more than {_LARGEST >> 20} MB are no run file")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise RequestError(f"{path}: the run file cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not UTF-8 (byte {error.start}); convert it to UTF-8") from error


def _json(text: str, path: Path) -> object:
    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            twice = next(name for name, _ in pairs if [other for other, _ in pairs].count(name) > 1)
            raise RequestError(f"{path}: {twice[:_LONGEST_NAME]!r} is there twice; leave one out")
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError):
        return None


def _yaml(text: str, path: Path) -> object:
    import yaml

    from lmflow_core.config.plain_yaml import PlainLoader

    try:
        return yaml.load(text, PlainLoader)
    except yaml.YAMLError as error:
        raise RequestError(f"{path}: broken YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise RequestError(f"{path}: nested too deeply for a run file") from error
    except ValueError as error:
        raise RequestError(f"{path}: broken YAML: a value cannot be read: {error}") from error
