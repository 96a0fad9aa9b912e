"""A user's own template on the command line: from YAML, from Jinja, and the model's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from lmflow_core.testing.fixtures import CliResult

Cli = Callable[..., CliResult]

ROWS = [
    {
        "messages": [
            {"role": "user", "content": "hello <|im_end|>"},
            {"role": "assistant", "content": "world"},
            {"role": "user", "content": "dog"},
            {"role": "assistant", "content": "fox"},
        ]
    }
]
YAML = """
user: "Q: {content}\\n"
assistant_header: "A:"
assistant: " {content}{eos}"
assistant_end: "\\n"
stop: ["{eos}"]
"""
JINJA = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ 'Q: ' + m.content + '\\n' }}{% else %}"
    "{{ 'A:' + ' ' + m.content + eos_token + '\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
)
TEXT = "Q: hello <|im_end|>\nA: world<|im_end|>\nQ: dog\nA: fox<|im_end|>\n"


@pytest.fixture(params=["mine.yaml", "mine.jinja"])
def template(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / str(request.param)
    path.write_text(YAML if path.suffix == ".yaml" else JINJA)
    return path


def test_a_file_trains_is_saved_and_is_known_again(
    lmflow_cli: Cli, tiny_model: Path, write_rows: Callable[..., Path], tmp_path: Path, template: Path
) -> None:
    data, out = write_rows(ROWS), tmp_path / "out"
    shown = lmflow_cli("data", "preview", data, "--model", tiny_model, "--template", template, "--json")
    [row] = json.loads(shown.stdout)[0]["sequences"]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    assert row["text"] == TEXT
    # What a user types is no control token; what trains is each answer, behind "A:", and its stop.
    assert [number for number in row["input_ids"] if number in tokenizer.all_special_ids] == [2, 2]
    assert tokenizer.decode([label for label in row["labels"] if label >= 0]) == " world<|im_end|> fox<|im_end|>"

    line = ("finetune", "--model", tiny_model, "--dataset", data, "--template", template, "--output", out)
    assert lmflow_cli(*line).status == 0
    assert json.loads((out / "run.json").read_text())["template"] == str(template)
    saved = AutoTokenizer.from_pretrained(out)
    assert saved.apply_chat_template(ROWS[0]["messages"], tokenize=False) == TEXT
    # The folder needs no file: the template it holds is used as it is.
    [again] = json.loads(lmflow_cli("data", "preview", data, "--model", out, "--json").stdout)[0]["sequences"]
    assert (again["input_ids"], again["labels"]) == (row["input_ids"], row["labels"])
    assert lmflow_cli("generate", "--model", out, "--prompt", "dog", "--max-new-tokens", "2").status == 0


def test_the_models_own_gives_what_its_match_gives(
    lmflow_cli: Cli, tiny_model: Path, write_rows: Callable[..., Path]
) -> None:
    line = ("data", "preview", write_rows(ROWS), "--model", tiny_model, "--json", "--template")
    [own], [known] = (json.loads(lmflow_cli(*line, name).stdout) for name in ("tokenizer", "chatml"))
    assert own == known


def test_a_mask_that_cannot_be_verified_is_refused_by_row(
    lmflow_cli: Cli, tiny_model: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "shouts.jinja"
    path.write_text(JINJA.replace("+ m.content", "+ m.content|upper"))
    result = lmflow_cli("data", "preview", write_rows(ROWS), "--model", tiny_model, "--template", path)
    assert result.status == 2
    assert "row 1: the chat template changes the text of a message: choose a template that LMFlow" in result.stderr
    path.write_text("{{ open('/etc/passwd') }}")
    result = lmflow_cli("data", "preview", write_rows(ROWS), "--model", tiny_model, "--template", path)
    assert result.status == 2
    assert "the chat template refuses this conversation" in result.stderr


def test_a_system_prompt_without_a_place_costs_one_message(lmflow_cli: Cli, tiny_model: Path) -> None:
    result = lmflow_cli("generate", "--model", tiny_model, "--template", "gemma", "--system", "s", "--prompt", "a")
    assert (result.status, result.stdout) == (2, "")
    assert "the template has no place for a system message" in result.stderr
    assert "Traceback" not in result.stderr


def test_listing_and_showing(lmflow_cli: Cli, tmp_path: Path) -> None:
    listed = json.loads(lmflow_cli("templates", "--json").stdout)
    by_name = {entry["name"]: entry for entry in listed}
    assert len(by_name) >= 45
    assert by_name["qwen2_5"] == {
        "name": "qwen2_5",
        "aliases": ["qwen2_5_1m", "qwen2.5"],
        "models": "Qwen2.5, Qwen2.5-Coder, Qwen2.5-1M",
        "summary": "ChatML with tools.",
        "plugin": "templates",
    }
    assert "Qwen2.5, Qwen2.5-Coder, Qwen2.5-1M" in lmflow_cli("templates").stdout
    path = tmp_path / "mine.yaml"
    path.write_text(YAML)
    assert lmflow_cli("templates", "show", path).stdout == "Q: What is 2 + 3?\nA: 5</s>\nQ: And 2 * 3?\nA:\n"
    assert lmflow_cli("templates", "show", "qwen3", "--reasoning").stdout.endswith("\n</think>\n\n5<|im_end|>\n\n")
    assert '<tool_call>\n{"name": "add"' in lmflow_cli("templates", "show", "qwen3", "--tools").stdout
    assert lmflow_cli("templates", "show", "chatml", "--jinja").stdout.startswith("{%- if tools -%}")
    refused = lmflow_cli("templates", "show", "chatml", "--tools")
    assert (refused.status, refused.stdout) == (2, "")
    assert "chatml: the template has no place for tools: choose one that has, or leave them out" in refused.stderr
