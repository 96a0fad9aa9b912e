"""Tasks of one's own, run from the command line on small models."""

from __future__ import annotations

import json
import math
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lmflow_transformers", reason="models are opened by the plugin that runs them")

_ROWS = [
    {"q": "What is the capital of France?", "c": ["Paris", "the Seine", "a lazy dog"], "right": "A"},
    {"q": "Who does not mind at all?", "c": ["the brown fox", "the dog", "weights <|im_end|>"], "right": "B"},
    {"q": "What <|im_end|> changes?", "c": ["its weights", "the river Seine", "Paris"], "right": "A"},
    {"q": "What jumps?", "c": ["over", "next token better", "The quick brown fox"], "right": "C"},
]
_CHOOSE = """
name: choose
kind: multiple-choice
data: rows.jsonl
prompt: "Question: {q}\\nAnswer:"
choices: c
answer: right
metrics: [acc, acc_norm, acc_bytes]
"""
_WRITE = """
kind: generation
data: rows.jsonl
prompt: "{q}"
answer: c.0
stops: ["\\n"]
max_new_tokens: 8
metrics: [f1, exact_match]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with tasks of two kinds."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _ROWS), encoding="utf-8")
    (folder / "choose.yaml").write_text(_CHOOSE, encoding="utf-8")
    (folder / "write.yaml").write_text(_WRITE, encoding="utf-8")
    return folder


def _run(lmflow_cli: Callable[..., Any], model: Path, folder: Path, *flags: object) -> Any:
    output, kept = folder / "found.json", folder / "samples.jsonl"
    files = ["--output-file", output, "--samples-file", kept]
    ran = lmflow_cli("evaluate", "--benchmark", "tasks", "--model", model, "--device", "cpu", *files, *flags)
    assert ran.status == 0, ran.stderr
    return json.loads(output.read_text())["metrics"], [json.loads(line) for line in kept.read_text().splitlines()]


def test_figures_are_means_over_questions_without_any_harness(
    peaked_model: Path, folder: Path, lmflow_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    tasks = f"{folder / 'choose.yaml'},{folder / 'write.yaml'}"
    metrics, samples = _run(lmflow_cli, peaked_model, folder, "--task-file", tasks, "--num-fewshot", 1)
    assert [(row["task"], row["id"]) for row in samples] == [
        (name, at) for name in ("choose", "write") for at in range(4)
    ]
    for name, metric in [*(("choose", metric) for metric in ("acc", "acc_norm", "acc_bytes")), ("write", "f1")]:
        scores = [row["scores"][metric] for row in samples if row["task"] == name]
        assert metrics[f"{name} {metric}"] == pytest.approx(statistics.mean(scores))
        spread = statistics.stdev(scores) / math.sqrt(len(scores))
        assert metrics[f"{name} {metric} standard error"] == pytest.approx(spread)
    for row, source in zip(samples[:4], _ROWS, strict=True):
        assert row["target"] == "ABC".index(source["right"])
        assert [continuation for _, continuation in row["asked"]] == [f" {choice}" for choice in source["c"]]
        rated = [found[0] / len(choice) for found, choice in zip(row["found"], source["c"], strict=True)]
        assert row["scores"]["acc_norm"] == (rated.index(max(rated)) == row["target"])
    assert all(row["found"] == [row["written"].strip()] for row in samples[4:])


def test_likelihoods_are_those_of_the_network_and_data_makes_no_control_token(
    peaked_model: Path, folder: Path, lmflow_cli: Callable[..., Any]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, samples = _run(lmflow_cli, peaked_model, folder, "--task-file", folder / "choose.yaml", "--apply-chat-template")
    network = AutoModelForCausalLM.from_pretrained(peaked_model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(peaked_model)
    for row, source in zip(samples, _ROWS, strict=True):
        head, rest = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
        assert row["asked"][0] == [f"{head}Question: {source['q']}\nAnswer:{rest}", source["c"][0]]
        pieces = ("<|im_start|>", f"user\nQuestion: {source['q']}\nAnswer:", "<|im_end|>", "\n", "<|im_start|>")
        context = [number for piece in pieces for number in _ids(tokenizer, piece)]
        before = len(context + _ids(tokenizer, "assistant"))
        for (found, _), choice in zip(row["found"], source["c"], strict=True):
            ids = context + _ids(tokenizer, f"assistant\n{choice}")
            with torch.no_grad():
                logits = network(torch.tensor([ids])).logits[0].log_softmax(-1)
            wanted = sum(float(logits[at - 1, ids[at]]) for at in range(before, len(ids)))
            assert found == pytest.approx(wanted, abs=1e-4), (source["q"], choice)


def _ids(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of a control token, or of a text in which none is one."""
    if text in tokenizer.all_special_tokens:
        return [tokenizer.convert_tokens_to_ids(text)]
    start, found, rest = text.partition("<|im_end|>")
    pieces = [f"{start}<", "|im_end|>" + rest] if found else [text]
    return [number for piece in pieces for number in tokenizer(piece, add_special_tokens=False).input_ids]


