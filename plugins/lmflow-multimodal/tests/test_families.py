"""Each family: ids, pixels and logits are those of transformers' own processor and model, alone and packed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, ProcessorMixin
from transformers.models.auto import video_processing_auto
from transformers.models.smolvlm import processing_smolvlm

from lmflow_core.api import IGNORE, EncodedExample, EncodedSequence, ImagePart, LmflowError, ModelSettings, Segment
from lmflow_core.data.encoding import Encoder
from lmflow_core.plugins.references import find_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.seeing import FAMILIES
from lmflow_multimodal.families import MODEL_TYPES
from lmflow_multimodal.loader import ImageTextLoader
from lmflow_multimodal.models import ImageTextModel
from lmflow_transformers.api import collate, isolates_sequences, using_attention
from lmflow_transformers.attention import SdpaAttention
from lmflow_transformers.isolation import masked_attention

# Texts, and numbers of pictures; what begins with "=" is learned.
_ROWS: list[list[str | int]] = [
    ["Hello\n", 0, " world", "= answer"],
    [1, "quick", 2, "=brown"],
    ["The dog", "= jumps"],
    ["over", 0, "\n", 1, 2, "=Paris!"],
]
# How a prompt is written for each family's processor.
_PROMPTS = {
    "gemma3": "<start_of_image>",
    "internvl": "<IMG_CONTEXT>",
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), "<|vision_start|><|image_pad|><|vision_end|>"),
}
_ALONE = {"gemma3"}
each_family = pytest.mark.parametrize("family", sorted(FAMILIES))


class _Opened(NamedTuple):
    family: str
    model: ImageTextModel
    rows: list[EncodedSequence]
    theirs: list[dict[str, Any]]


@pytest.fixture(scope="module")
def opened(seeing_model: Callable[[str], Path], photos: list[str], request: pytest.FixtureRequest) -> Iterator[_Opened]:
    """Return a model, its rows, and what transformers' own processor makes of them."""
    family: str = request.param
    folder = seeing_model(family)
    model = ImageTextLoader().open(str(folder), ModelSettings(model=str(folder), device="cpu"))
    model.load()
    rows = Encoder(model.tokenizer, None, media=model.media).encode_segments([_segments(r, photos) for r in _ROWS])
    with pytest.MonkeyPatch.context() as patch:
        # Their processors of videos want torchvision, and SmolVLM's a package that spells numbers.
        own = ProcessorMixin.check_argument_for_proper_class
        patch.setattr(
            ProcessorMixin,
            "check_argument_for_proper_class",
            lambda self, name, value: name if name == "video_processor" else own(self, name, value),
        )
        patch.setattr(processing_smolvlm, "num2words", object)
        patch.setattr(
            video_processing_auto, "AutoVideoProcessor", SimpleNamespace(from_pretrained=lambda *_, **__: None)
        )
        processor = AutoProcessor.from_pretrained(folder)
        theirs = [_theirs(processor, family, row, photos) for row in _ROWS]
    return _Opened(family, model, rows, theirs)


each_opened = pytest.mark.parametrize("opened", sorted(FAMILIES), indirect=True)


def _segments(row: Sequence[str | int], photos: Sequence[str]) -> list[Segment]:
    return [
        Segment("", image=ImagePart(photos[part]))
        if isinstance(part, int)
        else Segment(part.removeprefix("="), trainable=part.startswith("="))
        for part in row
    ]


def _theirs(processor: Any, family: str, row: Sequence[str | int], photos: Sequence[str]) -> dict[str, Any]:
    token = _PROMPTS.get(family, "<image>")
    text = "".join(token if isinstance(part, int) else part.removeprefix("=") for part in row)
    images = [Image.open(photos[part]).convert("RGB") for part in row if isinstance(part, int)]
    given = {"images": [images]} if images else {}
    made = processor(text=[text], **given, return_tensors="pt", return_mm_token_type_ids=True, add_special_tokens=False)
    return dict(made)


def test_every_family_is_tried() -> None:
    assert sorted(FAMILIES) == sorted(MODEL_TYPES)


