"""Our templates against the models' own, as far as an installed library carries them.

TRL brings the chat templates of the models it supports, as published, to tell them by their text. A difference that a
template's file explains is listed here; every other conversation must come out the same.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from template_shapes import SHAPES, TEMPLATES, rendered

pytest.importorskip("transformers")
pytest.importorskip("lmflow_transformers")

_TRL = importlib.util.find_spec("trl")
FOLDER = Path(_TRL.origin).parent / "chat_templates" if _TRL and _TRL.origin else Path("absent")

OFFICIAL = {
    "llama3.jinja": "llama3",
    "llama3_1.jinja": "llama3_1",
    "llama3_2.jinja": "llama3_1",
    "qwen2_5.jinja": "qwen2_5",
    "qwen3.jinja": "qwen3",
    "qwen3_instruct_2507.jinja": "qwen3-instruct",
    "gemma.jinja": "gemma",
    "gemma3.jinja": "gemma3",
    "phi3.jinja": "phi3",
    "phi3_5.jinja": "phi3",
    "cohere.jinja": "command_r",
    "gptoss.jinja": "gpt_oss",
    "deepseekv3.jinja": "deepseek_r1",
    "deepseek_r1_distill.jinja": "deepseek_r1",
    "lfm2.jinja": "internlm2",
}
# R1's own template writes no thoughts, not even of the last answer, though its prompt has opened them.
_WITHOUT_THOUGHTS = frozenset(
    name for name, (messages, prompt, _) in SHAPES.items() if not prompt and messages[-1].role == "assistant"
)
EXPLAINED = {"deepseek_r1": _WITHOUT_THOUGHTS}


@pytest.fixture(scope="module")
def tokenizer() -> object:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from lmflow_transformers.tokenizers import TransformersTokenizer

    inner = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token="<s>", eos_token="</s>")
    return TransformersTokenizer(inner)


@pytest.mark.parametrize("file", OFFICIAL)
def test_it_renders_as_the_models_own_does(tokenizer: object, file: str) -> None:
    if not (FOLDER / file).is_file():
        pytest.skip(f"TRL with {file} is not installed")
    name = OFFICIAL[file]
    official = (FOLDER / file).read_text(encoding="utf-8")
    compared = 0
    for shape, (messages, prompt, tools) in SHAPES.items():
        ours = rendered(TEMPLATES[name], SHAPES[shape])
        own = tokenizer.render_chat(messages, prompt, tools, official)  # type: ignore[attr-defined]
        if ours is None or own is None or shape in EXPLAINED.get(name, ()):
            continue
        assert ours == own, shape
        compared += 1
    assert compared >= 4


def test_what_is_explained_does_differ(tokenizer: object) -> None:
    file = FOLDER / "deepseekv3.jinja"
    if not file.is_file():
        pytest.skip("TRL is not installed")
    for shape in EXPLAINED["deepseek_r1"]:
        messages, prompt, tools = SHAPES[shape]
        ours = rendered(TEMPLATES["deepseek_r1"], SHAPES[shape])
        own = tokenizer.render_chat(messages, prompt, tools, file.read_text(encoding="utf-8"))  # type: ignore[attr-defined]
        assert ours is None or own is None or ours != own
