"""The page for users of the original LMFlow is what the parser does with each of its flags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.scripts import load_script

_DEV = Path(__file__).parents[2] / "dev"
_SCRIPTS = json.loads((_DEV / "lmflow_scripts.json").read_text(encoding="utf-8"))["scripts"]


@pytest.fixture(scope="module")
def writer() -> Any:
    return load_script(_DEV / "coming_from_lmflow.py")


def test_the_page_is_up_to_date_and_has_a_place_for_each_flag(writer: Any) -> None:
    page = writer.page(Catalogue.discover())
    assert page == writer.PAGE.read_text(encoding="utf-8"), "run python dev/coming_from_lmflow.py"
    assert "unknown option" not in page


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda script: script["script"])
def test_a_script_works_or_says_that_it_does_not_yet(writer: Any, script: dict[str, Any]) -> None:
    outcome = writer.script_outcome(script, Catalogue.discover())
    assert outcome.words.startswith("works") if outcome.works else "not available" in outcome.words
