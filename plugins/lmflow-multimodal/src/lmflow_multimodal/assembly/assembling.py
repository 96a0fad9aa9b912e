"""A language model and a vision tower to a model that sees, with a new projector between the two."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Idefics3Config, Idefics3ForConditionalGeneration, LlavaConfig, LlavaForConditionalGeneration

from lmflow_core.api import ModelError, OutputError, RequestError
from lmflow_multimodal.assembly.parts import Language, Tower, open_language, open_tower
from lmflow_multimodal.assembly.processors import idefics3_processor, llava_processor, strategy
from lmflow_multimodal.assembly.templates import IMAGE, with_images

PROJECTORS = {"llava": "mlp", "idefics3": "pixel-shuffle"}
# As in LLaVA (arXiv:2304.08485): the last layer but one tells more of places than the last.
_FEATURE_LAYER = -2
_TOLERANCE = 1e-3
_TRIED = 16


@dataclass(frozen=True)
class Assembled:
    """What was made: its type and sizes, and whether it has a chat template."""

    model_type: str
    parameters: int
    new_parameters: int
    image_size: int
    image_tokens: int
    chats: bool


@dataclass(frozen=True)
class _Made:
    network: Any
    projector: Any
    processor: Any
    image_tokens: int


def assemble(language: Path, vision: Path, output: Path, kind: str, projector: str | None, seed: int) -> Assembled:
    """Make a model that sees, and write it with its processor into a folder, whole or not at all.

    Args:
        language: folder of a causal language model.
        vision: folder of a vision tower.
        output: a folder that is not there or empty.
        kind: one of :data:`PROJECTORS`.
        projector: that of the kind, or None.
        seed: of the projector's weights.

    Raises:
        RequestError: the projector is not that of the kind, or a folder holds something else than it must.
        OutputError: the output holds something, or cannot be written.
    """
    if projector not in (None, PROJECTORS[kind]):
        raise RequestError(f"--projector {projector} does not go with --kind {kind}, whose is {PROJECTORS[kind]}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(f"--output {output} is not empty: name a folder that is not there yet")
    text, tower = open_language(language), open_tower(vision)
    template = text.tokenizer.chat_template
    chat = with_images(template) if isinstance(template, str) else None
    made = _llava(text, tower, vision, chat) if kind == "llava" else _idefics3(text, tower, chat)
    _initialise(made, seed)
    _resize(made.network, len(made.processor.tokenizer))
    _check_text(text, made.network)
    _write(made, output)
    return Assembled(
        kind, _size(made.network), _size(made.projector), tower.image_size, made.image_tokens, chat is not None
    )


def _llava(text: Language, tower: Tower, folder: Path, chat: str | None) -> _Made:
    processor = llava_processor(text.tokenizer, tower, folder, chat)
    kind: Any = LlavaConfig
    config = kind(
        text_config=text.network.config, vision_config=tower.network.config,
        image_token_index=text.tokenizer.convert_tokens_to_ids(IMAGE), vision_feature_layer=_FEATURE_LAYER,
        vision_feature_select_strategy=strategy(tower), image_seq_length=tower.side**2,
        tie_word_embeddings=_is_tied(text.network),
    )  # fmt: skip
    network = LlavaForConditionalGeneration(config).to(text.network.dtype)
    network.model.vision_tower.load_state_dict(tower.network.state_dict())
    _take_text(network, network.model.language_model, text)
    return _Made(network, network.model.multi_modal_projector, processor, tower.side**2)


def _idefics3(text: Language, tower: Tower, chat: str | None) -> _Made:
    config = tower.network.config
    if config.model_type != "siglip_vision_model":
        raise RequestError(
            f"--kind idefics3 takes a SigLIP tower, whose layers are its own, and not a {config.model_type}: "
            "choose --kind llava"
        )
    factor = next((number for number in range(2, tower.side + 1) if tower.side % number == 0), 1)
    image_tokens = (tower.side // factor) ** 2
    processor = idefics3_processor(text.tokenizer, tower, image_tokens, chat)
    names = (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels", "image_size",
        "patch_size", "hidden_act", "layer_norm_eps", "attention_dropout",
    )  # fmt: skip
    whole = Idefics3Config(
        text_config=text.network.config.to_dict(), vision_config={name: getattr(config, name) for name in names},
        image_token_id=text.tokenizer.convert_tokens_to_ids(IMAGE), scale_factor=factor,
        tie_word_embeddings=_is_tied(text.network),
    )  # fmt: skip
    network = Idefics3ForConditionalGeneration(whole).to(text.network.dtype)
    # What pools all patches into one answer has no place here.
    weights = {_bare(name): value for name, value in tower.network.state_dict().items()}
    network.model.vision_model.load_state_dict({n: w for n, w in weights.items() if not n.startswith("head.")})
    _take_text(network, network.model.text_model, text)
    return _Made(network, network.model.connector, processor, image_tokens)


def _bare(name: str) -> str:
    return name.removeprefix("vision_model.")


def _is_tied(network: Any) -> bool:
    return network.get_output_embeddings().weight is network.get_input_embeddings().weight


def _take_text(network: Any, decoder: Any, text: Language) -> None:
    decoder.load_state_dict(text.network.base_model.state_dict())
    head = text.network.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        raise ModelError("the head of the language model has a bias, for which there is no place")
    network.get_output_embeddings().load_state_dict(head.state_dict())
    network.tie_weights()
    network.generation_config = text.network.generation_config


def _initialise(made: _Made, seed: int) -> None:
    """Draw the projector's weights, which depend on the seed and on nothing else."""
    deviation = float(getattr(made.network.config.text_config, "initializer_range", 0.02))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.projector.parameters():
            if parameter.dim() > 1:
                drawn = torch.empty(parameter.shape).normal_(0.0, deviation, generator=generator)
                parameter.copy_(drawn)
            else:
                parameter.zero_()


def _resize(network: Any, tokens: int) -> None:
    """Add rows for new tokens where the vocabulary has none to spare; each is the mean of all others."""
    before = network.get_input_embeddings().num_embeddings
    if tokens <= before:
        return
    network.resize_token_embeddings(tokens, mean_resizing=False)
    weights: list[torch.Tensor] = [network.get_input_embeddings().weight, network.get_output_embeddings().weight]
    with torch.no_grad():
        for weight in weights[: 1 if _is_tied(network) else 2]:
            weight[before:] = weight[:before].float().mean(0).to(weight.dtype)


def _check_text(text: Language, network: Any) -> None:
    """Refuse what does not answer to text as the language model does: one that changes its logits behind the head."""
    ids = torch.arange(_TRIED)[None] % text.network.get_input_embeddings().num_embeddings
    with torch.no_grad():
        expected = text.network(input_ids=ids).logits.float()
        found = network.eval()(input_ids=ids).logits.float()[..., : expected.shape[-1]]
    if not torch.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise ModelError(
            f"a {text.network.config.model_type} model answers otherwise within a {network.config.model_type} model, "
            "which does not compute its logits as it does: choose another language model"
        )


def _write(made: _Made, output: Path) -> None:
    partial = output.with_name(output.name + ".partial")
    parts: tuple[Callable[[Path], Any], ...] = (made.network.save_pretrained, made.processor.save_pretrained)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for save in parts:
            save(partial)
        if output.is_dir():
            output.rmdir()
        os.replace(partial, output)
    except OSError as error:
        raise OutputError(f"--output {output} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _size(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
