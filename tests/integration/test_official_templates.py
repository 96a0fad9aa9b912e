"""The page of templates beside official ones lists all there are, and tells what the comparison gives."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lmflow_templates.plugin import lmflow_register_templates

_DEV = Path(__file__).parents[2] / "dev"
# Where llama.cpp's models/templates are; they are not part of LMFlow.
_FOLDER = os.environ.get("LMFLOW_OFFICIAL_TEMPLATES")


@pytest.fixture(scope="module")
def comparison() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(_DEV))
        yield importlib.import_module("official_templates")
    for name in ("official_templates", "official_comparison", "official_conversations"):
        sys.modules.pop(name)


def _known(comparison: ModuleType, source: str) -> set[str]:
    left_out = comparison.DATA["not_compared"][source].values()
    return {*comparison.DATA["files"][source], *(file for files in left_out for file in files)}


def test_the_page_is_made_of_the_data(comparison: ModuleType) -> None:
    assert comparison.PAGE.read_text(encoding="utf-8") == comparison.page(comparison.written_rows())


def test_every_row_is_of_its_template_and_explained(comparison: ModuleType) -> None:
    rows = comparison.written_rows()
    references = [*comparison.references()]
    assert set(rows) == {(reference.source, reference.file) for reference in references}
    for reference in references:
        row = rows[reference.source, reference.file]
        assert row.startswith(f"| `{reference.template}` | `{reference.file}` | {reference.source} | ")
        assert comparison.UNEXPLAINED not in row
        compared, equal = map(int, row.split("|")[4:6])
        assert compared >= 15
        assert sum(map(int, re.findall(r"\((\d+)\)", row))) == compared - equal


def test_every_template_is_compared_or_said_to_have_no_reference(comparison: ModuleType) -> None:
    compared = {reference.template for reference in comparison.references()}
    without = [name for names in comparison.DATA["without_reference"].values() for name in names]
    assert compared.isdisjoint(without)
    assert sorted([*compared, *without]) == sorted(spec.name for spec in lmflow_register_templates())


def test_the_rows_of_trl_are_what_the_comparison_gives(comparison: ModuleType) -> None:
    folder = comparison.folder_of_trl()
    if folder is None:
        pytest.skip("TRL is not installed")
    files = {path.name for path in folder.glob("*.jinja") if not path.stem.endswith("_training")}
    assert files == _known(comparison, comparison.TRL)
    _check(comparison, comparison.TRL, folder)


@pytest.mark.skipif(_FOLDER is None, reason="LMFLOW_OFFICIAL_TEMPLATES names no folder with llama.cpp's templates")
def test_the_rows_of_llama_cpp_are_what_the_comparison_gives(comparison: ModuleType) -> None:
    folder = Path(str(_FOLDER))
    assert {path.name for path in folder.glob("*.jinja")} == _known(comparison, comparison.LLAMA_CPP)
    _check(comparison, comparison.LLAMA_CPP, folder)


def _check(comparison: ModuleType, source: str, folder: Path) -> None:
    written = {key: row for key, row in comparison.written_rows().items() if key[0] == source}
    assert comparison.rows(source, folder) == written
