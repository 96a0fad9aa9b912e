"""What the source files of a package import, without running them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path


def imported_modules(package: Path) -> dict[str, str]:
    """Return every module that the files of a package (or its only one) import, with the file that imports it.

    What it can do without, in a ``try`` for ``ImportError``, is left out, as are its own modules and those of Python.
    """
    found: dict[str, str] = {}
    for path in [package] if package.is_file() else sorted(package.rglob("*.py")):
        for name in needed(ast.parse(path.read_text(encoding="utf-8"))):
            top = name.split(".")[0]
            if top != package.stem and top not in sys.stdlib_module_names:
                found.setdefault(name, str(path.relative_to(package.parent)))
    return found


def needed(node: ast.AST) -> Iterator[str]:
    """Yield the modules that code imports, but for those in a ``try`` for ``ImportError``."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
    for child in ast.iter_child_nodes(node):
        if not (_is_optional(node) and isinstance(child, ast.Import | ast.ImportFrom)):
            yield from needed(child)


def _is_optional(node: ast.AST) -> bool:
    return isinstance(node, ast.Try) and any(
        isinstance(name, ast.Name) and name.id in ("ImportError", "ModuleNotFoundError")
        for handler in node.handlers
        for name in ast.walk(handler.type or handler)
    )
