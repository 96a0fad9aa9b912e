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
from lmflow_core.installing import PUBLISHED
from lmflow_core.options import fields_of
from lmflow_core.plugins.discovery import load_plugins
from lmflow_core.plugins.installed import GROUP
from lmflow_core.plugins.official import TAKEN_BY_STRANGERS
from lmflow_core.plugins.policy import PluginPolicy
from lmflow_core.plugins.record import PluginRecord
from lmflow_core.plugins.versions import satisfies
from lmflow_core.testing.distributions import core_range
from lmflow_core.testing.imports import needed

_ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent for path in _ROOT.glob("plugins/*/pyproject.toml"))
CONTRIB = sorted(path.parent for path in _ROOT.glob("contrib/*/pyproject.toml"))
# Libraries that LMFlow builds on through more than what they document as stable, by the version that ends the range.
BOUNDED = {
    "accelerate": "2",
    "gguf": "1",
    "gradio": "7",
    "liger-kernel": "1",
    "llama-cpp-python": "0.4",
    "lm-eval": "0.5",
    "llguidance": "2",
    "peft": "1",
    "pytorch-optimizer": "5",
    "transformers": "6",
}
CLASSIFIERS = {
    "Development Status :: 4 - Beta",
    "Intended Audience :: Developers",
    "Intended Audience :: Science/Research",
    "Operating System :: OS Independent",
    "Programming Language :: Python :: 3",
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
    "Typing :: Typed",
}
RULES = """The rules for every distribution stand in docs/releasing.md, 'Metadata': the version of the core, also as
__version__; description, readme, license = "Apache-2.0" with license-files = ["LICENSE"] (a copy of the one at the
top: cp LICENSE FOLDER/), the authors, keywords with "lmflow", the classifiers of the others and none for the licence;
LMFlow's own distributions in ranges that end with the next minor version; every other requirement begins with the
oldest version known to work (>=), is the same everywhere, and ends where BOUNDED of this test says, if it is there;
what a spec requires is an optional dependency, by the name of the distribution."""
_TEXTS = (".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".sh", ".cfg", "")
_LEFT_OUT = ("runs", "build", "dist", "site")

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


def _requirements(folder: Path) -> dict[str, str]:
    """Return the ranges of all that a distribution needs or can use, by name."""
    extras = _project(folder).get("optional-dependencies", {}).values()
    listed = [*_project(folder)["dependencies"], *(requirement for extra in extras for requirement in extra)]
    return dict(map(_split, listed))


def _package(folder: Path) -> Path:
    module: str = _project(folder)["name"].replace("-", "_")
    return folder / module if folder == _ROOT else folder / "src" / module


def _needed(node: ast.AST) -> Iterator[str]:
    """Yield the packages that code imports and cannot do without."""
    yield from (module.split(".")[0] for module in needed(node))


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
    declared = set(_requirements(folder))
    undeclared = {}
    for package, files in _third_party(_package(folder)).items():
        own = package.startswith("lmflow_")
        providers = {_normal(package)} if own else set(map(_normal, _providers().get(package, [package])))
        if not providers & declared:
            undeclared[package] = sorted(files)
    assert undeclared == {}


def _problems_of_metadata(folder: Path) -> Iterator[str]:
    project = _project(folder)
    expected = {
        "readme": "README.md",
        "license": "Apache-2.0",
        "license-files": ["LICENSE"],
        "authors": [{"name": "The LMFlow team"}],
    }
    yield from (f"{key} is not {value!r}" for key, value in expected.items() if project.get(key) != value)
    licence = folder / "LICENSE"
    if licence.is_symlink() or not licence.is_file() or licence.read_bytes() != (_ROOT / "LICENSE").read_bytes():
        yield "LICENSE is not a copy of the one at the top"
    if not project["description"].endswith(".") or "\n" in project["description"]:
        yield "description is not one line that ends with a full stop"
    if "lmflow" not in project.get("keywords", ()) or len(project["keywords"]) < 3:
        yield "keywords are not 'lmflow' and at least two more"
    if not set(project.get("classifiers", ())) >= CLASSIFIERS:
        yield f"classifiers lack {sorted(CLASSIFIERS - set(project.get('classifiers', ())))}"
    if any(classifier.startswith("License") for classifier in project.get("classifiers", ())):
        yield "a classifier names the licence, which the license expression does"


@each_distribution
def test_metadata_is_that_of_the_others(folder: Path) -> None:
    assert list(_problems_of_metadata(folder)) == [], RULES


@each_distribution
def test_every_requirement_begins_somewhere_and_ends_where_it_would_break(folder: Path) -> None:
    problems = []
    for name, range_ in _requirements(folder).items():
        if name.startswith("lmflow-"):
            continue
        upper = f",<{BOUNDED[name]}" if name in BOUNDED else ""
        if not re.fullmatch(rf">=\d[\d.]*{re.escape(upper)}", range_):
            problems.append(f"{name}{range_}: the form is >=OLDEST{upper}")
    assert problems == [], RULES


def test_distributions_ask_for_the_same_versions() -> None:
    asked: dict[str, dict[str, list[str]]] = {}
    for folder in (_ROOT, *FOLDERS, *CONTRIB):
        for name, range_ in _requirements(folder).items():
            asked.setdefault(name, {}).setdefault(range_, []).append(folder.name)
    assert {name: ranges for name, ranges in asked.items() if len(ranges) > 1} == {}, RULES
    assert set(BOUNDED) <= set(asked)


def test_the_kit_for_tests_loads_with_what_its_extra_declares() -> None:
    extra = dict(map(_split, _project(_ROOT)["optional-dependencies"]["testing"]))
    for path in sorted((_ROOT / "lmflow_core" / "testing").glob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        loaded = {name for node in body if isinstance(node, ast.Import | ast.ImportFrom) for name in _needed(node)}
        assert loaded - sys.stdlib_module_names - {"lmflow_core"} <= set(extra)


def test_the_core_needs_few_others() -> None:
    assert sorted(_dependencies(_ROOT)) == ["click", "pluggy", "pyyaml", "rich"]
    assert len(_dependencies(_ROOT)) <= 5


@each_distribution
def test_versions_are_in_step(folder: Path) -> None:
    assert _project(folder)["version"] == lmflow_core.__version__, RULES
    assert _project(folder)["requires-python"] == _project(_ROOT)["requires-python"]
    told = re.search(r'^__version__ = "(.+)"$', (_package(folder) / "__init__.py").read_text("utf-8"), re.MULTILINE)
    assert told is not None, f"{_package(folder).name}/__init__.py does not tell the version in __version__"
    assert told[1] == lmflow_core.__version__


@pytest.mark.parametrize("folder", [*FOLDERS, *CONTRIB], ids=lambda folder: folder.name)
def test_ranges_of_our_own_end_with_the_next_minor_version(folder: Path) -> None:
    ours = {name: range_ for name, range_ in _dependencies(folder).items() if name.startswith("lmflow-")}
    assert "lmflow-core" in ours
    assert set(ours.values()) == {core_range()}, RULES
    assert satisfies(lmflow_core.__version__, ours["lmflow-core"])


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
    assert list((folder / "tests").glob("test_*.py")) != []


def test_the_core_is_typed() -> None:
    assert (_ROOT / "lmflow_core" / "py.typed").is_file()


def test_the_development_set_up_installs_every_plugin() -> None:
    lines = (_ROOT / "dev" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert lines == ["-e .", *(f"-e {folder.relative_to(_ROOT).as_posix()}" for folder in [*FOLDERS, *CONTRIB])]


@functools.cache
def _records() -> Mapping[str, PluginRecord]:
    return {record.distribution: record for record in load_plugins(PluginPolicy()).records}


@pytest.mark.parametrize("folder", [*FOLDERS, *CONTRIB], ids=lambda folder: folder.name)
def test_what_a_target_needs_is_an_optional_dependency_by_that_name(folder: Path) -> None:
    # A message tells to install it: the name of a module would be another distribution, or nobody's.
    needed = {_normal(name) for spec in _records()[folder.name].specs for name in spec.requires}
    assert needed - set(_requirements(folder)) == set(), RULES


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
    assert TAKEN_BY_STRANGERS & {_project(folder)["name"], *_requirements(folder)} == set()


def _texts(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if (path.name.startswith(".") and path.name != ".ci") or path.name in _LEFT_OUT or path.is_symlink():
            continue
        if path.is_dir():
            yield from _texts(path)
        elif path.suffix in _TEXTS:
            yield path


def test_nobody_is_sent_to_a_package_of_strangers() -> None:
    taken = "|".join(name.removeprefix("lmflow-") for name in TAKEN_BY_STRANGERS - {"lmflow"})
    named = re.compile(rf"(?<![\w-])lmflow[-_]({taken})(?![\w-])", re.IGNORECASE)
    # Until ours are published, their names on PyPI may be anybody's.
    unpublished = re.compile(r"pip3? install[^\n`]*(?<![\w./-])lmflow-")
    bare = re.compile(r"pip3? install[^\n`]*(?<![\w./-])lmflow(?![\w-])")
    patterns = (named, bare) if PUBLISHED else (named, bare, unpublished)
    assert named.search("see lmflow-vision.") is not None
    assert bare.search("pip install -U lmflow") is not None
    assert unpublished.search("pip install 'lmflow-gguf[llama-cpp]'") is not None
    assert unpublished.search("pip install './plugins/lmflow-gguf[llama-cpp]'") is None
    found = [
        f"{path.relative_to(_ROOT)}: {match.group()}"
        for path in _texts(_ROOT)
        if path not in (Path(__file__), _ROOT / "tests" / "test_installing.py")
        for pattern in patterns
        for match in pattern.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []
