"""The page for users of the original LMFlow is what the parser does with each of its flags."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.plugins.registry import Catalogue

_DEV = Path(__file__).parents[2] / "dev"
_SCRIPTS = json.loads((_DEV / "lmflow_scripts.json").read_text(encoding="utf-8"))["scripts"]


@pytest.fixture(scope="module")
def writer() -> Any:
    specification = importlib.util.spec_from_file_location("coming_from_lmflow", _DEV / "coming_from_lmflow.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date_and_has_a_place_for_each_flag(writer: Any) -> None:
    page = writer.page(Catalogue.discover())
    assert page == writer.PAGE.read_text(encoding="utf-8"), "run python dev/coming_from_lmflow.py"
    assert "unknown option" not in page


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda script: script["script"])
def test_a_script_works_or_says_that_it_does_not_yet(writer: Any, script: dict[str, Any]) -> None:
    outcome = writer.script_outcome(script, Catalogue.discover())
    assert outcome.words.startswith("works") if outcome.works else "not available" in outcome.words
