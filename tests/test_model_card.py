"""What a model card tells, and that nothing a user or a stranger named can break it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from lmflow_core.models.opening import OpenModel
from lmflow_core.workflows.model_card import CardFacts, card, hub_names, library_of, read_record, write_card

RECORD: dict[str, Any] = {
    "options": {"model": "owner/base", "dataset": ["/home/me/a.jsonl", "owner/rows:train"], "tuner": "lora"},
    "hub": {"model": "owner/base", "datasets": ["owner/rows"]},
    "data": {"examples": 1200, "tokens": 34567, "trained_tokens": 89, "rows": 3},
    "template": "chatml",
    "steps": 7,
    "tokens": 34567,
    "learning_rate": 2e-4,
    "loss_unit": "tokens",
    "losses": [[1, 3.5], [2, None], [7, 1.25]],
    "validation_losses": [[7, 1.5]],
}
VERSIONS = {"lmflow_core": "0.1.0", "libraries": {"peft": "0.18", "torch": "2.7", "numpy": "2"}}
FACTS = CardFacts("owner/base", "owner/base", "causal", "peft", "adapter", True, RECORD, VERSIONS)
CARD = """---
base_model: owner/base
library_name: peft
pipeline_tag: text-generation
tags:
- lmflow
- lora
datasets:
- a.jsonl
- owner/rows
---

# An adapter for `owner/base`

This is an adapter, trained with LMFlow. It is put on `owner/base`, whose weights are not in here.

## How it was trained

* tuner: `lora`
* data: `a.jsonl`, `owner/rows` (1,200 examples, 34,567 tokens, 89 tokens trained on)
* conversation template: `chatml`
* steps: 7
* tokens: 34,567
* peak learning rate: 0.0002
* loss (mean over `tokens`): 3.5000 at step 1, then 1.2500 at step 7
* validation loss (mean over `tokens`): 1.5000 at step 7

## How to load it

In this folder:

```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
```

```sh
lmflow chat --model .
```

