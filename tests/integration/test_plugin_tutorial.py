"""The plugin of the tutorial, built and installed as it is written there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

_PAGE = Path(__file__).parents[2] / "docs" / "writing-a-plugin.md"


def _files() -> dict[str, str]:
    text = _PAGE.read_text(encoding="utf-8")
    return dict(re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?)```", text, re.DOTALL))


def _run(*command: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path)} if path else dict(os.environ)
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_the_tutorials_plugin_works(tmp_path: Path) -> None:
    files = _files()
    assert set(files) == {"pyproject.toml", "lmflow_pirate.py"}
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for name, text in files.items():
        (source / name).write_text(text, encoding="utf-8")
    built = _run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "--no-index",
        "-w",
        str(tmp_path),
        str(source),
    )
    assert built.returncode == 0, built.stderr
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(site)

    lmflow = (sys.executable, "-m", "lmflow_core")
    listed = _run(*lmflow, "plugins", path=site)
    assert listed.returncode == 0, listed.stderr
    assert re.search(r"^pirate +0\.1\.0 +ok +templates: pirate$", listed.stdout, re.MULTILINE)
    shown = _run(*lmflow, "templates", "show", "pirate", path=site).stdout
    assert shown == "Landlubber: What is 2 + 3?\nCaptain: 5</s>Landlubber: And 2 * 3?\nCaptain: \n"
