"""The index of official names is that of the plugins there are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_INDEX = _ROOT / "lmflow_core" / "_official.json"


def _official(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(_ROOT / "dev" / "official.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_index_is_up_to_date() -> None:
    checked = _official("--check")
    assert (checked.returncode, checked.stderr) == (0, "")


def test_an_index_that_is_out_of_date_is_noticed_and_mended(tmp_path: Path) -> None:
    index = tmp_path / "index.json"
    names: dict[str, dict[str, Any]] = json.loads(_INDEX.read_text(encoding="utf-8"))
    del names["exporter"]["hf"]
    index.write_text(json.dumps(names, indent=2) + "\n", encoding="utf-8")
    checked = _official("--check", index)
    assert (checked.returncode, checked.stderr) == (1, "index.json is out of date: run python dev/official.py\n")
    assert _official(index).returncode == 0
    assert index.read_bytes() == _INDEX.read_bytes()


def test_the_index_tells_the_distribution_of_names_and_aliases() -> None:
    names = json.loads(_INDEX.read_text(encoding="utf-8"))
    assert names["exporter"]["hf"] == names["exporter"]["huggingface"] == "lmflow-transformers"
    assert names["model"]["smollm2"] == "lmflow-smollm2"
    assert names["template"]["chatml"] == "lmflow-templates"
