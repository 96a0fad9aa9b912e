"""Data sets by name: those of paths, those of folders, and the original LMFlow's groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmflow_benchmarks.set_names import GROUPS, data_sets
from lmflow_core.api import RequestError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a set that is a folder, and one that is a file."""
    (tmp_path / "wiki_en_eval").mkdir()
    (tmp_path / "mine.jsonl").touch()
    return tmp_path


def test_sets_are_called_as_their_files_and_in_full_where_two_end_alike(folder: Path) -> None:
    wiki, mine, other = folder / "wiki_en_eval", folder / "mine.jsonl", folder / "wiki_en_eval" / "mine.jsonl.gz"
    assert data_sets([wiki, mine, mine], ()) == {"wiki_en_eval": wiki, "mine": mine}
    assert data_sets([mine], ["customized"]) == {"mine": mine}
    assert data_sets([mine, other], ()) == {mine.as_posix(): mine, other.as_posix(): other}


def test_a_name_is_looked_for_in_each_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"mine": folder / "mine.jsonl", "wiki_en_eval": folder / "wiki_en_eval"}
    assert data_sets([folder / "none", folder], ["mine", "wiki_en_eval"]) == found
    folder.rename(folder.with_name("data"))
    monkeypatch.chdir(folder.parent)
    assert data_sets([], ["wiki_en_eval"]) == {"wiki_en_eval": Path("data/wiki_en_eval")}


def test_a_group_is_all_of_its_sets(folder: Path) -> None:
    assert [len(GROUPS[name]) for name in GROUPS] == [8, 2, 4, 2, 16]
    for name in GROUPS["commonsense_nll_eval"]:
        (folder / name).mkdir()
    assert [*data_sets([folder], ["commonsense_nll_eval"])] == [*GROUPS["commonsense_nll_eval"]]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["wiki_eval"], "there is no wiki_zh_eval: put a folder of this name there"),
        (
            ["lmflow_chat_zh_nll_eval"],
            "there is no lmflow_chat_cn_dialog_multiturn_nll_text2text_nosharp, "
            "no lmflow_chat_cn_dialog_multiturn_single_nll_text2text: put",
        ),
        (["wiki_en_evil"], "there is no wiki_en_evil: did you mean wiki_en_eval"),
        (["mime"], "did you mean mine?"),
        (["math_eval"], "give --benchmark lm-eval --tasks gsm8k"),
        ([], "--benchmark lmflow measures on data: add --dataset"),
    ],
)
def test_what_is_missing_is_told(names: list[str], message: str, folder: Path) -> None:
    with pytest.raises(RequestError) as told:
        data_sets([folder] if names else [], names)
    assert message in str(told.value)


def test_no_set_is_called_as_the_mean_of_all(folder: Path) -> None:
    assert data_sets([folder / "mean.json"], ()) == {"mean": folder / "mean.json"}
    with pytest.raises(RequestError, match="may not be called 'mean'"):
        data_sets([folder / "mean.json", folder / "mine.jsonl"], ())
