"""Every distribution declares what it needs, stays in step with the others, and says what it provides."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import lmflow_core
from lmflow_core.options import fields_of
from lmflow_core.plugins.discovery import load_plugins
from lmflow_core.plugins.installed import GROUP
from lmflow_core.plugins.policy import PluginPolicy
from lmflow_core.plugins.record import PluginRecord
from lmflow_core.plugins.versions import satisfies

_ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent for path in _ROOT.glob("plugins/*/pyproject.toml"))
CONTRIB = sorted(path.parent for path in _ROOT.glob("contrib/*/pyproject.toml"))
# Published by strangers: nobody may be sent there.
TAKEN = (
    *("benchmark", "deploy", "diffusion", "eval", "evaluate", "evaluator", "finetune", "finetuner"),
    *("inference", "inferencer", "pretrain", "pretrainer", "vision"),
)
_TEXTS = (".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".sh", ".cfg", "")
_LEFT_OUT = ("runs", "build", "dist")

each_plugin = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
each_distribution = pytest.mark.parametrize("folder", [_ROOT, *FOLDERS, *CONTRIB], ids=lambda folder: folder.name)


@functools.cache
def _project(folder: Path) -> Mapping[str, Any]:
    project: Mapping[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _split(requirement: str) -> tuple[str, str]:
    """Return name and range of a requirement."""
    match = re.match(r"([\w.-]+)\s*(.*)", requirement)
    assert match is not None
    return _normal(match.group(1)), match.group(2)


def _dependencies(folder: Path) -> dict[str, str]:
    return dict(map(_split, _project(folder)["dependencies"]))


def _extras(folder: Path) -> Iterator[str]:
    """Yield the distributions that a plugin can use when they are there."""
    for dependencies in _project(folder).get("optional-dependencies", {}).values():
        yield from dict(map(_split, dependencies))


def _package(folder: Path) -> Path:
    module: str = _project(folder)["name"].replace("-", "_")
    return folder / module if folder == _ROOT else folder / "src" / module


def _needed(node: ast.AST) -> Iterator[str]:
    """Yield the packages that code imports; those it can do without, in a ``try`` for ``ImportError``, are not."""
    if isinstance(node, ast.Import):
        yield from (alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module.split(".")[0]
    optional = isinstance(node, ast.Try) and any(
        isinstance(name, ast.Name) and name.id in ("ImportError", "ModuleNotFoundError")
        for handler in node.handlers
        for name in ast.walk(handler.type or handler)
    )
    for child in ast.iter_child_nodes(node):
        if not (optional and isinstance(child, ast.Import | ast.ImportFrom)):
            yield from _needed(child)


def _third_party(package: Path) -> dict[str, set[str]]:
    """Return each foreign package with the files of a distribution that import it."""
    found: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        # The kit for tests may use whatever a test has installed.
        if path.relative_to(package).parts[0] == "testing":
            continue
        for name in _needed(ast.parse(path.read_text(encoding="utf-8"))):
            if name not in sys.stdlib_module_names and name != package.name:
                found.setdefault(name, set()).add(path.name)
    return found


@functools.cache
def _providers() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


@each_distribution
def test_every_import_is_declared(folder: Path) -> None:
    declared = {*_dependencies(folder), *_extras(folder)}
    undeclared = {}
    for package, files in _third_party(_package(folder)).items():
        own = package.startswith("lmflow_")
        providers = {_normal(package)} if own else set(map(_normal, _providers().get(package, [package])))
        if not providers & declared:
            undeclared[package] = sorted(files)
    assert undeclared == {}


def test_the_kit_for_tests_loads_with_what_its_extra_declares() -> None:
    extra = dict(map(_split, _project(_ROOT)["optional-dependencies"]["testing"]))
    for path in sorted((_ROOT / "lmflow_core" / "testing").glob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        loaded = {name for node in body if isinstance(node, ast.Import | ast.ImportFrom) for name in _needed(node)}
        assert loaded - sys.stdlib_module_names - {"lmflow_core"} <= set(extra)


def test_the_core_needs_few_others() -> None:
    assert sorted(_dependencies(_ROOT)) == ["click", "pluggy", "pyyaml", "rich"]
    assert len(_dependencies(_ROOT)) <= 5


@pytest.mark.parametrize("folder", [_ROOT, *FOLDERS], ids=lambda folder: folder.name)
def test_versions_are_in_step(folder: Path) -> None:
    assert _project(folder)["version"] == lmflow_core.__version__
    assert _project(folder)["requires-python"] == _project(_ROOT)["requires-python"]


@each_plugin
def test_ranges_of_our_own_end_with_the_next_minor_version(folder: Path) -> None:
    major, minor = lmflow_core.__version__.split(".")[:2]
    ours = {name: range_ for name, range_ in _dependencies(folder).items() if name.startswith("lmflow-")}
    assert "lmflow-core" in ours
    assert set(ours.values()) == {f">={major}.{minor},<{major}.{int(minor) + 1}"}
    assert satisfies(lmflow_core.__version__, ours["lmflow-core"])


@pytest.mark.parametrize("folder", [*FOLDERS, *CONTRIB], ids=lambda folder: folder.name)
def test_every_range_of_the_core_has_an_upper_bound(folder: Path) -> None:
    assert re.search(r"(^|,)\s*<", _dependencies(folder)["lmflow-core"])


@each_plugin
def test_names_follow_from_the_folder(folder: Path) -> None:
    name = folder.name
    module = name.replace("-", "_")
    assert name.startswith("lmflow-")
    assert _project(folder)["name"] == name
    assert _project(folder)["entry-points"][GROUP] == {name.removeprefix("lmflow-"): f"{module}.plugin"}
    assert [path.name for path in (folder / "src").iterdir() if not path.name.endswith(".egg-info")] == [module]


@pytest.mark.parametrize("folder", [*FOLDERS, *CONTRIB], ids=lambda folder: folder.name)
def test_a_plugin_has_all_its_parts(folder: Path) -> None:
    assert (_package(folder) / "py.typed").is_file()
    assert _project(folder)["readme"] == "README.md"
    assert list((folder / "tests").glob("test_*.py")) != []
    assert _project(folder)["description"].endswith(".")


def test_the_core_is_typed() -> None:
    assert (_ROOT / "lmflow_core" / "py.typed").is_file()


def test_the_development_set_up_installs_every_plugin() -> None:
    lines = (_ROOT / "dev" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert lines == ["-e .", *(f"-e {folder.relative_to(_ROOT).as_posix()}" for folder in [*FOLDERS, *CONTRIB])]


@functools.cache
def _records() -> Mapping[str, PluginRecord]:
    return {record.distribution: record for record in load_plugins(PluginPolicy()).records}


@pytest.mark.parametrize("folder", [*FOLDERS, *CONTRIB], ids=lambda folder: folder.name)
def test_the_readme_names_everything_the_plugin_provides(folder: Path) -> None:
    record = _records()[folder.name]
    assert record.status == "ok"
    text = (folder / "README.md").read_text(encoding="utf-8")
    names = {name for spec in record.specs for name in (spec.name, *spec.aliases)}
    options = {spec.options for spec in record.specs if spec.options is not None}
    flags = {field.flag for options_class in options for field in fields_of(options_class)}
    assert sorted(name for name in names | flags if f"`{name}`" not in text) == []
    assert re.search(r"^```bash\n(.*\n)*?lmflow ", text, re.MULTILINE)


def test_the_table_of_contributed_plugins_is_true() -> None:
    rows = re.findall(
        r"^\| \[([\w-]+)\]\(.* (\d+) \|$", (_ROOT / "contrib" / "README.md").read_text("utf-8"), re.MULTILINE
    )
    assert rows == [(folder.name, str(_lines(folder / "src"))) for folder in CONTRIB]


def _lines(folder: Path) -> int:
    files = (path for path in folder.rglob("*") if path.suffix in (".py", ".yaml"))
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)


@each_distribution
def test_no_distribution_needs_or_takes_a_name_of_strangers(folder: Path) -> None:
    taken = {"lmflow", *(f"lmflow-{name}" for name in TAKEN)}
    extras = _project(folder).get("optional-dependencies", {}).values()
    extra = {_split(requirement)[0] for requirements in extras for requirement in requirements}
    assert taken & {_project(folder)["name"], *_dependencies(folder), *extra} == set()


def _texts(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if (path.name.startswith(".") and path.name != ".ci") or path.name in _LEFT_OUT or path.is_symlink():
            continue
        if path.is_dir():
            yield from _texts(path)
        elif path.suffix in _TEXTS:
            yield path


def test_nobody_is_sent_to_a_package_of_strangers() -> None:
    named = re.compile(rf"(?<![\w-])lmflow[-_]({'|'.join(TAKEN)})(?![\w-])", re.IGNORECASE)
    bare = re.compile(r"pip3? install[^\n`]*(?<![\w./-])lmflow(?![\w-])")
    assert named.search("see lmflow-vision.") is not None
    assert bare.search("pip install -U lmflow") is not None
    found = [
        f"{path.relative_to(_ROOT)}: {match.group()}"
        for path in _texts(_ROOT)
        if path != Path(__file__)
        for pattern in (named, bare)
        for match in pattern.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []
