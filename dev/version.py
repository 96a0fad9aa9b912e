"""Gives every distribution a new version, and the ranges with which they ask for each other.

``python dev/version.py 0.2.0`` writes it everywhere; ``python dev/version.py --check v0.2.0`` tells what of a checkout
is not ready to be released under a tag, and exits with 1 when something is not.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_VERSION = re.compile(r"(\d+)\.(\d+)\.\d+")
_RANGE = re.compile(r"(?P<name>\blmflow-[a-z0-9-]+)>=\d+\.\d+,<\d+\.\d+")
_DATED = r"^## {} \(\d{{4}}-\d\d-\d\d\)$"


def projects(root: Path) -> list[Path]:
    """Return the folder of every distribution of a checkout, the core's first."""
    found = sorted(path.parent for kind in ("plugins", "contrib") for path in root.glob(f"{kind}/*/pyproject.toml"))
    return [root, *found]


def version_of(project: Path) -> str:
    """Return the version of a distribution."""
    content = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    return str(content["project"]["version"])


def set_version(root: Path, version: str) -> list[Path]:
    """Write a version into every distribution of a checkout, and return the files that changed.

    Ranges of LMFlow's own distributions, also those that pages show, then go from its minor version to the next.

    Raises:
        ValueError: it is not of the form 1.2.3, or a file does not tell the version where it should.
    """
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ValueError(f"a version has the form 1.2.3, not {version!r}")
    major, minor = match.groups()
    wanted = rf"\g<name>>={major}.{minor},<{major}.{int(minor) + 1}"
    texts: dict[Path, str] = {}
    for project in projects(root):
        for file, pattern in _places(project):
            text, found = re.subn(pattern, rf'\g<1>"{version}"', _read(file), flags=re.MULTILINE)
            if found != 1:
                raise ValueError(f"{file} tells the version in {found} lines, not in one")
            texts[file] = text
    texts |= {page: _read(page) for page in _pages(root)}
    changed = {file: _RANGE.sub(wanted, text) for file, text in texts.items()}
    changed = {file: text for file, text in changed.items() if text != _read(file)}
    for file, text in changed.items():
        file.write_text(text, encoding="utf-8")
    return list(changed)


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _places(project: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files of a distribution that tell its version, each with the line that does."""
    yield project / "pyproject.toml", r'^(version = )"[^"]*"$'
    packages = [project / "lmflow_core"] if (project / "lmflow_core").is_dir() else (project / "src").glob("lmflow_*")
    for package in packages:
        if (package / "__init__.py").is_file():
            yield package / "__init__.py", r'^(__version__ = )"[^"]*"$'


def _pages(root: Path) -> Iterator[Path]:
    for pattern in ("README.md", "docs/*.md", "plugins/*/README.md", "contrib/*/README.md"):
        yield from root.glob(pattern)


def problems(root: Path, tag: str) -> Iterator[str]:
    """Yield what keeps a checkout from being released under a tag."""
    version = version_of(root)
    if tag != f"v{version}":
        yield f"the tag is {tag}, and the version {version}"
    for project in projects(root)[1:]:
        if version_of(project) != version:
            yield f"{project.name} has the version {version_of(project)}, and the core {version}"
    if not re.search(_DATED.format(re.escape(version)), _read(root / "CHANGELOG.md"), re.MULTILINE):
        yield f"CHANGELOG.md has no section '## {version} (YEAR-MONTH-DAY)'"


def main(arguments: list[str], root: Path = _ROOT) -> int:
    """Write or check; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", help="1.2.3, or with --check the tag")
    parser.add_argument("--check", action="store_true", help="write nothing")
    asked = parser.parse_args(arguments)
    if asked.check:
        found = list(problems(root, asked.version))
        print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
        return 1 if found else 0
    try:
        changed = set_version(root, asked.version)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(changed)} files changed; run make setup, so that the environment knows the version")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
