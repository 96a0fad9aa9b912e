"""Virtual environments that hold chosen LMFlow distributions and no other, beside every third-party package.

A plugin that passes its tests in one needs nothing that it does not declare.
"""

from __future__ import annotations

import os
import site
import subprocess
import sys
import venv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_LINKED = "third_party.pth"


def link_third_party(folder: Path, without: Sequence[str] = ()) -> Path:
    """Fill a folder with links to the packages of this interpreter, and return it.

    LMFlow's own are left out, and so is what makes editable installations importable.

    Args:
        folder: a new folder.
        without: beginnings of the names to leave out as well.
    """
    folder.mkdir(parents=True)
    left_out = ("lmflow", "__editable__", *without)
    for packages in map(Path, reversed(site.getsitepackages())):
        for entry in packages.iterdir() if packages.is_dir() else ():
            if not entry.name.lower().startswith(left_out) and entry.suffix != ".pth":
                link = folder / entry.name
                link.unlink(missing_ok=True)
                link.symlink_to(entry)
    return folder


def build_wheels(projects: Iterable[Path], folder: Path) -> Path:
    """Build the wheels of some projects into a folder, with the build backend that is installed, and return it.

    Raises:
        subprocess.CalledProcessError: a project cannot be built; its output is on stderr.
    """
    options = ("--no-build-isolation", "--no-index", "--no-deps", "--wheel-dir", str(folder))
    _pip("wheel", *options, *(str(project.resolve()) for project in projects))
    return folder


def _pip(*arguments: str) -> None:
    """Run pip without its settings from files and the environment: they may name further places to find packages."""
    command = [sys.executable, "-m", "pip", "--isolated", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, stdout=sys.stderr, cwd=Path(sys.prefix))


@dataclass(frozen=True)
class Environment:
    """A virtual environment without pip."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, third_party: Path) -> Environment:
        """Make an environment that sees the packages linked into ``third_party``."""
        venv.create(folder, symlinks=os.name != "nt")
        environment = cls(folder)
        (environment.site / _LINKED).write_text(f"{third_party}\n", encoding="utf-8")
        return environment

    @property
    def scripts(self) -> Path:
        """The folder of its commands."""
        return self.folder / ("Scripts" if os.name == "nt" else "bin")

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.scripts / "python"

    @property
    def site(self) -> Path:
        """The folder of its packages."""
        if os.name == "nt":
            return self.folder / "Lib" / "site-packages"
        return next((self.folder / "lib").iterdir()) / "site-packages"

    def install(self, wheels: Path, distributions: Iterable[str]) -> None:
        """Install distributions from a folder of wheels, and nothing else.

        Raises:
            subprocess.CalledProcessError: one of them has no wheel there.
        """
        options = ("--no-index", "--no-deps", "--no-compile", "--find-links", str(wheels))
        _pip("--python", str(self.python), "install", *options, *distributions)

    def run(self, *command: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run one of its commands in a folder, apart from this process's Python and LMFlow settings."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LMFLOW_", "PYTEST_"))}
        program, *arguments = map(str, command)
        return subprocess.run(
            [str(self.scripts / program), *arguments],
            cwd=cwd,
            env={**inherited, "PYTHONNOUSERSITE": "1", "PYTHONSAFEPATH": "1", **variables},
            capture_output=True,
            text=True,
            check=False,
        )
