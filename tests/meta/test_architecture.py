"""Arrows point down: between the floors of the core, and from plugins to what is public."""

from __future__ import annotations

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_CORE = _ROOT / "lmflow_core"
# Folders (and the modules beside them) from the ground up; a module may import from its own floor or one below.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("__init__", "errors", "installing", "options"),
    ("files",),
    ("contracts",),
    ("plugins",),
    ("scaffold",),
    ("report",),
    ("config",),
    ("models",),
    ("templates",),
    ("data",),
    ("generation",),
    ("workflows",),
    ("cli", "__main__"),
)
# The public interface shows things of several floors; the kit for tests stands outside.
OUTSIDE = ("api", "testing")
HEAVY = ("torch", "transformers", "peft", "datasets")
# Modules of official plugins that others may import when they load: light, as what their own entry point names.
LIGHT = ("lmflow_transformers.options",)
GROUND = ("errors", "installing", "options", "files", "contracts")


def _sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def _module(path: Path) -> str:
    parts = path.relative_to(_ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(tree: ast.AST, modules: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield every module that is imported anywhere; ``from package import module`` gives the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in modules else node.module


def _imports_on_loading(tree: ast.AST) -> Iterator[str]:
    """Yield what is imported when the module itself is: not what stands inside a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports(node)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imports_on_loading(node)


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


MODULES = {_module(path): path for path in _sources(_CORE)}
NAMES = frozenset(MODULES)
PLUGIN_SOURCES = [path for folder in ("plugins", "contrib") for path in _sources(_ROOT / folder) if "src" in path.parts]


def _top(module: str) -> str:
    """Return the first name below ``lmflow_core``."""
    return module.split(".")[1] if "." in module else "__init__"


def _floor(module: str) -> int:
    return next(number for number, floor in enumerate(FLOORS) if _top(module) in floor)


def _core_imports(module: str) -> set[str]:
    found = _imports(_tree(MODULES[module]), NAMES)
    return {name for name in found if name.split(".")[0] == "lmflow_core"}


def test_every_module_of_the_core_has_a_floor() -> None:
    placed = [name for floor in FLOORS for name in floor] + list(OUTSIDE)
    assert sorted({_top(module) for module in MODULES}) == sorted(set(placed))
    assert len(placed) == len(set(placed))


@pytest.mark.parametrize("module", sorted(m for m in MODULES if _top(m) not in OUTSIDE))
def test_the_core_imports_from_its_own_floor_or_below(module: str) -> None:
    for imported in _core_imports(module):
        assert imported in NAMES, f"{module} imports {imported}, which is no module"
        assert _top(imported) not in OUTSIDE, f"{module} imports {imported}"
        assert _floor(imported) <= _floor(module), f"{module} imports {imported} from a floor above"


def test_no_modules_of_the_core_import_each_other() -> None:
    graph = {module: _core_imports(module) - {module, "lmflow_core"} for module in MODULES}
    # A cycle raises, and tells its modules.
    assert set(graphlib.TopologicalSorter(graph).static_order()) == NAMES


def test_the_public_interface_shows_little_from_above_the_ground() -> None:
    assert {_top(module) for module in _core_imports("lmflow_core.api")} <= {*GROUND, "templates", "generation"}


@pytest.mark.parametrize("module", sorted(m for m in MODULES if _top(m) in GROUND))
def test_contracts_need_the_standard_library_and_pluggy_only(module: str) -> None:
    allowed = {"pluggy"} if module == "lmflow_core.contracts.hooks" else set()
    packages = {name.split(".")[0] for name in _imports(_tree(MODULES[module]))}
    assert packages - sys.stdlib_module_names - {"lmflow_core"} <= allowed


@pytest.mark.parametrize("module", sorted(MODULES))
def test_the_core_never_loads_anything_heavy(module: str) -> None:
    tree = _tree(MODULES[module])
    on_loading = {name.split(".")[0] for name in _imports_on_loading(tree)}
    assert on_loading.intersection(HEAVY) == set()
    if _top(module) != "testing":
        allowed = {"torch"} if module == "lmflow_core.cli.doctor" else set()
        assert {name.split(".")[0] for name in _imports(tree)}.intersection(HEAVY) <= allowed


def _distribution_module(path: Path) -> str:
    """Return the package that a source file of a plugin belongs to."""
    return path.parts[path.parts.index("src") + 1]


@pytest.mark.parametrize("path", PLUGIN_SOURCES, ids=lambda path: str(path.relative_to(_ROOT)))
def test_plugins_import_only_what_is_public(path: Path) -> None:
    own = _distribution_module(path)
    ours = {name for name in _imports(_tree(path)) if name.startswith("lmflow_")}
    for name in ours:
        package = name.split(".")[0]
        if package == "lmflow_core":
            assert name == "lmflow_core.api"
        elif package != own:
            assert name in {f"{package}.api", *LIGHT}


@pytest.mark.parametrize(
    "path", [path for path in PLUGIN_SOURCES if path.name == "plugin.py"], ids=lambda path: path.parts[-2]
)
def test_what_an_entry_point_names_is_light(path: Path) -> None:
    own = _distribution_module(path)
    seen: set[str] = set()
    waiting = [f"{own}.plugin", own]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        if module.split(".")[0] == own:
            file = path.parents[1].joinpath(*module.split("."))
            source = file.with_suffix(".py") if file.with_suffix(".py").is_file() else file / "__init__.py"
            waiting += _imports_on_loading(_tree(source))
    known = {own, *sys.stdlib_module_names}
    foreign = {module for module in seen if module.split(".")[0] not in known}
    assert foreign <= {"lmflow_core.api", *LIGHT}


def test_tests_hold_no_modules_that_could_be_imported() -> None:
    folders = [_ROOT / "tests", *_ROOT.glob("plugins/*/tests"), *_ROOT.glob("contrib/*/tests")]
    files = [path.name for folder in folders for path in _sources(folder)]
    assert [name for name in files if not name.startswith("test_") and name != "conftest.py"] == []
