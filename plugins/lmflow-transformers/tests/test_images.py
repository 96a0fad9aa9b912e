"""A model that sees: its loss, its scores and its training depend on the image, and equal transformers' own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from lmflow_core.api import IGNORE, EncodedExample, EncodedSequence, Media, ModelSettings
from lmflow_core.testing.tiny import TINY_SHAPE
from lmflow_transformers.attention import SdpaAttention, using_attention
from lmflow_transformers.batches import collate
from lmflow_transformers.isolation import isolates_sequences
from lmflow_transformers.likelihood.head import head_is_plain
from lmflow_transformers.likelihood.network import sequence_logprobs, summed_cross_entropy
from lmflow_transformers.models import CausalModel, CausalModelLoader

_IMAGE_TOKEN, _PATCHES = 399, 4
_SEES = {
    "image_size": 8, "patch_size": 4, "hidden_size": 16, "intermediate_size": 16,
    "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def llava(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    text = LlamaConfig(**{**TINY_SHAPE, "vocab_size": 400, "max_position_embeddings": 64})
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_SEES), text_config=text, image_token_index=_IMAGE_TOKEN,
        vision_feature_layer=-1, vision_feature_select_strategy="default",
    )  # fmt: skip
    network = LlavaForConditionalGeneration(config)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("llava") / "model"
    network.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


def _pixels(source: str) -> torch.Tensor:
    return torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(len(source)))


def _media_inputs(sequences: Sequence[EncodedSequence]) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.stack([_pixels(each.source) for row in sequences for each in row.media])}


def _sequence(image: str, text: Sequence[int]) -> EncodedSequence:
    ids = [5, *([_IMAGE_TOKEN] * _PATCHES), 6, *text]
    labels = [*([IGNORE] * (_PATCHES + 2)), *text]
    return EncodedSequence(ids, labels, (Media(image, image, start=1, tokens=_PATCHES),))


_ROWS = [_sequence("a", [10, 11, 12]), _sequence("bb", [10, 11, 12]), _sequence("ccc", [20, 21, 22, 23, 24])]


def _opened(folder: Path) -> CausalModel:
    model = CausalModelLoader().open(str(folder), ModelSettings(model=str(folder), device="cpu"))
    model.accept(dataclasses.replace(model.plan, task="image-text"))
    model.media_inputs = _media_inputs
    model.load()
    return model


def _own_loss(network: Any, row: EncodedSequence) -> torch.Tensor:
    """Return the loss of one sequence, summed, as transformers computes it."""
    ids, labels = torch.tensor([list(row.input_ids)]), torch.tensor([list(row.labels)])
    pixels = _media_inputs([row])["pixel_values"]
    return network(input_ids=ids, pixel_values=pixels, labels=labels).loss * int((labels[0, 1:] != IGNORE).sum())


def test_the_loss_depends_on_the_image_and_is_transformers_own(llava: Path) -> None:
    network = _opened(llava).base
    assert head_is_plain(network)
    attention = SdpaAttention().implementation("cpu")
    assert isolates_sequences(network, attention)
    with torch.no_grad():
        expected = [float(_own_loss(network, row)) for row in _ROWS]
        alone = [
            float(summed_cross_entropy(network, collate([EncodedExample((row,))], media_inputs=_media_inputs), 2))
            for row in _ROWS
        ]
        with using_attention(network, attention):
            packed = collate([EncodedExample(tuple(_ROWS))], media_inputs=_media_inputs)
            together = -sequence_logprobs(network, packed)
    assert abs(expected[0] - expected[1]) > 1e-2
    assert alone == pytest.approx(expected, abs=1e-4)
    assert together.tolist() == pytest.approx(expected, abs=1e-4)


def test_scores_depend_on_the_image(llava: Path) -> None:
    model = _opened(llava)
    with torch.no_grad():
        expected = [float(_own_loss(model.base, row)) for row in _ROWS]
    assert [score.nll for score in model.score(_ROWS)] == pytest.approx(expected, abs=1e-4)
