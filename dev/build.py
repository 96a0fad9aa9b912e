"""Builds every distribution into ``dist/``, and checks each as an index would.

``python dev/build.py [FOLDER]``: an sdist from the sources, and from the sdist a wheel. A wheel straight from
the sources must hold the same files, or something that they have would be missing from what is published.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.metadata import Metadata
from packaging.requirements import Requirement
from version import projects

from lmflow_core.report import console

_ROOT = Path(__file__).parents[1]
# The hooks by which every installer builds (PEP 517), called in the project's folder.
_HOOK = "import sys; from flit_core import buildapi; print(getattr(buildapi, sys.argv[1])(sys.argv[2]))"


@dataclass(frozen=True)
class Built:
    """The two files of a distribution, and what is wrong with them."""

    name: str
    sdist: Path
    wheel: Path
    problems: tuple[str, ...]


def build(project: Path, folder: Path) -> Built:
    """Build a distribution into a folder, and check it.

    Raises:
        subprocess.CalledProcessError: it cannot be built; the reason is on stderr.
    """
    sdist = _run_hook("build_sdist", project, folder)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        with tarfile.open(sdist) as archive:
            archive.extractall(scratch / "sdist", filter="data")
        (unpacked,) = (scratch / "sdist").iterdir()
        wheel = _run_hook("build_wheel", unpacked, folder)
        direct = _run_hook("build_wheel", project, scratch / "direct")
        problems = (*_differences(_names(direct), _names(wheel)), *_problems(project, sdist, wheel))
    return Built(_name(project), sdist, wheel, problems)


def _name(project: Path) -> str:
    return str(tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"])


def _run_hook(hook: str, project: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", _HOOK, hook, str(folder.resolve())]
    built = subprocess.run(command, cwd=project, check=True, stdout=subprocess.PIPE, text=True)
    return folder / built.stdout.splitlines()[-1]


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def _differences(direct: set[str], through_sdist: set[str]) -> Iterator[str]:
    if missing := sorted(direct - through_sdist):
        yield f"the sdist lacks {', '.join(missing)}"
    if surplus := sorted(through_sdist - direct):
        yield f"the sdist has too much: {', '.join(surplus)}"


def _problems(project: Path, sdist: Path, wheel: Path) -> Iterator[str]:
    """Yield what an index would refuse, or would show to nobody."""
    licence = (project / "LICENSE").read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        (described,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        texts = {"the wheel": archive.read(described)}
        kept = [archive.read(name) for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
        if kept != [licence]:
            yield "the wheel lacks the text of the licence"
        if not any(name.endswith("/py.typed") for name in archive.namelist()):
            yield "the wheel lacks py.typed"
    with tarfile.open(sdist) as archive:
        top = sdist.name.removesuffix(".tar.gz")
        members = {member.name: member for member in archive.getmembers()}
        if not all(member.isfile() for member in members.values()):
            yield "the sdist holds links"
        found = archive.extractfile(f"{top}/PKG-INFO")
        texts["the sdist"] = found.read() if found is not None else b""
        if f"{top}/LICENSE" not in members:
            yield "the sdist lacks the text of the licence"
    for where, text in texts.items():
        yield from (f"{where}: {problem}" for problem in _problems_of_metadata(text))


def _problems_of_metadata(text: bytes) -> Iterator[str]:
    try:
        metadata = Metadata.from_email(text, validate=True)
    except ExceptionGroup as group:
        yield from map(str, group.exceptions)
        return
    if metadata.description_content_type != "text/markdown" or not metadata.description:
        yield "no description in Markdown"
    if metadata.license_expression != "Apache-2.0":
        yield f"the licence is {metadata.license_expression}"
    for requirement in metadata.requires_dist or ():
        yield from _problems_of_requirement(requirement)


def _problems_of_requirement(requirement: Requirement) -> Iterator[str]:
    if requirement.url:
        yield f"{requirement.name} is required from a place, which an index refuses"
    if requirement.name.startswith("lmflow") and "<" not in str(requirement.specifier):
        yield f"{requirement} has no end"


def clear(folder: Path) -> None:
    """Remove what was built into a folder before: a version of yesterday would be published with that of today."""
    for pattern in ("lmflow_*.whl", "lmflow_*.tar.gz"):
        for file in folder.glob(pattern):
            file.unlink()


def main(arguments: list[str]) -> int:
    """Build and check all, print a table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=_ROOT / "dist", help="dist/ when left out")
    folder = parser.parse_args(arguments).folder
    clear(folder)
    found = [build(project, folder) for project in projects(_ROOT)]
    rows = [(built.name, built.wheel.name, "; ".join(built.problems) or "ok") for built in found]
    print(console.table(("DISTRIBUTION", "WHEEL", "CHECKED"), rows))
    return 1 if any(built.problems for built in found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
