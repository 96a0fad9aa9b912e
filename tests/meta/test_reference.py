"""The reference is what the code says, and the pages for those who come from elsewhere name flags that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.cli.flags import FlagParser
from lmflow_core.cli.main import CORE_COMMANDS
from lmflow_core.config.schema import FINETUNE
from lmflow_core.contracts.hooks import KINDS
from lmflow_core.errors import OptionError
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.scripts import load_script

_ROOT = Path(__file__).parents[2]
_MOVING = _ROOT / "docs" / "how-to" / "move-from-another-toolkit.md"


@pytest.fixture(scope="module")
def writer() -> Any:
    return load_script(_ROOT / "dev" / "reference.py")


@pytest.fixture(scope="module")
def pages(writer: Any) -> dict[str, str]:
    found: dict[str, str] = writer.pages(writer.known_plugins())
    return found


def test_the_reference_is_up_to_date(writer: Any, pages: dict[str, str]) -> None:
    assert writer.stale(pages) == [], "run python dev/reference.py"


def test_each_extension_point_and_each_command_has_a_page(pages: dict[str, str]) -> None:
    assert {f"points/{kind}.md" for kind in KINDS} <= set(pages)
    assert {f"commands/{name}.md" for name in CORE_COMMANDS} <= set(pages)


def test_a_page_tells_signatures_options_and_names(pages: dict[str, str]) -> None:
    tuner, finetune = pages["points/tuner.md"], pages["commands/finetune.md"]
    assert "def save(self, model: LanguageModel, destination: Destination) -> None" in tuner
    assert "| `--lora-r` | N | `8` | Rank of the adapters. (at least 1) |" in tuner
    assert "| `--model` | TEXT | **required** |" in finetune
    assert "[lmflow-contrib-slic](../plugins.md#lmflow-contrib-slic)" in pages["points/objective.md"]


def test_a_docstring_becomes_markdown(writer: Any) -> None:
    text = "Does ``x`` with :class:`~a.B`.\n\nArgs:\n    one: the first,\n        and more.\n\nExample::\n\n    go()\n"
    expected = "Does `x` with `B`.\n\n**Args**\n\n- `one`: the first, and more.\n\n```python\ngo()\n```"
    assert writer.markdown(text) == expected


def test_flags_that_other_toolkits_options_become_are_known() -> None:
    rows = [line for line in _MOVING.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    flags = {flag for row in rows for flag in re.findall(r"`(--[\w-]+)", row.split(" | ", 1)[1])}
    assert len(flags) > 50
    parser = FlagParser(FINETUNE, Catalogue.discover())
    unknown = []
    for flag in sorted(flags):
        try:
            parser.parse([flag] if flag.startswith("--no-") else [flag, "1"])
        except OptionError as error:
            unknown.append(str(error))
    assert unknown == []


def test_commands_that_other_toolkits_become_are_there() -> None:
    rows = [line for line in _MOVING.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    commands = {name for row in rows for name in re.findall(r"`lmflow ([a-z-]+)", row)}
    assert commands <= {*CORE_COMMANDS, *Catalogue.discover().of_kind("command").names()}