@each_family
def test_a_folder_is_opened_by_the_type_of_its_model(family: str, seeing_model: Callable[[str], Path]) -> None:
    assert find_model(str(seeing_model(family)), Catalogue.discover(), "torch").spec.name == "image-text"


@each_opened
def test_ids_and_labels_are_those_of_the_processor(opened: _Opened) -> None:
    for row, theirs, asked in zip(opened.rows, opened.theirs, _ROWS, strict=True):
        assert list(row.input_ids) == theirs["input_ids"][0].tolist()
        learned = opened.model.tokenizer.encode([str(asked[-1])[1:]], [True])[0]
        assert list(row.labels) == [IGNORE] * (len(row.labels) - len(learned)) + learned


@each_opened
def test_pixels_are_those_of_the_processor(opened: _Opened) -> None:
    for row, theirs in zip(opened.rows, opened.theirs, strict=True):
        made = dict(opened.model.media_inputs([row]))
        text = {"position_ids", "token_type_ids"}
        wanted = {"pixel_values", "pixel_attention_mask", "image_sizes", "image_grid_thw"} & theirs.keys()
        assert made.keys() - text == wanted
        for name in wanted:
            assert torch.equal(made[name], theirs[name])


@each_opened
def test_logits_are_transformers_own_alone_and_packed(opened: _Opened) -> None:
    network = opened.model.base
    attention = SdpaAttention().implementation("cpu")
    isolated = isolates_sequences(network, attention)
    assert isolated == (opened.family not in _ALONE)
    plain = AutoModelForImageTextToText.from_pretrained(opened.model.source).eval()
    known = inspect.signature(plain.forward).parameters
    examples = [EncodedExample((row,)) for row in opened.rows]
    with torch.no_grad():
        expected = [
            plain(**{name: value for name, value in theirs.items() if name in known}).logits[0]
            for theirs in opened.theirs
        ]
        with using_attention(network, attention if isolated else masked_attention(network)):
            batch = collate(examples, isolated=isolated, media_inputs=opened.model.media_inputs)
            together = torch.cat([network(use_cache=False, **inputs).logits[0] for inputs in batch.inputs])
        alone = collate(examples, isolated=False, media_inputs=opened.model.media_inputs)
        apart = torch.cat([network(use_cache=False, **inputs).logits[0] for inputs in alone.inputs])
    assert len(batch.inputs) == (1 if isolated else len(examples))
    assert torch.allclose(together, torch.cat(expected), atol=1e-5)
    assert torch.allclose(apart, torch.cat(expected), atol=1e-5)


@each_opened
def test_eyes_are_not_told_where_sequences_lie(opened: _Opened) -> None:
    network = opened.model.base
    told: set[str] = set()
    eyes = [module for module in network.modules() if getattr(module, "config", None) is network.config.vision_config]
    hooks = [
        eye.register_forward_pre_hook(lambda _, __, options: told.update(options), with_kwargs=True) for eye in eyes
    ]
    inputs = collate([EncodedExample((opened.rows[0],))], media_inputs=opened.model.media_inputs).inputs[0]
    with torch.no_grad(), using_attention(network, SdpaAttention().implementation("cpu")):
        network(use_cache=False, **inputs)
    for hook in hooks:
        hook.remove()
    assert eyes
    assert not {"cu_seq_lens_q", "shared_beginnings"} & told


@pytest.mark.parametrize("opened", ["llava"], indirect=True)
def test_an_image_that_has_changed_is_told(opened: _Opened, tmp_path: Path) -> None:
    photo = tmp_path / "a.png"
    Image.new("RGB", (8, 8), "red").save(photo)
    encoder = Encoder(opened.model.tokenizer, None, media=opened.model.media)
    (row,) = encoder.encode_segments([[Segment("", image=ImagePart(str(photo)))]])
    Image.new("RGB", (8, 8), "blue").save(photo)
    with pytest.raises(LmflowError, match="has changed since it was encoded"):
        opened.model.media_inputs([row])


def test_a_text_only_folder_is_a_causal_model(tiny_model: Path) -> None:
    assert find_model(str(tiny_model), Catalogue.discover(), "torch").spec.name == "causal"
