"""Names of data sets: folders in a folder of data, and the groups of them that the original LMFlow has."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lmflow_core.api import RequestError

_DEFAULT_FOLDER = Path("data")
# What the figures of all sets together are called.
MEAN = "mean"
_OWN_DATA = "customized"  # as the original calls data that is no set of its own
_SUFFIXES = ("", ".json", ".jsonl")

_COMMON_SENSE = tuple(
    f"common_sense_eval_{name}"
    for name in ("arc_c", "arc_e", "winogrande", "obqa", "piqa", "hellaswag", "siqa", "boolq")
)
_CHATS = {
    language: tuple(
        f"lmflow_chat_{language}_dialog_multiturn_{form}nll_text2text{end}"
        for form, end in (("", "_nosharp"), ("single_", ""))
    )
    for language in ("en", "cn")
}
_ALL_CHATS = (*_CHATS["en"], *_CHATS["cn"])
_GPT4, _WIKI = ("gpt4_en_eval", "gpt4_zh_eval"), ("wiki_en_eval", "wiki_zh_eval")
GROUPS: Mapping[str, Sequence[str]] = {
    "commonsense_nll_eval": _COMMON_SENSE,
    "wiki_eval": _WIKI,
    "lmflow_chat_nll_eval": _ALL_CHATS,
    "lmflow_chat_zh_nll_eval": _CHATS["cn"],
    "all_nll_eval": (*_COMMON_SENSE, *_GPT4, *_WIKI, *_ALL_CHATS),
}
# Those that the original has lm-evaluation-harness measure.
_OF_THE_HARNESS = {
    "commonsense_qa_eval": "openbookqa,arc_easy,winogrande,hellaswag,arc_challenge,piqa,boolq",
    "math_eval": "gsm8k",
    "boolq": "boolq",
}


def data_sets(given: Sequence[Path], names: Sequence[str]) -> dict[str, Path]:
    """Return the data sets that are measured, by name.

    Args:
        given: what ``--dataset`` names: the sets, or with ``names`` the folders they are looked for in.
        names: of sets and groups.

    Raises:
        RequestError: there are none, or some are missing; the message names each.
    """
    names = [name for name in names if name != _OWN_DATA]
    if not names:
        if not given:
            raise RequestError("--benchmark lmflow measures on data: add --dataset, a file or folder, or several")
        return _checked(_by_name(given))
    folders = given or [_DEFAULT_FOLDER]
    wanted = dict.fromkeys(each for name in names for each in GROUPS.get(name, (name,)))
    found = {name: path for name in wanted if (path := _found(name, folders)) is not None}
    missing = [name for name in wanted if name not in found]
    if missing:
        raise RequestError(_told(missing, names, folders))
    return _checked(found)


def _checked(sets: dict[str, Path]) -> dict[str, Path]:
    if MEAN in sets and len(sets) > 1:
        raise RequestError(
            f"a data set may not be called {MEAN!r} beside others, as their mean is: rename {sets[MEAN]}"
        )
    return sets


def _by_name(paths: Sequence[Path]) -> dict[str, Path]:
    """Return paths by their last parts, or by all of them where two end alike."""
    unique = list(dict.fromkeys(paths))
    short = [_short(path) for path in unique]
    return {
        name if short.count(name) == 1 and name else path.as_posix(): path
        for name, path in zip(short, unique, strict=True)
    }


def _short(path: Path) -> str:
    return path.resolve().name if path.is_dir() else path.name.partition(".")[0]


def _found(name: str, folders: Sequence[Path]) -> Path | None:
    paths = (folder / f"{name}{suffix}" for folder in folders for suffix in _SUFFIXES)
    return next((path for path in paths if path.exists()), None)


def _told(missing: Sequence[str], names: Sequence[str], folders: Sequence[Path]) -> str:
    harness = [name for name in missing if name in _OF_THE_HARNESS]
    if harness:
        return (
            f"--dataset-name {harness[0]}: these are tasks of lm-evaluation-harness: "
            f"give --benchmark lm-eval --tasks {_OF_THE_HARNESS[harness[0]]}"
        )
    where = " or ".join(map(str, folders))
    told = f"--dataset-name {','.join(names)}: in {where} there is no {', no '.join(missing)}"
    near = difflib.get_close_matches(missing[0], [*GROUPS, *_there(folders)], 3)
    if near and missing == list(names):
        return f"{told}: did you mean {' or '.join(near)}?"
    return f"{told}: put a folder of this name there for each, with its rows, or name with --dataset where they are"


def _there(folders: Sequence[Path]) -> Iterator[str]:
    for folder in folders:
        if folder.is_dir():
            yield from (path.name.partition(".")[0] for path in sorted(folder.iterdir()))
