"""Tasks of lm-evaluation-harness: the figures are those that its own class for transformers gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is an optional requirement")
pytest.importorskip("lmflow_transformers", reason="models are opened by the plugin that runs them")

_QUESTIONS = [
    {
        "question": "What is the capital of France?",
        "choices": ["Paris", "the Seine", "a lazy dog", "France "],
        "right": 0,
    },
    {
        "question": "Who does not mind at all?",
        "choices": ["the dog", "the brown fox", "a model", "weights"],
        "right": 0,
    },
    {"question": "What changes?", "choices": ["its weights", "the dog", "Paris", "the river Seine"], "right": 2},
    {"question": "Is 12 + 5 a sum <|im_end|>?", "choices": ["no", "yes", "17", "17 of 12"], "right": 1},
    {"question": "What jumps?", "choices": ["The quick brown fox", "over", "next token better", "user"], "right": 0},
]
_TASKS = {
    "choose": """
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: right
fewshot_split: test
num_fewshot: 2
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "go-on": """
output_type: loglikelihood
doc_to_text: "{{question}} "
doc_to_target: "{{choices[right]}}"
metric_list: [{metric: perplexity}, {metric: acc}]
""",
    "read": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{(question + ' ') * 20}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
""",
    "write": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[right]}}"
generation_kwargs: {until: ["a"], max_gen_toks: 9, do_sample: false}
filter_list:
- {name: letters, filter: [{function: regex, regex_pattern: "([a-z]+)"}, {function: take_first}]}
metric_list: [{metric: exact_match}]
""",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of tasks of each kind."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in _QUESTIONS), encoding="utf-8")
    broken = _TASKS["write"].replace("([a-z]+)", "([a-z]+")
    for name, text in {**_TASKS, "broken": broken, "lost": _TASKS["choose"]}.items():
        data = folder / "no.jsonl" if name == "lost" else rows
        head = f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
        (folder / f"{name}.yaml").write_text(head + text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def model(peaked_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model whose tokenizer opens texts, as its template does."""
    import shutil

    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("opening") / "model"
    shutil.copytree(peaked_model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.bos_token = "<|endoftext|>"
    opening = ("<|endoftext|>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{opening[0]} $A", special_tokens=[opening])
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder)("a").input_ids[0] == opening[1]
    return folder


def _of_the_harness(model: Path, tasks: Path, chat: bool) -> Any:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    loaded = TaskManager(include_path=str(tasks), include_defaults=False).load([*_TASKS])
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(seed=1234)
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
    peer = HFLM(pretrained=str(model), device="cpu", dtype="float32", softmax_dtype="float64", batch_size=1)
    return evaluate(peer, loaded, apply_chat_template=chat, fewshot_as_multiturn=chat, bootstrap_iters=0)


@pytest.mark.parametrize("chat", [False, True])
def test_figures_and_samples_are_those_of_the_harness(
    chat: bool, model: Path, tasks: Path, tmp_path: Path, lmflow_cli: Callable[..., Any]
) -> None:
    wanted = _of_the_harness(model, tasks, chat)
    output, kept = tmp_path / "found.json", tmp_path / "samples.jsonl"
    flags = ["--include-path", tasks, "--output-file", output, "--samples-file", kept, "--tasks", ",".join(_TASKS)]
    flags += ["--apply-chat-template"] if chat else []
    lmflow_cli("evaluate", "--benchmark", "lm-eval", "--model", model, "--device", "cpu", *flags)
    found = json.loads(output.read_text())["metrics"]
    for task, told in wanted["results"].items():
        for key, value in told.items():
            metric, comma, filtered = key.partition(",")
            if comma and "stderr" not in metric:
                name = f"{task} {metric}" + ("" if filtered == "none" else f" ({filtered})")
                assert found[name] == pytest.approx(value, rel=1e-5), name
    assert found["choose acc standard error"] > 0
    samples = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [(row["task"], row["id"]) for row in samples] == [(name, at) for name in _TASKS for at in range(5)]
    for row in samples:
        peer = next(each for each in wanted["samples"][row["task"]] if each["doc_id"] == row["id"])
        assert row["asked"] == json.loads(json.dumps(peer["arguments"]))
        assert _flat(row["found"]) == [_like(each) for each in _flat(peer["filtered_resps"])]
        assert row["scores"].keys() == set(peer["metrics"])


def _like(value: Any) -> Any:
    """Return what a likelihood must equal to 1e-4, or to float32's rounding where it is a sum of very many."""
    return pytest.approx(value, abs=1e-4, rel=1e-6) if isinstance(value, float) else value


def _flat(value: Any) -> list[Any]:
    return [each for part in value for each in _flat(part)] if isinstance(value, list | tuple) else [value]


@pytest.mark.parametrize("empty", ["file.jsonl", "list.json", "choice"])
def test_a_task_without_questions_is_told(
    empty: str, peaked_model: Path, tasks: Path, tmp_path: Path, lmflow_cli: Callable[..., Any]
) -> None:
    data = tasks / "rows.jsonl" if empty == "choice" else tmp_path / empty
    if empty != "choice":
        data.write_text("[]" if empty == "list.json" else "", encoding="utf-8")
    (tmp_path / "none.py").write_text("def of(rows):\n    return rows.select([])\n", encoding="utf-8")
    head = f"task: none\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
    head += "process_docs: !function none.of\n" if empty == "choice" else ""
    (tmp_path / "none.yaml").write_text(head + _TASKS["choose"], encoding="utf-8")
    flags = ["--include-path", tmp_path, "--tasks", "none"]
    result = lmflow_cli("evaluate", "--benchmark", "lm-eval", "--model", peaked_model, "--device", "cpu", *flags)
    assert result.status == 2, result.stderr
    assert "--tasks none: its data has no questions" in result.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--benchmark lm-eval needs --tasks"),
        (["--tasks", "chose"], "--tasks chose: lm-evaluation-harness has no such task: did you mean choose"),
        (["--tasks", "broken"], "--tasks broken: regex_pattern '([a-z]+' is no regular expression: missing )"),
        (["--tasks", "lost"], "no.jsonl"),
        (["--tasks", "choose", "--apply-chat-template"], "has no chat template: leave out --apply-chat-template"),
        (["--tasks", "write", "--limit", "1", "--model", "{short}"], "asks for answers of 9 tokens"),
        (["--tasks", "go-on", "--limit", "1", "--model", "{short}"], "a choice of a task has"),
    ],
)
def test_what_cannot_be_asked_is_told(
    flags: list[str], message: str, peaked_model: Path, tasks: Path, tmp_path: Path, lmflow_cli: Callable[..., Any]
) -> None:
    import shutil

    bare, short = tmp_path / "bare", tmp_path / "short"
    for folder, changes in ((bare, {}), (short, {"max_position_embeddings": 1})):
        shutil.copytree(peaked_model, folder)
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        config = folder / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    given = [str(flag).replace("{short}", str(short)) for flag in flags]
    model = [] if "--model" in given else ["--model", bare]
    result = lmflow_cli("evaluate", "--benchmark", "lm-eval", *model, "--include-path", tasks, *given)
    assert result.status == 2, result.stderr
    assert message in result.stderr