Written with lmflow-core 0.1.0, peft 0.18, torch 2.7. No licence is given here: that of the base model and of the data \
decide what may be done with it.
"""


def _front(text: str) -> dict[str, Any]:
    _, front, _ = text.split("---\n", 2)
    loaded: dict[str, Any] = yaml.safe_load(front)
    return loaded


def test_a_card_tells_what_it_is_how_it_was_trained_and_how_to_load_it() -> None:
    assert card(FACTS) == CARD


@pytest.mark.parametrize(
    ("changes", "loader"),
    [
        ({"library": "transformers", "made": "finetuned"}, "import AutoModelForCausalLM, AutoTokenizer"),
        ({"library": "transformers", "task": "image-text"}, "import AutoModelForImageTextToText, AutoTokenizer"),
        ({"library": "transformers", "task": "regression"}, "import AutoModelForSequenceClassification, AutoTokenizer"),
        ({"library": "transformers", "task": "unheard-of"}, None),
        ({"library": "mlx"}, None),
        ({"task": "regression"}, 'AutoPeftModelForSequenceClassification.from_pretrained(".", num_labels=1)'),
        ({"task": "image-text"}, None),
        ({"record": {"options": {"position_scaling": "yarn"}}}, None),
        ({"reference": "folder/base.gguf", "hub_name": None}, None),
    ],
)
def test_code_is_told_where_plain_libraries_can_load_the_result(changes: dict[str, Any], loader: str | None) -> None:
    text = card(replace(FACTS, **changes))
    assert (loader in text) if loader else ("```python" not in text)
    assert _front(text)["library_name"] == changes.get("library", "peft")


def test_an_adapter_of_a_model_that_is_no_hubs_says_where_its_place_stands() -> None:
    told = "`adapter_config.json` tells where the base model lay"
    assert told not in card(FACTS)
    assert told in card(replace(FACTS, reference="smollm2", hub_name="owner/smollm2"))
    assert told not in card(replace(FACTS, reference="smollm2", library="transformers", made="merged"))


def test_a_model_without_a_template_is_not_chatted_with() -> None:
    text = card(replace(FACTS, chats=False))
    assert "lmflow chat" not in text
    assert 'lmflow generate --model . --prompt "Once upon a time" --raw' in text


@pytest.mark.parametrize(
    "path", ["/home/me/secret/model", "C:\\Users\\me\\secret\\model", "~/secret/model", "../secret/model/"]
)
def test_of_a_path_only_the_last_part_is_told(path: str) -> None:
    record = {**RECORD, "options": {"model": path, "dataset": [path], "tuner": "full"}}
    text = card(replace(FACTS, reference=path, hub_name=None, record=record))
    assert "secret" not in text
    assert "/home" not in text
    assert "* data: `model` (" in text
    assert "base_model" not in _front(text)
    assert _front(text)["datasets"] == ["model"]


HOSTILE = (
    "a: b\n---\n",
    "x\n---\nlicense: mit",
    "`code` [link](http://elsewhere) <script>",
    "```\n# A heading",
    "\u202e\x1b[31m",
    "- &a *a !!python/object:os.system",
    "\udcff",
    " ",
    "yes",
    "9" * 500,
)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_breaks_front_matter_or_text(text: str) -> None:
    options = {"model": text, "dataset": [text, "rows.jsonl"], "tuner": text, "objective": text}
    record = {**RECORD, "options": options, "template": text, "loss_unit": text, "hub": {"datasets": [text]}}
    told = card(replace(FACTS, reference=text, hub_name=text, record=record))
    told.encode()
    lines = told.splitlines()
    assert [number for number, line in enumerate(lines) if line == "---"] == [0, lines.index("---", 1)]
    front = _front(told)
    assert set(front) <= {"base_model", "library_name", "pipeline_tag", "tags", "datasets"}
    assert front["datasets"][-1] == "rows.jsonl"
    headings = [line for line in lines if line.startswith("#")]
    assert headings[1:] == ["## How it was trained", "## How to load it"]
    assert not {"\u202e", "\x1b"} & set(told)
    # Between its fences a text is shown letter by letter.
    opening = headings[0].removeprefix("# An adapter for ")
    fence = opening[: len(opening) - len(opening.lstrip("`"))]
    assert opening.endswith(fence)
    assert fence not in opening[len(fence) : -len(fence)]


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"options": 3, "data": "x", "losses": "y", "template": 4, "steps": True, "hub": [], "learning_rate": "1"},
        {"options": {"dataset": {"a": 1}, "tuner": ["x"], "objective": 5}, "losses": [3, [1], ["a", "b"], [1, True]]},
        {"options": {"dataset": [4, None, ""]}, "hub": {"datasets": 5}, "data": {"examples": "many"}},
    ],
)
def test_a_record_of_a_stranger_is_taken_for_what_it_is(record: dict[str, Any]) -> None:
    assert "## How it was trained" not in card(replace(FACTS, record=record))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '"text"'])
def test_a_record_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    assert read_record(tmp_path) == {}
    assert read_record(tmp_path / "absent") == read_record(None) == {}


def test_names_of_a_hub_are_told_apart_from_paths_when_a_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    paths = [Path("runs/mine"), Path("owner/rows:train"), Path("gone/rows.jsonl"), tmp_path]
    for reference, plugins_own, name in (
        ("owner/base", None, "owner/base"),
        ("runs/mine", None, None),
        ("smollm2", "owner/smollm2", "owner/smollm2"),
    ):
        opened = OpenModel(SimpleNamespace(reference=reference), None, hub_name=plugins_own)  # type: ignore[arg-type]
        assert hub_names(opened, paths) == {"model": name, "datasets": ["owner/rows"]}


def test_a_card_takes_the_place_of_one_that_a_library_wrote(tmp_path: Path) -> None:
    assert library_of(tmp_path) is None
    (tmp_path / "config.json").write_text("{}")
    assert library_of(tmp_path) == "transformers"
    (tmp_path / "adapter_config.json").write_text("{}")
    assert library_of(tmp_path) == "peft"
    (tmp_path / "README.md").write_text("[More Information Needed]")
    assert write_card(tmp_path, FACTS) == len(CARD.encode())
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == CARD


def test_rewards_and_pairs_are_told() -> None:
    options = {**RECORD["options"], "objective": "raft", "reward": ["arithmetic", "length=0.1", 3, "a`b\n=2"]}
    text = card(replace(FACTS, record={**RECORD, "options": options, "loss_unit": "pairs"}))
    assert "* objective: `raft`\n* reward: `arithmetic`, `length` times `0.1`, `` a`b\\n `` times `2`\n" in text
    assert "(1,200 pairs, 34,567 tokens, 89 tokens trained on)" in text
    prompts = {**RECORD["data"], "trained_tokens": 0}
    assert "(1,200 examples, 34,567 tokens)" in card(replace(FACTS, record={**RECORD, "data": prompts}))
    assert "reward" not in card(replace(FACTS, record={**RECORD, "options": {**options, "reward": "x"}}))
