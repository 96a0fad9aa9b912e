"""Writes the index of official names, from which an unknown name is answered with the plugin to install.

``python dev/official.py [FILE]`` writes it, ``python dev/official.py --check [FILE]`` tells whether it is up to date.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

from lmflow_core.contracts.hooks import KINDS
from lmflow_core.plugins.discovery import load_plugins
from lmflow_core.plugins.installed import GROUP
from lmflow_core.plugins.policy import PluginPolicy, short_name

_ROOT = Path(__file__).parents[1]
_INDEX = _ROOT / "lmflow_core" / "_official.json"


def official_names(plugins: Path) -> dict[str, dict[str, str]]:
    """Return ``{kind: {name or alias: distribution}}`` of the plugins in a folder, read from their sources.

    Raises:
        PluginError: one of them does not load.
        ValueError: two of them offer one name.
    """
    entries: list[EntryPoint] = []
    distributions: dict[str, str] = {}
    for folder in sorted(path.parent for path in plugins.glob("*/pyproject.toml")):
        sys.path.insert(0, str(folder / "src"))
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for name, value in project["entry-points"][GROUP].items():
            entries.append(EntryPoint(name, value, GROUP))
            distributions[short_name(name)] = project["name"]
    index: dict[str, dict[str, str]] = {kind: {} for kind in sorted(KINDS)}
    for record in load_plugins(PluginPolicy(strict=True), entries).records:
        for spec in record.specs:
            for name in (spec.name, *spec.aliases):
                owner = index[spec.kind].setdefault(name, distributions[record.name])
                if owner != distributions[record.name]:
                    raise ValueError(f"{spec.kind} {name!r} is offered by {owner} and {distributions[record.name]}")
    return {kind: dict(sorted(names.items())) for kind, names in index.items() if names}


def main() -> int:
    """Write or check the index; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=_INDEX, help="the index; the core's own by default")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when it is out of date")
    arguments = parser.parse_args()
    text = json.dumps(official_names(_ROOT / "plugins"), indent=2) + "\n"
    if not arguments.check:
        arguments.file.write_text(text, encoding="utf-8")
    elif arguments.file.read_text(encoding="utf-8") != text:
        print(f"{arguments.file.name} is out of date: run python dev/official.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
