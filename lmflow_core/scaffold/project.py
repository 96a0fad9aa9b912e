"""Writes the folder of a new plugin: one that installs, works and passes its contract, and says what to change."""

from __future__ import annotations

import importlib.resources
import keyword
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import lmflow_core
from lmflow_core.contracts.command import CORE_COMMANDS
from lmflow_core.contracts.hooks import KINDS
from lmflow_core.errors import OptionError
from lmflow_core.files.output import atomic_folder, check_output
from lmflow_core.plugins.official import TAKEN_BY_STRANGERS, official_distributions
from lmflow_core.plugins.registry import Catalogue

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_MAJOR, _MINOR = lmflow_core.__version__.split(".")[:2]
# Of LMFlow's own, which share a minor version.
_OWN = f">={_MAJOR}.{_MINOR},<{_MAJOR}.{int(_MINOR) + 1}"
_RANGES = {
    "click": ">=8.2",
    "lmflow-core": _OWN,
    "lmflow-transformers": _OWN,
    "tokenizers": ">=0.22",
    "torch": ">=2.7",
    "transformers": ">=5.0,<6",
}


def write_project(name: str, kind: str, folder: Path, catalogue: Catalogue) -> list[str]:
    """Write a new plugin into a folder, and return its files by their paths in it.

    Args:
        name: of the plugin and of the component it provides.
        kind: of the component, such as ``tuner``.
        folder: where to; it must not hold anything.
        catalogue: the plugins there are, whose names are taken.

    Raises:
        OptionError: the name is not one, or is taken.
        OutputError: the folder holds something, or cannot be written.
    """
    _check_name(name, kind, catalogue)
    check_output(folder)
    files = _files(name, kind)
    with atomic_folder(folder) as scratch:
        for path, text in files.items():
            (scratch / path).parent.mkdir(parents=True, exist_ok=True)
            (scratch / path).write_text(text, encoding="utf-8")
    return list(files)


def _check_name(name: str, kind: str, catalogue: Catalogue) -> None:
    distribution = f"lmflow-{name}"
    if not _NAME.fullmatch(name):
        raise OptionError(f"{name!r} is no name for a plugin: small letters, digits and single dashes, as in my-{kind}")
    if distribution in TAKEN_BY_STRANGERS:
        raise OptionError(f"{distribution} is a package of somebody else on PyPI: choose another name")
    if distribution in official_distributions() or name in [record.name for record in catalogue.plugins.records]:
        raise OptionError(f"there is a plugin {name!r} already: choose another name")
    if name in catalogue.of_kind(kind):
        owner = catalogue.of_kind(kind).find(name).plugin.name
        raise OptionError(f"the plugin {owner!r} provides a {kind} {name!r} already: choose another name")
    if kind == "command" and name in CORE_COMMANDS:
        raise OptionError(f"{name!r} is a command of the core: choose another name")


def _files(name: str, kind: str) -> dict[str, str]:
    facts = _facts(kind)
    values = _values(name, kind, facts)
    package = f"src/{values['package']}"
    written = {
        "pyproject.toml": _common("pyproject.toml"),
        "README.md": _common("README.md"),
        ".github/workflows/test.yml": _common("test.yml"),
        f"{package}/__init__.py": _common("init.py"),
        f"{package}/plugin.py": _common("plugin.py"),
        f"{package}/{facts['module']}.py": facts["code"],
        f"tests/test_{name.replace('-', '_')}.py": _common("test.py"),
    }
    filled = {path: Template(text).substitute(values).strip() + "\n" for path, text in written.items()}
    return {**filled, f"{package}/py.typed": "", ".gitignore": "__pycache__/\ndist/\n"}


def _values(name: str, kind: str, facts: Mapping[str, Any]) -> dict[str, str]:
    """Return what stands for each ``$name`` in the texts."""
    words = name.split("-")
    snake = "_".join(words)
    spec_class = KINDS[kind]
    values = {
        "name": name,
        "package": f"lmflow_{snake}",
        "class_": "".join(word.capitalize() for word in words),
        "constant": snake.upper(),
        "function": f"{snake}_" if keyword.iskeyword(snake) else snake,
        "word": kind.replace("_", " "),
        "module": facts["module"],
        "summary": facts["summary"],
        "hook": spec_class.hook(),
        "spec_class": spec_class.__name__,
        "contract": f"{spec_class.__name__.removesuffix('Spec')}Contract",
        "dependencies": "\n".join(f'    "{needed}{_RANGES[needed]}",' for needed in ("lmflow-core", *facts["needs"])),
        "spec": "".join(f"\n        {line}," for line in facts["spec"].splitlines()),
    }
    imports = f"from lmflow_core.api import {values['spec_class']}, hookimpl\n{facts.get('imports', '')}"
    texts = {key: facts[key] for key in ("target", "usage", "change", "test", "test_imports")}
    filled = {key: Template(text.rstrip()).substitute(values) for key, text in texts.items()}
    contracts = ", ".join(sorted(("PluginContract", values["contract"])))
    filled["test_imports"] += f"\nfrom lmflow_core.testing.contracts import {contracts}"
    return {**values, **filled, "test_imports": _sorted(filled["test_imports"]), "imports": imports.rstrip()}


def _sorted(imports: str) -> str:
    """Return lines of imports in the usual order: Python's own, those of others, and LMFlow's."""
    groups: dict[int, list[str]] = {}
    for line in filter(None, imports.splitlines()):
        top = line.split()[1].split(".")[0]
        groups.setdefault(0 if top in sys.stdlib_module_names else 2 if top.startswith("lmflow_") else 1, []).append(
            line
        )
    return "\n\n".join("\n".join(sorted(groups[group], key=_place)) for group in sorted(groups))


def _place(line: str) -> tuple[bool, str]:
    return line.startswith("from"), line.split()[1]


def _facts(kind: str) -> Mapping[str, Any]:
    import yaml

    facts: Mapping[str, Any] = yaml.safe_load(_read(f"kinds/{kind}.yaml"))
    return facts


def _common(name: str) -> str:
    return _read(f"common/{name}.txt")


def _read(path: str) -> str:
    return importlib.resources.files("lmflow_core.scaffold").joinpath(path).read_text(encoding="utf-8")