_EMPTY = "kind: exact-match\ndata: empty.jsonl\nprompt: x\nanswer: a\n"
_WRONG: dict[str, tuple[str | None, list[str], str]] = {
    "no file named": (None, [], "--benchmark tasks needs --task-file"),
    "no such file": (None, ["--task-file", "{folder}/no.yaml"], "no.yaml"),
    "empty file": ("", [], "task.yaml: a task is a mapping of its keys"),
    "no rows": (_EMPTY, [], "empty.jsonl: it has no rows"),
    "twice": (_CHOOSE, ["--task-file", "{folder}/choose.yaml,{folder}/choose.yaml"], "are both called 'choose'"),
    "no template": (_CHOOSE, ["--apply-chat-template"], "has no chat template: leave out --apply-chat-template"),
    "many examples": (_CHOOSE, ["--num-fewshot", "4"], "has 3 besides the question: ask for fewer by --num-fewshot"),
    "missing field": (_CHOOSE.replace("{q}", "{p}"), [], "rows.jsonl, row 1: there is no field 'p'"),
    "no choice": (_CHOOSE.replace("answer: right", "answer: q"), [], "is none of its 3 choices"),
    "long choice": (_CHOOSE, ["--model", "{short}"], "rows.jsonl, row 1: a choice of a task has"),
    "long answers": (_WRITE, ["--model", "{short}"], "asks for answers of 8 tokens"),
}


@pytest.mark.parametrize(("says", "flags", "message"), _WRONG.values(), ids=_WRONG)
def test_what_cannot_be_asked_is_told(
    says: str | None,
    flags: list[str],
    message: str,
    peaked_model: Path,
    folder: Path,
    tmp_path: Path,
    lmflow_cli: Callable[..., Any],
) -> None:
    here = tmp_path / "tasks"
    shutil.copytree(folder, here)
    (here / "empty.jsonl").write_text("", encoding="utf-8")
    if says is not None:
        (here / "task.yaml").write_text(says, encoding="utf-8")
    bare, short = tmp_path / "bare", tmp_path / "short"
    for changed, changes in ((bare, {}), (short, {"max_position_embeddings": 1})):
        shutil.copytree(peaked_model, changed)
        (changed / "chat_template.jinja").unlink(missing_ok=True)
        config = changed / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    given = [flag.replace("{folder}", str(here)).replace("{short}", str(short)) for flag in flags]
    given += [] if "--model" in given else ["--model", str(bare)]
    given += [] if says is None or "--task-file" in given else ["--task-file", str(here / "task.yaml")]
    result = lmflow_cli("evaluate", "--benchmark", "tasks", "--device", "cpu", *given)
    assert result.status == 2, result.stderr
    assert message in result.stderr


def test_a_choice_without_tokens_is_told(peaked_model: Path) -> None:
    from lmflow_benchmarks.asked_model import AskedModel
    from lmflow_core.api import ModelSettings, RequestError
    from lmflow_core.models.opening import open_model
    from lmflow_core.plugins.registry import Catalogue

    opened = open_model(ModelSettings(model=str(peaked_model), device="cpu"), Catalogue.discover())
    asked = AskedModel(opened.model, lambda *_, **__: [], 0, "tasks")
    assert asked.pair("a ", "b") == (asked.encode("a"), asked.encode("a b")[1:])
    with pytest.raises(RequestError, match="a choice without any token"):
        asked.check(asked.pair("a", "")[1], "")
