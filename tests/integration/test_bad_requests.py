"""Bad input: one message with file and row, exit status 2, and no output folder left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.testing.fixtures import CliResult

Cli = Callable[..., CliResult]

GOOD: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]}


def _turn(role: str, content: str = "text") -> dict[str, str]:
    return {"role": role, "content": content}


def _messages(*roles: str) -> dict[str, Any]:
    return {"messages": [_turn(role) for role in roles]}


ROWS: dict[str, tuple[list[Any], str]] = {
    "a row without its field": ([GOOD, {"other": 1}], "row 2: the field 'messages' is missing; the row has 'other'"),
    "a message without content": (
        [GOOD, {"messages": [{"role": "user"}]}],
        "row 2: message 1 of 'messages': the field 'content' is missing; the row has 'role'",
    ),
    "an unknown role": (
        [_messages("user", "robot")],
        "row 1: message 2 of 'messages': unknown role 'robot'; roles are",
    ),
    "a wrong role order": (
        [GOOD, GOOD, _messages("user", "user")],
        "row 3: turn 2 comes from 'user' where 'assistant' is due",
    ),
    "an assistant first": (
        [_messages("assistant", "user")],
        "row 1: turn 1 comes from 'assistant' where 'user' is due",
    ),
    "a user last": ([_messages("user", "assistant", "user")], "row 1: the conversation ends with a user message"),
    "an empty conversation": ([{"messages": []}], "row 1: the conversation is empty"),
    "a row that is no object": ([GOOD, 7], "row 2: a row must be a JSON object, not a number"),
    "a form nobody knows": (
        [{"question": "a"}],
        "row 1: no known form has the fields question: rename them",
    ),
    "no rows": ([], "the file holds no rows"),
}


def _finetune(cli: Cli, model: Path, data: Path, output: Path, *more: object) -> CliResult:
    return cli("finetune", "--model", model, "--dataset", data, "--output", output, *more)


def _assert_refused(result: CliResult, message: str, output: Path | None = None) -> None:
    lines = [line for line in result.stderr.splitlines() if line.startswith("lmflow: error: ")]
    assert len(lines) == 1, result.stderr
    assert message in lines[0]
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert result.status == 2
    if output is not None:
        assert not output.exists()


@pytest.mark.parametrize("name", ROWS)
def test_bad_rows(
    lmflow_cli: Cli, tiny_model: Path, write_rows: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    rows, message = ROWS[name]
    data = write_rows(rows)
    result = _finetune(lmflow_cli, tiny_model, data, tmp_path / "out")
    _assert_refused(result, message, tmp_path / "out")
    assert str(data) in result.stderr


def test_bad_files(lmflow_cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    missing = tmp_path / "missing.json"
    _assert_refused(_finetune(lmflow_cli, tiny_model, missing, output), f"{missing}: no such file or folder", output)
    empty = tmp_path / "empty"
    empty.mkdir()
    _assert_refused(_finetune(lmflow_cli, tiny_model, empty, output), f"{empty}: the folder holds no data file", output)
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps([GOOD])[:-1] + ', {"messages": oops}]')
    _assert_refused(_finetune(lmflow_cli, tiny_model, broken, output), f"{broken}, row 2: broken JSON", output)
    lines = tmp_path / "broken.jsonl"
    lines.write_text(json.dumps(GOOD) + "\n{]\n")
    _assert_refused(_finetune(lmflow_cli, tiny_model, lines, output), f"{lines}, row 2: broken JSON", output)


FLAGS: dict[str, tuple[tuple[str, ...], str]] = {
    "an unknown template": (("--template", "chatmll"), "unknown template 'chatmll'. Did you mean 'chatml'?"),
    "an unknown tuner": (("--tuner", "lorra"), "unknown tuner 'lorra'. Did you mean 'lora'?"),
    "an unknown flag": (("--epoch", "1"), "unknown option --epoch of 'lmflow finetune'. Did you mean 'epochs'?"),
    "an option of another tuner": (
        ("--lora-r", "4"),
        "--lora-r belongs to tuner 'lora' or 'qlora': add --tuner lora or --tuner qlora",
    ),
    "a wrong type": (("--epochs", "many"), "--epochs: expected a number, got 'many'"),
    "out of range": (("--batch-size", "0"), "--batch-size: 0 is below the smallest value allowed, 1"),
    "not a choice": (
        ("--length-policy", "trunc"),
        "--length-policy: 'trunc' is not one of error, drop, truncate, split.",
    ),
    "a missing value": (("--lr",), "--lr needs a value"),
    "too long": (("--max-length", "5"), "row 1: 1 of 1 rows are longer than 5 tokens"),
    "nothing to train on": (
        ("--max-length", "5", "--length-policy", "truncate"),
        "nothing to train on: none of the 1 rows has a trainable token",
    ),
}


@pytest.mark.parametrize("name", FLAGS)
def test_bad_flags(
    lmflow_cli: Cli, tiny_model: Path, write_rows: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    flags, message = FLAGS[name]
    result = _finetune(lmflow_cli, tiny_model, write_rows([GOOD]), tmp_path / "out", *flags)
    _assert_refused(result, message, tmp_path / "out")


def test_missing_options_and_run_file_keys(lmflow_cli: Cli, tmp_path: Path) -> None:
    _assert_refused(lmflow_cli("finetune"), "--model is required")
    run_file = tmp_path / "run.yaml"
    run_file.write_text("model: m\nlearning_rat: 1\n")
    message = f"{run_file}: unknown option --learning-rat of 'lmflow finetune'."
    _assert_refused(lmflow_cli("finetune", run_file), message)
    run_file.write_text("model: [")
    _assert_refused(lmflow_cli("finetune", run_file), f"{run_file}: broken YAML")
    _assert_refused(lmflow_cli("finetune", tmp_path / "none.yaml"), "the run file cannot be read")


def test_bad_models(lmflow_cli: Cli, tiny_model: Path, write_rows: Callable[..., Path], tmp_path: Path) -> None:
    data, output = write_rows([GOOD]), tmp_path / "out"
    nowhere = tmp_path / "nowhere"
    _assert_refused(_finetune(lmflow_cli, nowhere, data, output), f"no such folder: {nowhere}", output)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((tiny_model / "config.json").read_bytes())
    _assert_refused(_finetune(lmflow_cli, bare, data, output), f"{bare} holds no weights", output)
    result = lmflow_cli("finetune", "--model", "smollm", "--dataset", data, "--output", output)
    _assert_refused(result, "unknown model 'smollm'. Did you mean 'smollm2'?", output)


def test_an_output_folder_that_holds_another_run(
    lmflow_cli: Cli, tiny_model: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    data, output = write_rows([GOOD]), tmp_path / "out"
    assert _finetune(lmflow_cli, tiny_model, data, output).status == 0
    before = {file.name: file.read_bytes() for file in output.iterdir()}
    message = f"{output} already holds another run: choose another --output, or add --overwrite or --resume"
    _assert_refused(_finetune(lmflow_cli, tiny_model, data, output), message)
    assert {file.name: file.read_bytes() for file in output.iterdir()} == before
    assert _finetune(lmflow_cli, tiny_model, data, output, "--overwrite").status == 0
    _assert_refused(_finetune(lmflow_cli, tiny_model, data, output, "--resume"), "holds no checkpoint to resume from")


def test_merge_needs_an_adapter(lmflow_cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    result = lmflow_cli("merge", "--model", tiny_model, "--output", tmp_path / "out")
    _assert_refused(result, "there is no adapter to merge: add --adapter FOLDER", tmp_path / "out")
    result = lmflow_cli("merge", "--model", tiny_model, "--adapter", tiny_model, "--output", tmp_path / "out")
    _assert_refused(result, f"{tiny_model} holds no adapter (looked for adapter_config.json", tmp_path / "out")


def test_an_unknown_command_is_answered_with_the_nearest(lmflow_cli: Cli) -> None:
    result = lmflow_cli("finetun")
    assert result.status == 2
    assert "No such command 'finetun'. Did you mean 'finetune'?" in result.stderr
