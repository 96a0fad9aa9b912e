"""Rows to examples: how a file's form is chosen, what is refused, and ``lmflow data check``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lmflow_core.contracts.dataset import DatasetSpec
from lmflow_core.contracts.examples import Conversation, Message, Prompted, Text
from lmflow_core.data.examples import ExampleReader
from lmflow_core.errors import DataError, UnknownNameError
from lmflow_core.plugins.discovery import load_plugins
from lmflow_core.plugins.policy import PluginPolicy
from lmflow_core.plugins.record import PluginRecord, PluginSet
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.fixtures import CliResult
from lmflow_datasets.plugin import lmflow_register_datasets

Cli = Callable[..., CliResult]
Write = Callable[..., Path]


def _turns(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": f"{role} {at}"} for at, role in enumerate(roles)]}


GOOD = _turns("user", "assistant")
# Whatever else is installed, the forms are those of lmflow-datasets.
ONLY_DATASETS = PluginPolicy(only=frozenset({"datasets"}))
SPECS = list(lmflow_register_datasets())
KNOWN = ", ".join(sorted(spec.name for spec in SPECS))
RENAME = "rename them to those of one, such as prompt and completion, or put each row into one text"
FORMS = "; ".join(f"{spec.name} ({spec.fields})" for spec in SPECS)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue(load_plugins(ONLY_DATASETS))


def _read(catalogue: Catalogue, *paths: Path, asked: str | None = None) -> tuple[list[Any], dict[str, tuple[str, str]]]:
    reader = ExampleReader(catalogue, asked)
    examples = [located.example for located in reader.read(paths)]
    return examples, {file.name: (form.name, form.reason) for file, form in reader.formats.items()}


def _error(catalogue: Catalogue, *paths: Path, asked: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        list(ExampleReader(catalogue, asked).read(paths))
    return str(caught.value)


def test_the_form_that_is_asked_for_comes_first(catalogue: Catalogue, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"type": "text2text", "instances": [{"input": "a", "output": "b", "text": "c"}]}))
    examples, forms = _read(catalogue, file, asked="text_only")
    assert examples == [Text("c")]
    assert forms == {"a.json": ("text_only", "asked for with --dataset-format")}


@pytest.mark.parametrize("order", [("type", "instances"), ("instances", "type")])
def test_the_declared_form_comes_before_what_is_recognised(
    catalogue: Catalogue, tmp_path: Path, order: tuple[str, str]
) -> None:
    file = tmp_path / "a.json"
    content = {"type": "text_only", "instances": [{"input": "a", "output": "b", "text": "c"}]}
    file.write_text(json.dumps({name: content[name] for name in order}))
    examples, forms = _read(catalogue, file)
    assert examples == [Text("c")]
    assert forms == {"a.json": ("text_only", "named by the file's 'type'")}


def test_each_file_is_recognised_by_itself(catalogue: Catalogue, write_rows: Write, tmp_path: Path) -> None:
    write_rows([{"text": "x"}], "a.jsonl")
    write_rows([{"input": "p", "output": "c"}], "b.json")
    write_rows([GOOD], "c.json")
    reader = ExampleReader(catalogue)
    located = list(reader.read([tmp_path]))
    assert [(found.example, found.file.name, found.row) for found in located] == [
        (Text("x"), "a.jsonl", 1),
        (Prompted("p", "c"), "b.json", 1),
        (Conversation((Message("user", "user 0"), Message("assistant", "assistant 1"))), "c.json", 1),
    ]
    assert {file.name: (form.name, form.reason) for file, form in reader.formats.items()} == {
        "a.jsonl": ("text_only", "recognised from the fields text"),
        "b.json": ("text2text", "recognised from the fields input, output"),
        "c.json": ("messages", "recognised from the fields messages"),
    }


def test_forms_that_cannot_be_chosen(catalogue: Catalogue, write_rows: Write, tmp_path: Path) -> None:
    file = write_rows([{"query": "a", "reply": "b"}])
    assert _error(catalogue, file) == (
        f"{file}, row 1: no known form has the fields query, reply: {RENAME}. Known forms: {FORMS}"
    )
    assert _error(catalogue, write_rows([{}])).startswith(f"{file}, row 1: no known form has the fields none: rename")
    assert _error(catalogue, write_rows([{"input": "a", "output": "b", "conversations": []}])) == (
        f"{file}, row 1: fields input, output, conversations fit several forms: "
        "choose one with --dataset-format text2text|sharegpt"
    )
    file.write_text('{"type": "text3text", "instances": [{"text": "x"}]}')
    assert _error(catalogue, file) == f"{file}: unknown type 'text3text'; known types: {KNOWN}"
    with pytest.raises(UnknownNameError, match=r"unknown dataset 'text_onli'\. Did you mean 'text_only'\?"):
        list(ExampleReader(catalogue, "text_onli").read([file]))


CONVERSATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": (_turns(), "the conversation is empty; it needs a user and an assistant message"),
    "a system message alone": (
        _turns("system"),
        "the conversation is empty; it needs a user and an assistant message",
    ),
    "the assistant first": (
        _turns("assistant", "user"),
        "turn 1 comes from 'assistant' where 'user' is due; "
        "after an optional system message, user and assistant take turns, the user first",
    ),
    "the user twice": (
        _turns("system", "user", "user", "assistant"),
        "turn 2 comes from 'user' where 'assistant' is due; "
        "after an optional system message, user and assistant take turns, the user first",
    ),
    "a system message in the middle": (
        _turns("user", "assistant", "system", "user", "assistant"),
        "turn 3 comes from 'system' where 'user' is due; "
        "after an optional system message, user and assistant take turns, the user first",
    ),
    "two system messages": (
        _turns("system", "system", "user", "assistant"),
        "turn 1 comes from 'system' where 'user' is due; "
        "after an optional system message, user and assistant take turns, the user first",
    ),
    "the user last": (
        _turns("user", "assistant", "user"),
        "the conversation ends with a user message; the last message must be the assistant's",
    ),
    "half a character": (
        {"messages": [{"role": "user", "content": "ok"}, {"role": "assistant", "content": "cut: \ud83d"}]},
        r"the text holds \ud83d, half of a character; write or leave out the whole",
    ),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations_that_cannot_be_trained_on(catalogue: Catalogue, write_rows: Write, name: str) -> None:
    row, message = CONVERSATIONS[name]
    file = write_rows([GOOD, row])
    assert _error(catalogue, file) == f"{file}, row 2: {message}"


@pytest.mark.parametrize(
    "row", [{"text": "\udc80"}, {"input": "\udc80", "output": "x"}, {"input": "x", "output": "\udc80"}]
)
def test_half_a_character_is_refused_in_every_kind_of_example(
    catalogue: Catalogue, write_rows: Write, row: dict[str, str]
) -> None:
    file = write_rows([row])
    assert _error(catalogue, file) == (
        rf"{file}, row 1: the text holds \udc80, half of a character; write or leave out the whole"
    )


class _Shouted:
    """A form that claims what lmflow-datasets calls text_only."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        return "text" in row

    def read(self, row: Mapping[str, Any]) -> Text:
        return Text(row["text"].upper())


