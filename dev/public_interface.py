"""Writes ``docs/public-interface.txt``: every public name with its signature, fields and methods.

``python dev/public_interface.py`` writes it anew and tells its digest, which the changelog's entry on the change holds;
``--check`` writes nothing and exits with 1 when the file is out of date.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pluggy import HookimplMarker

_ROOT = Path(__file__).parents[1]
FILE = _ROOT / "docs" / "public-interface.txt"
MODULES = ("lmflow_core.api", "lmflow_core.testing.contracts", "lmflow_transformers.api", "lmflow_transformers.options")


def public_interface() -> str:
    """Return the public interface as text, one line for each name, field and method."""
    return "\n".join(line for module in MODULES for line in _module(module)) + "\n"


def digest(text: str) -> str:
    """Return the short digest by which the changelog names a state of the interface."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _module(name: str) -> Iterator[str]:
    module = importlib.import_module(name)
    yield from ("", name) if name != MODULES[0] else (name,)
    own = [found for found in vars(module) if getattr(vars(module)[found], "__module__", "") == name]
    for public in sorted(getattr(module, "__all__", own)):
        if not public.startswith("_"):
            yield from _described(public, getattr(module, public))


def _described(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, type):
        bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        yield f"  class {name}({bases})" if bases else f"  class {name}"
        yield from (f"    {line}" for line in _members(value))
    elif inspect.isroutine(value) or isinstance(value, HookimplMarker):
        yield f"  def {name}{_signature(value)}"
    else:
        yield f"  {name}: {type(value).__name__}"


def _members(owner: type) -> Iterator[str]:
    fields = {field.name: field for field in dataclasses.fields(owner)} if dataclasses.is_dataclass(owner) else {}
    for name, annotation in sorted(inspect.get_annotations(owner).items()):
        if not name.startswith("_"):
            default = f" = {_default(fields[name])}" if name in fields else ""
            yield f"{name}: {annotation}{default}".removesuffix(" = ")
    for name, member in sorted(vars(owner).items()):
        if name.startswith("_") and name != "__call__":
            continue
        if isinstance(member, property):
            yield f"property {name}"
        elif name.startswith("test_"):
            yield f"check {name}"
        elif inspect.isfunction(member) or isinstance(member, classmethod):
            yield f"def {name}{_signature(getattr(owner, name))}"


def _signature(function: Any) -> str:
    """Return a signature with annotations as they are written, and nothing that differs from run to run."""
    text = re.sub(r"'([^']*)'", r"\1", str(inspect.signature(function)))
    return re.sub(r"<[^<>]*>", "…", text)


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    return "" if field.default_factory is dataclasses.MISSING else "…"


def main() -> int:
    """Write or check the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when it is out of date")
    text = public_interface()
    if parser.parse_args().check:
        return int(FILE.read_text(encoding="utf-8") != text)
    FILE.write_text(text, encoding="utf-8")
    print(f"written; the changelog's entry on the public interface is to hold ({digest(text)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
