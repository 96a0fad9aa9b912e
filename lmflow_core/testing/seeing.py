"""Real but tiny models that see, of several families, each made in a second with its own processor."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmflow_core.testing.tiny import make_tokenizer

# What a family's tokens for images are called in the tokenizer, by what the processor calls them.
_TOKENS: dict[str, dict[str, str]] = {
    "llava": {"image_token": "<image>"},
    "llava_next": {"image_token": "<image>"},
    "idefics3": {"image_token": "<image>"},
    "smolvlm": {"image_token": "<image>"},
    "qwen2_vl": {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
    "gemma3": {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
    "internvl": {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    },
}
_TOKENS["qwen2_5_vl"] = _TOKENS["qwen3_vl"] = {
    **_TOKENS["qwen2_vl"],
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
_TOKENS["qwen2_vl"] = _TOKENS["qwen2_5_vl"]
_IDEFICS = ("<fake_token_around_image>", "<end_of_utterance>", "<global-img>")
_ROWS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
_CLIP: dict[str, Any] = {
    "image_size": 8, "patch_size": 4, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2,
}  # fmt: skip
_QWEN_EYES: dict[str, Any] = {
    "depth": 2,
    "num_heads": 2,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
_PATCHES: dict[str, Any] = {
    "patch_size": 4,
    "vision_feature_select_strategy": "default",
    "num_additional_image_tokens": 1,
}
_QWEN_SIZES: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "out_hidden_size": 32}
_QWEN_PIXELS: dict[str, Any] = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}


def make_seeing_model(folder: Path, family: str, *, seed: int = 0) -> Path:
    """Write a random model that sees and its processor into a folder, and return it.

    Args:
        folder: where to write.
        family: the ``model_type`` of its configuration; one of :data:`FAMILIES`.
        seed: of the random weights.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    tokenizer = make_seeing_tokenizer(family, make_tokenizer())
    config, processor = FAMILIES[family](tokenizer)
    torch.manual_seed(seed)
    network: Any = AutoModelForImageTextToText.from_config(config)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return folder


def make_seeing_tokenizer(family: str, plain: Any) -> Any:
    """Return a byte-level tokenizer with the tokens that a family has for images.

    Args:
        family: one of :data:`FAMILIES`.
        plain: the tokenizer without them.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=plain.backend_tokenizer, bos_token=plain.bos_token, eos_token=plain.eos_token,
        pad_token=plain.pad_token, extra_special_tokens=_TOKENS[family],
    )  # fmt: skip
    tokenizer.chat_template = plain.chat_template
    if family in ("idefics3", "smolvlm"):
        tokenizer.add_tokens([*_IDEFICS, *_ROWS], special_tokens=True)
    if family == "gemma3":
        tokenizer.add_tokens(["\n\n", "\n\n\n"])  # as Gemma's has; the processor puts two around each image
    return tokenizer


def _text(tokenizer: Any, **changes: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, **changes,
    }  # fmt: skip


def _processor(name: str, images: Any, **own: Any) -> dict[str, Any]:
    """Return what ``processor_config.json`` says; made into a processor, some would need more packages, for videos."""
    return {"processor_class": name, "image_processor": images.to_dict(), **own}


def _llava(tokenizer: Any) -> tuple[Any, dict[str, Any]]:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_CLIP), text_config=LlamaConfig(**_text(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), vision_feature_layer=-1,
    )  # fmt: skip
    images = CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    return config, _processor("LlavaProcessor", images, **_PATCHES)


def _llava_next(tokenizer: Any) -> tuple[Any, dict[str, Any]]:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    grids = [[8, 16], [16, 8], [16, 16]]
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**_CLIP), text_config=LlamaConfig(**_text(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), vision_feature_layer=-1,
        image_grid_pinpoints=grids,
    )  # fmt: skip
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}, image_grid_pinpoints=grids
    )
    return config, _processor(
        "LlavaNextProcessor",
        images,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def _idefics(kind: str) -> Callable[[Any], tuple[Any, dict[str, Any]]]:
    def made(tokenizer: Any) -> tuple[Any, dict[str, Any]]:
        import transformers

        name = kind.lower()
        processing = importlib.import_module(f"transformers.models.{name}.image_processing_pil_{name}")
        config = getattr(transformers, f"{kind}Config")(
            vision_config=_CLIP, text_config=transformers.LlamaConfig(**_text(tokenizer)).to_dict(), scale_factor=2,
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        )  # fmt: skip
        images = getattr(processing, f"{kind}ImageProcessorPil")(
            size={"longest_edge": 16}, max_image_size={"longest_edge": 8}
        )
        return config, _processor(f"{kind}Processor", images, image_seq_len=1)

    return made


def _qwen(kind: str, **eyes: Any) -> Callable[[Any], tuple[Any, dict[str, Any]]]:
    def made(tokenizer: Any) -> tuple[Any, dict[str, Any]]:
        import transformers
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        ids = tokenizer.convert_tokens_to_ids
        section = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
        config = getattr(transformers, f"{kind}Config")(
            vision_config={**_QWEN_EYES, **eyes},
            text_config=_text(tokenizer, rope_parameters=section, head_dim=8),
            image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
            vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
        )  # fmt: skip
        images = Qwen2VLImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 512}, **_QWEN_PIXELS)
        return config, _processor(f"{kind}Processor", images)

    return made


def _gemma3(tokenizer: Any) -> tuple[Any, dict[str, Any]]:
    from transformers import Gemma3Config
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    ids = tokenizer.convert_tokens_to_ids
    text = _text(tokenizer, head_dim=8, sliding_window=12, layer_types=["sliding_attention", "full_attention"])
    config = Gemma3Config(
        vision_config={**_CLIP, "image_size": 16, "vision_use_head": False}, text_config=text, mm_tokens_per_image=4,
        image_token_index=ids("<image_soft_token>"), boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
    )  # fmt: skip
    images = Gemma3ImageProcessorPil(size={"height": 16, "width": 16})
    return config, _processor("Gemma3Processor", images, image_seq_length=4)


def _internvl(tokenizer: Any) -> tuple[Any, dict[str, Any]]:
    from transformers import InternVLConfig, Qwen2Config
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    config = InternVLConfig(
        vision_config={**_CLIP, "image_size": [8, 8], "patch_size": [4, 4]},
        text_config=Qwen2Config(**_text(tokenizer)).to_dict(), image_seq_length=1, downsample_ratio=0.5,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
    )  # fmt: skip
    images = GotOcr2ImageProcessorPil(
        size={"height": 8, "width": 8}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    return config, _processor("InternVLProcessor", images, image_seq_length=1)


FAMILIES: dict[str, Callable[[Any], tuple[Any, dict[str, Any]]]] = {
    "llava": _llava,
    "llava_next": _llava_next,
    "idefics3": _idefics("Idefics3"),
    "smolvlm": _idefics("SmolVLM"),
    "qwen2_vl": _qwen("Qwen2VL", embed_dim=16, hidden_size=32),
    "qwen2_5_vl": _qwen(
        "Qwen2_5_VL",
        hidden_size=16,
        intermediate_size=16,
        out_hidden_size=32,
        window_size=16,
        fullatt_block_indexes=[1],
    ),
    "qwen3_vl": _qwen(
        "Qwen3VL", hidden_size=16, intermediate_size=16, out_hidden_size=32, deepstack_visual_indexes=[0]
    ),
    "gemma3": _gemma3,
    "internvl": _internvl,
}