def _beside_a_rival(monkeypatch: pytest.MonkeyPatch, target: str) -> Catalogue:
    module = ModuleType("rival_formats")
    vars(module)["Shouted"] = _Shouted
    monkeypatch.setitem(sys.modules, "rival_formats", module)
    spec = DatasetSpec(name="text_only", target=target, summary="Shouted text.", fields="text")
    rival = PluginRecord("rival", "lmflow-rival", "1", specs=(spec,))
    return Catalogue(PluginSet((*load_plugins(ONLY_DATASETS).records, rival)))


def test_a_contested_form_is_chosen_by_its_whole_name(monkeypatch: pytest.MonkeyPatch, write_rows: Write) -> None:
    contested = _beside_a_rival(monkeypatch, "rival_formats:Shouted")
    file = write_rows([{"text": "x"}])
    assert _error(contested, file) == (
        f"{file}, row 1: fields text fit several forms: "
        "choose one with --dataset-format datasets:text_only|rival:text_only"
    )
    examples, forms = _read(contested, file, asked="rival:text_only")
    assert examples == [Text("X")]
    assert forms == {"data.json": ("rival:text_only", "asked for with --dataset-format")}


def test_a_form_that_cannot_be_loaded_is_left_out(
    monkeypatch: pytest.MonkeyPatch, write_rows: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = _beside_a_rival(monkeypatch, "rival_formats:Absent")
    examples, _ = _read(broken, write_rows([{"text": "x"}]))
    assert examples == [Text("x")]
    assert capsys.readouterr().err == (
        "lmflow: left out: dataset 'text_only' of plugin 'rival' (lmflow-rival 1, target rival_formats:Absent) "
        "cannot be imported: AttributeError: module 'rival_formats' has no attribute 'Absent'\n"
    )


@pytest.fixture
def bad_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [GOOD, {"other": 1}, 7, GOOD, _turns("user", "user"), _turns("user")]
    (folder / "a.json").write_text(json.dumps(rows))
    (folder / "b.jsonl").write_text('{"text": "x"}\n{"text": \n\n{"text": ""}\n{"text": "y"}\n')
    (folder / "c.json").write_text("[]")
    (folder / "d.json").write_text('[{"text": "x"}, {"text"')
    (folder / "e.jsonl").write_text("oops\n")
    (folder / "f.json").write_text('[{"unheard": 1}]')
    (folder / "g.json").write_text('[{"input": "p", "output": "c"}]')
    return folder


def _bad_rows(folder: Path) -> list[tuple[str, int | None, str]]:
    due = "after an optional system message, user and assistant take turns, the user first"
    return [
        (f"{folder}/a.json", 2, "the field 'messages' is missing; the row has 'other'"),
        (f"{folder}/a.json", 3, "a row must be a JSON object, not a number"),
        (f"{folder}/a.json", 5, f"turn 2 comes from 'user' where 'assistant' is due; {due}"),
        (
            f"{folder}/a.json",
            6,
            "the conversation ends with a user message; the last message must be the assistant's",
        ),
        (f"{folder}/b.jsonl", 2, "broken JSON: Expecting value"),
        (f"{folder}/b.jsonl", 3, "the field 'text' is empty"),
        (f"{folder}/c.json", None, "the file holds no rows"),
        (f"{folder}/d.json", 2, "broken JSON: Expecting ':' delimiter"),
        (f"{folder}/e.jsonl", 1, "broken JSON: Expecting value"),
        (f"{folder}/f.json", 1, f"no known form has the fields unheard: {RENAME}. Known forms: {FORMS}"),
    ]


def test_check_goes_on_past_bad_rows_and_files(
    lmflow_cli: Cli, bad_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMFLOW_PLUGINS", "datasets")
    result = lmflow_cli("data", "check", bad_folder)
    expected = [
        f"{file}, row {row}: {problem}" if row else f"{file}: {problem}" for file, row, problem in _bad_rows(bad_folder)
    ]
    lines = result.stdout.splitlines()
    assert [line.split(maxsplit=2) for line in lines[:5]] == [
        ["FILE", "FORMAT", "REASON"],
        [f"{bad_folder}/a.json", "messages", "recognised from the fields messages"],
        [f"{bad_folder}/b.jsonl", "text_only", "recognised from the fields text"],
        [f"{bad_folder}/d.json", "text_only", "recognised from the fields text"],
        [f"{bad_folder}/g.json", "text2text", "recognised from the fields input, output"],
    ]
    assert lines[5:] == [*expected, "6 examples, 10 bad"]
    assert result.stderr == "lmflow: error: 10 bad rows or files\n"
    assert result.status == 2


def test_check_as_json(lmflow_cli: Cli, bad_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMFLOW_PLUGINS", "datasets")
    result = lmflow_cli("data", "check", bad_folder, "--json")
    report = result.json()
    assert result.status == 2
    assert list(report) == ["examples", "images", "kinds", "files", "bad_rows"]
    assert report["examples"] == 6
    assert report["kinds"] == {"conversation": 2, "text": 3, "prompted": 1}
    assert report["files"][f"{bad_folder}/b.jsonl"] == {
        "format": "text_only",
        "reason": "recognised from the fields text",
    }
    assert report["bad_rows"] == [
        {"file": file, "row": row, "problem": problem} for file, row, problem in _bad_rows(bad_folder)
    ]


def test_check_of_good_data(lmflow_cli: Cli, write_rows: Write) -> None:
    file = write_rows([GOOD, GOOD], "good.jsonl")
    result = lmflow_cli("data", "check", file)
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == "2 examples, 0 bad"
    assert lmflow_cli("data", "check", file, "--json").json() == {
        "examples": 2,
        "images": 0,
        "kinds": {"conversation": 2},
        "files": {str(file): {"format": "messages", "reason": "recognised from the fields messages"}},
        "bad_rows": [],
    }


def test_check_of_nothing(lmflow_cli: Cli, tmp_path: Path) -> None:
    result = lmflow_cli("data", "check", tmp_path / "none")
    assert result.stderr == f"lmflow: error: {tmp_path / 'none'}: no such file or folder\n"
    assert (result.status, result.stdout) == (2, "")


def test_check_with_a_form_nobody_provides(lmflow_cli: Cli, write_rows: Write) -> None:
    result = lmflow_cli("data", "check", write_rows([GOOD]), "--dataset-format", "alpacca")
    assert result.stderr.startswith("lmflow: error: unknown dataset 'alpacca'. Did you mean 'alpaca'?")
    assert (result.status, result.stdout) == (2, "")
