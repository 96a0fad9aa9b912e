"""Whatever a file holds, reading it gives examples or errors that name the file: never anything else."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from lmflow_core.contracts.tokens import EncodedExample, EncodedSequence
from lmflow_core.data.examples import ExampleReader
from lmflow_core.data.row_files import RowWriter
from lmflow_core.data.store import EncodedRows
from lmflow_core.errors import DataError
from lmflow_core.plugins.registry import Catalogue

_CALL = {"function": {"name": "f", "arguments": {"x": "\ud800"}}}
_TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
_ROWS: list[object] = [
    {"instruction": "Say", "input": "it", "output": "said", "history": [["a", "b"]]},
    {"messages": _TURNS},
    {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}], "tools": "[]"},
    {"prompt": "p", "chosen": "c", "rejected": "r"},
    {"value": 1.5},
]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.discover()


def _errors(file: Path, catalogue: Catalogue) -> list[DataError]:
    found: list[DataError] = []
    for _ in ExampleReader(catalogue, on_error=found.append).read([file]):
        pass
    assert all(error.file == file and error.problem for error in found)
    return found


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_a_number_too_long_to_read_is_one_error(tmp_path: Path, catalogue: Catalogue, suffix: str) -> None:
    file = tmp_path / f"rows{suffix}"
    row = '{"value": ' + "9" * 5000 + "}"
    file.write_text(row if suffix == ".jsonl" else f"[{row}]")
    assert [error.row for error in _errors(file, catalogue)] == [1]


def test_a_number_beyond_floats_is_one_error(tmp_path: Path, catalogue: Catalogue) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"value": ' + "9" * 400 + '}\n{"value": 1}\n')
    assert [error.row for error in _errors(file, catalogue)] == [1]


def test_half_a_character_in_a_tool_call_is_one_error(tmp_path: Path, catalogue: Catalogue) -> None:
    file = tmp_path / "rows.jsonl"
    turns = [_TURNS[0], {"role": "assistant", "content": None, "tool_calls": [_CALL]}]
    file.write_text(json.dumps({"messages": turns}))
    assert [error.row for error in _errors(file, catalogue)] == [1]


def test_a_packed_file_that_is_broken_and_not_utf8_is_one_error(tmp_path: Path, catalogue: Catalogue) -> None:
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"text": "\xff"}\n' + random.Random(0).randbytes(50_000))[:-9])
    assert len(_errors(file, catalogue)) == 1


def test_cached_rows_cut_within_an_integer_are_not_whole(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path)
    writer.append(EncodedExample((EncodedSequence([1, 2], [1, 2]),)))
    writer.close({})
    labels = tmp_path / "labels"
    labels.write_bytes(labels.read_bytes()[:-1])
    assert EncodedRows.mapped(tmp_path) is None


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".tsv", ".txt", ".jsonl.gz"])
def test_mutated_files_give_examples_or_errors(tmp_path: Path, catalogue: Catalogue, suffix: str) -> None:
    generator = random.Random(suffix)
    lines = [json.dumps(row) for row in _ROWS]
    for number in range(60):
        whole = f"[{','.join(lines)}]" if suffix == ".json" else "\n".join(generator.sample(lines, len(lines)))
        content = bytearray(gzip.compress(whole.encode()) if suffix.endswith(".gz") else whole.encode())
        for _ in range(generator.randint(1, 6)):
            at = generator.randrange(len(content))
            if generator.random() < 0.5:
                content[at] = generator.randrange(256)
            else:
                del content[at : at + generator.randint(1, 20)]
            content = content or bytearray(b"[")
        file = tmp_path / f"{number}{suffix}"
        file.write_bytes(content)
        _errors(file, catalogue)


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_key_that_stands_twice_is_one_error(tmp_path: Path, catalogue: Catalogue, suffix: str) -> None:
    file = tmp_path / f"rows{suffix}"
    row = '{"text": "a", "meta": {"x": 1, "x": 2}}'
    file.write_text(row if suffix == ".jsonl" else f"[{row}]")
    (error,) = _errors(file, catalogue)
    assert (error.row, error.problem) == (1, "broken JSON: the key 'x' stands twice in an object")


def test_a_number_that_is_none_is_one_error(tmp_path: Path, catalogue: Catalogue) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"value": NaN}\n{"value": 1}\n')
    assert [error.row for error in _errors(file, catalogue)] == [1]


def test_a_message_holds_no_control_codes_of_the_file(tmp_path: Path, catalogue: Catalogue) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"\x1b[2J\ud800\n": 1, "x" * 5000: 2}))
    (error,) = _errors(file, catalogue)
    assert "\\x1b[2J\\ud800\\n, xxx" in error.problem
    assert error.problem.isprintable()
    assert len(error.problem) < 2100


def test_a_short_campaign_of_damaged_files_loses_nothing() -> None:
    program = Path(__file__).parents[1] / "dev" / "campaigns" / "damaged_files.py"
    told = subprocess.run([sys.executable, program, "--cases", "500"], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.splitlines()[-1].split() == ["all", "500", "500", "0"]
