"""Answers to prompts with images: greedy, they are those of transformers' own ``generate``."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from lmflow_core.api import DecodingRequest, ImagePart, ModelSettings, RequestError, Segment
from lmflow_core.data.encoding import Encoder
from lmflow_core.testing.fixtures import CliResult
from lmflow_core.testing.seeing import FAMILIES
from lmflow_multimodal.loader import ImageTextLoader
from lmflow_multimodal.models import ImageTextModel
from lmflow_transformers.api import SamplingDecoder, SamplingOptions

Cli = Callable[..., CliResult]
_LONG = 12


def _opened(folder: Path) -> ImageTextModel:
    model = ImageTextLoader().open(str(folder), ModelSettings(model=str(folder), device="cpu"))
    model.load()
    return model


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_greedy_answers_are_transformers_own(
    family: str, seeing_model: Callable[[str], Path], photos: list[str]
) -> None:
    model = _opened(seeing_model(family))
    segments = [Segment("one "), Segment("", image=ImagePart(photos[1])), Segment("two")]
    segments += [Segment("", image=ImagePart(photos[0])), Segment("?")]
    prompts = [*Encoder(model.tokenizer, None, media=model.media).encode_segments([segments, segments[:1]])]
    network = AutoModelForImageTextToText.from_pretrained(model.source).eval()
    for prompt in prompts:
        given = {n: value for n, value in model.media_inputs([prompt]).items() if n != "position_ids"}
        if family.startswith("qwen") and prompt.media:
            given["mm_token_type_ids"] = model._inputs._types(prompt)[None]
        ids = torch.tensor([list(prompt.input_ids)])
        own = network.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), **given, max_new_tokens=_LONG, do_sample=False,
            eos_token_id=None,
        )  # fmt: skip
        request = DecodingRequest(list(prompt.input_ids), _LONG, media=prompt.media)
        decoder = SamplingDecoder(SamplingOptions(temperature=0))
        found = [token for step in decoder.decode(model, request) for token in step.ids]
        assert found == own[0, ids.shape[1] :].tolist()


def test_tokens_of_images_without_images_are_refused(seeing_model: Callable[[str], Path]) -> None:
    model = _opened(seeing_model("llava"))
    request = DecodingRequest([5, *model.media_ids], 2)
    with pytest.raises(RequestError, match="has the tokens of images without these"):
        next(iter(SamplingDecoder().decode(model, request)))


def _json(cli: Cli, *arguments: object) -> Any:
    result = cli("generate", "--template", "chatml", "--device", "cpu", "--max-new-tokens", 6, *arguments, "--json")
    assert result.status == 0, result.stderr
    return result.json()


@pytest.mark.usefixtures("other_plugins")
def test_generate_shows_images(
    seeing_model: Callable[[str], Path], photos: list[str], tmp_path: Path, lmflow_cli: Cli
) -> None:
    model = ("--model", seeing_model("qwen2_vl"), "--temperature", 0)
    shown = [_json(lmflow_cli, *model, "--prompt", "What?", "--image", photo) for photo in photos]
    blind = _json(lmflow_cli, *model, "--prompt", "What?")
    assert len({answer["prompt_tokens"] for answer in shown}) == 3
    assert len({answer["text"] for answer in [*shown, blind]}) > 1
    both = _json(lmflow_cli, *model, "--prompt", "What?", "--image", f"{photos[0]},{photos[1]}")
    assert both["prompt_tokens"] > max(answer["prompt_tokens"] for answer in shown[:2])
    contents = [[{"type": "image", "image": Path(photo).name}, {"type": "text", "text": "What?"}] for photo in photos]
    rows = [{"messages": [{"role": "user", "content": content}]} for content in contents]
    file, output = Path(photos[0]).parent / "asked.jsonl", tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    _json(lmflow_cli, *model, "--prompts", file, "--output", output)
    answers = [json.loads(line)["answer"] for line in output.read_text(encoding="utf-8").splitlines()]
    assert answers == [answer["text"] for answer in shown]


@pytest.mark.usefixtures("other_plugins")
def test_a_chat_shows_images(
    seeing_model: Callable[[str], Path],
    photos: list[str],
    tmp_path: Path,
    lmflow_cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved = tmp_path / "saved.jsonl"
    typed = f"What?\n/image {tmp_path}/none.png\n/image {photos[1]}\nAnd this?\n/save {saved}\n/exit\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    result = lmflow_cli(
        "chat", "--model", seeing_model("llava"), "--template", "chatml", "--device", "cpu", "--max-new-tokens", 4,
        "--temperature", 0, "--image", photos[0],
    )  # fmt: skip
    assert result.status == 0, result.stderr
    assert "none.png' cannot be read: no such file" in result.stderr
    assert "the next message shows the image" in result.stderr
    turns = json.loads(saved.read_text(encoding="utf-8"))["messages"]
    images = [[part["image"] for part in turn["content"] if part["type"] == "image"] for turn in turns[::2]]
    assert images == [[photos[0]], [photos[1]]]


@pytest.mark.usefixtures("other_plugins")
def test_what_sees_nothing_says_so(
    seeing_model: Callable[[str], Path], tiny_model: Path, photos: list[str], lmflow_cli: Cli
) -> None:
    asked = ("--prompt", "What?", "--image", photos[0], "--template", "chatml")
    result = lmflow_cli("generate", "--model", tiny_model, *asked)
    assert result.status == 2
    assert "the model takes no images" in result.stderr
    result = lmflow_cli("generate", "--model", seeing_model("llava"), *asked, "--decoder", "prompt-lookup")
    assert result.status == 2
    assert "decoder 'prompt-lookup' takes no images: use --decoder sampling" in result.stderr
