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

from lmflow_core.api import BatchLimits, DecodingRequest, ImagePart, ModelSettings, RequestError, Segment
from lmflow_core.data.encoding import Encoder
from lmflow_core.testing.fixtures import CliResult
from lmflow_core.testing.seeing import FAMILIES
from lmflow_multimodal.loader import ImageTextLoader
from lmflow_multimodal.models import ImageTextModel
from lmflow_multimodal.parts import eyes_of
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


def _alone(model: ImageTextModel, request: DecodingRequest) -> list[int]:
    decoder = SamplingDecoder(SamplingOptions(temperature=0))
    return [token for step in decoder.decode(model, request) for token in step.ids]


def _together(batch: Any, requests: list[DecodingRequest]) -> list[list[int]]:
    decoder = SamplingDecoder(SamplingOptions(temperature=0))
    tickets = [batch.add(request, decoder) for request in requests]
    found: dict[int, list[int]] = {ticket: [] for ticket in tickets}
    ended = 0
    while ended < len(requests):
        for news in batch.step():
            assert news.error is None
            ended += news.step is None
            found[news.ticket] += news.step.ids if news.step else ()
    return [found[ticket] for ticket in tickets]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_answers_to_images_share_passes_with_others(
    family: str, seeing_model: Callable[[str], Path], photos: list[str]
) -> None:
    model = _opened(seeing_model(family))
    first, second, third = (Segment("", image=ImagePart(photo)) for photo in photos)
    asked = [
        [Segment("one two three four five six seven eight"), first, Segment("?")],
        [Segment("one two three four five six seven eight"), second, Segment("and"), third, Segment("?")],
        [Segment("one two three four five six seven eight"), second, Segment("and"), first, Segment("?")],
        [Segment("no image at all")],
    ]
    encoded = Encoder(model.tokenizer, None, media=model.media).encode_segments(asked)
    requests = [DecodingRequest([*each.input_ids], _LONG - n, media=each.media) for n, each in enumerate(encoded)]
    batch = SamplingDecoder().open_batch(model, BatchLimits(answers=3))
    if family == "gemma3":  # the tokens of its images see each other, which no shared pass has
        assert batch is None
        return
    assert _together(batch, requests) == [_alone(model, request) for request in requests]
    # A conversation goes on: its images were read, and are not read again.
    answer = _alone(model, requests[1])
    longer = DecodingRequest([*requests[1].prompt, *answer, *encoded[3].input_ids], 5, media=requests[1].media)
    read: list[int] = []
    for eyes in eyes_of(model.network):
        eyes.register_forward_pre_hook(lambda *_: read.append(1))
    found = _together(batch, [longer])
    assert not read
    assert found == [_alone(model, longer)]
    assert read


def test_an_image_that_is_gone_ends_its_answer_alone(
    seeing_model: Callable[[str], Path], photos: list[str], tmp_path: Path
) -> None:
    model = _opened(seeing_model("llava"))
    photo = tmp_path / "photo.png"
    photo.write_bytes(Path(photos[0]).read_bytes())
    asked = [[Segment("", image=ImagePart(str(file))), Segment("?")] for file in (photo, photos[1])]
    encoded = Encoder(model.tokenizer, None, media=model.media).encode_segments(asked)
    requests = [DecodingRequest([*each.input_ids], 4, media=each.media) for each in encoded]
    photo.unlink()
    decoder = SamplingDecoder(SamplingOptions(temperature=0))
    batch = decoder.open_batch(model, BatchLimits(answers=2))
    assert batch is not None
    tickets = [batch.add(request, decoder) for request in requests]
    news = batch.step()
    (failed,) = [each for each in news if each.error is not None]
    assert failed.ticket == tickets[0]
    assert "no such file" in str(failed.error)
    others = [each for each in news if each is not failed]
    while not any(each.step is None for each in others):
        others += batch.step()
    assert {each.ticket for each in others} == {tickets[1]}
