"""What conversion does for each architecture: names of tensors, changes of weights, parameters.

The layouts are those that llama.cpp's loader expects. Names of tensors are translated by the tables of the ``gguf``
package; here stands only what differs between architectures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np

from lmflow_core.api import ModelError

Config = Mapping[str, Any]
Read = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Tensor:
    """A tensor on its way: its name, its shape and how its values (float16 or float32) are got."""

    name: str
    shape: tuple[int, ...]
    read: Read


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    Attributes:
        arch: what GGUF calls it.
        vocabularies: the vocabularies it may have, in the order they are looked for: ``sentencepiece``, ``bpe``.
        reshape: changes one tensor: gives the tensors that take its place.
        extras: gives further tensors made from the configuration.
        parameters: writes the model's parameters.
        activations: the activations that llama.cpp computes for it.
        scalings: the ways of scaling rotary positions that it computes for it, by transformers' names.
        refusal: tells what of a configuration llama.cpp would compute in another way, or None.
        dropped: endings of names that llama.cpp does not use.
        space_prefix: what ``tokenizer.ggml.add_space_prefix`` must be, when the architecture says.
    """

    arch: gguf.MODEL_ARCH
    vocabularies: tuple[str, ...]
    parameters: Callable[[gguf.GGUFWriter, Config], None]
    reshape: Callable[[Tensor, Config], Iterator[Tensor]]
    extras: Callable[[Config], Iterator[Tensor]] = lambda config: iter(())
    activations: tuple[str, ...] = ("silu", "swish")
    scalings: tuple[str, ...] = ("linear", "yarn")
    refusal: Callable[[Config], str | None] = lambda config: None
    dropped: tuple[str, ...] = ()
    space_prefix: bool | None = None

    @property
    def name(self) -> str:
        """What GGUF calls the architecture."""
        return gguf.MODEL_ARCH_NAMES[self.arch]


def architecture_of(config: Config) -> Architecture:
    """Return what conversion does for a configuration.

    Raises:
        ModelError: the architecture is not supported; the message lists those that are.
    """
    named = config.get("architectures") or ["(none)"]
    if named[0] not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ModelError(f"the architecture {named[0]} cannot be written as GGUF; these can: {known}")
    return ARCHITECTURES[named[0]]


def check_configuration(config: Config) -> None:
    """Check that llama.cpp computes what the configuration says; it takes much for granted and does not ask.

    Raises:
        ModelError: it would not, or the architecture is not supported.
    """
    architecture = architecture_of(config)
    activation = _first(config, "hidden_activation", "hidden_act", "activation_function")
    problem = architecture.refusal(config)
    if activation is not None and activation not in architecture.activations:
        problem = f"the activation {activation} is not {architecture.activations[0]}"
    problem = problem or _unknown_scaling(architecture, config)
    if problem:
        raise ModelError(f"llama.cpp would compute this {architecture.name} model wrongly: {problem}")


def _unknown_scaling(architecture: Architecture, config: Config) -> str | None:
    """Tell of a scaling of rotary positions that has no place in the file, where it would be lost in silence."""
    sliding = config["rope_parameters"].get("sliding_attention") or {}
    if sliding.get("rope_type", "default") != "default":
        return f"{sliding['rope_type']} scaling of the positions of layers with a sliding window is not known"
    rope = _rope(config)
    kind = str(rope.get("rope_type") or "default").lower()
    if kind not in ("default", *architecture.scalings):
        known = ", ".join(architecture.scalings) or "none"
        return f"{kind} scaling of rotary positions is not known for it, only: {known}"
    if kind == "yarn" and not rope.get("truncate", True):
        return "yarn without truncation is not known"
    return None


def _gemma_scale(config: Config) -> str | None:
    """llama.cpp scales attention by the size of a head, and in the models of 27B by the hidden size per head."""
    asked = config.get("query_pre_attn_scalar")
    largest = layers_of(config) in (46, 62)
    scale = config["hidden_size"] // config["num_attention_heads"] if largest else config["head_dim"]
    return None if asked in (None, scale) else f"query_pre_attn_scalar is {asked}, not {scale}"


def _gemma_refusal(config: Config) -> str | None:
    """The base of the first two Gemmas has no place in the file."""
    theta = _rope(config).get("rope_theta") or 10000.0
    return f"rope_theta is {theta:g}, not 10000" if theta != 10000.0 else _gemma_scale(config)


def _experts_normalised(wanted: bool) -> Callable[[Config], str | None]:
    def refusal(config: Config) -> str | None:
        given = bool(config.get("norm_topk_prob"))
        return None if given == wanted else f"norm_topk_prob is {given}, not {wanted}"

    return refusal


def flat_config(config: Config) -> dict[str, Any]:
    """Return a configuration whose ``rope_parameters`` hold base and scaling, whichever generation it came from."""
    flat = dict(config)
    rope = dict(flat.get("rope_parameters") or flat.get("rope_scaling") or {})
    if "full_attention" not in rope and "sliding_attention" not in rope:
        local = flat.get("rope_local_base_freq")
        if local is not None:
            rope["sliding_attention"] = {"rope_theta": local}
        if "type" in rope:
            rope.setdefault("rope_type", rope["type"])
        for name in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings"):
            if flat.get(name) is not None:
                rope.setdefault(name, flat[name])
    flat["rope_parameters"] = rope
    return flat


def layers_of(config: Config) -> int:
    """Return the number of decoder layers."""
    return int(_first(config, "num_hidden_layers", "n_layer"))


def _first(config: Config, *names: str) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)


def _rope(config: Config) -> Mapping[str, Any]:
    """Return the RoPE parameters of the layers with full attention."""
    rope: Mapping[str, Any] = config["rope_parameters"]
    return rope.get("full_attention", rope)


def _head_size(config: Config) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


# --- parameters -------------------------------------------------------------------------------------------------------


def _common(writer: gguf.GGUFWriter, config: Config) -> None:
    """Write the parameters that most architectures have."""
    writer.add_block_count(layers_of(config))
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    if config.get("num_key_value_heads") is not None:
        writer.add_head_count_kv(config["num_key_value_heads"])
    _rope_parameters(writer, config)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if (experts := _first(config, "num_local_experts", "num_experts")) is not None:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])
    if config.get("head_dim") is not None:
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])


def _rope_parameters(writer: gguf.GGUFWriter, config: Config) -> None:
    rope = _rope(config)
    kind, factor = rope.get("rope_type"), rope.get("factor")
    if kind == "linear" and factor is not None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(factor)
    elif kind == "yarn" and factor is not None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(factor)
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        _yarn_details(writer, rope)
    if (sections := rope.get("mrope_section")) is not None:
        # Time, height, width and a fourth that no model has.
        writer.add_rope_dimension_sections([*sections, 0, 0, 0, 0][:4])
    if rope.get("rope_theta") is not None:
        writer.add_rope_freq_base(rope["rope_theta"])
    sliding = config["rope_parameters"].get("sliding_attention") or {}
    if sliding.get("rope_theta") is not None:
        writer.add_rope_freq_base_swa(sliding["rope_theta"])


def _yarn_details(writer: gguf.GGUFWriter, rope: Mapping[str, Any]) -> None:
    if (value := rope.get("extrapolation_factor")) is not None:
        writer.add_rope_scaling_yarn_ext_factor(value)
    if (value := _first(rope, "attention_factor", "attn_factor")) is not None:
        writer.add_rope_scaling_yarn_attn_factor(value)
    if (value := rope.get("beta_fast")) is not None:
        writer.add_rope_scaling_yarn_beta_fast(value)
    if (value := rope.get("beta_slow")) is not None:
        writer.add_rope_scaling_yarn_beta_slow(value)


def _llama(writer: gguf.GGUFWriter, config: Config) -> None:
    _common(writer, config)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_rope_dimension_count(_head_size(config))


def _qwen_moe(writer: gguf.GGUFWriter, config: Config) -> None:
    _common(writer, config)
    if config.get("moe_intermediate_size") is not None:
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if config.get("shared_expert_intermediate_size") is not None:
        writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])


def _gemma(writer: gguf.GGUFWriter, config: Config) -> None:
    heads = config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(layers_of(config))
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])


def _gemma2(writer: gguf.GGUFWriter, config: Config) -> None:
    _gemma(writer, config)
    writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
    writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    writer.add_sliding_window(config["sliding_window"])


def _gemma3(writer: gguf.GGUFWriter, config: Config) -> None:
    _common(writer, config)
    if config.get("attn_logit_softcapping") is not None:
        raise ModelError("a Gemma 3 with soft-capped attention has no place in GGUF")
    if config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if config.get("sliding_window_pattern") != 1:
        writer.add_sliding_window(config["sliding_window"])


def _phi3(writer: gguf.GGUFWriter, config: Config) -> None:
    rope = _rope(config)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(layers_of(config))
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(_phi3_rope_size(config))
    writer.add_rope_freq_base(rope["rope_theta"])
    # Zero tells that there is none; a missing key would mean the window of the first Phi-3.
    writer.add_sliding_window(config.get("sliding_window") or 0)
    if rope.get("long_factor"):
        writer.add_rope_scaling_attn_factors(_phi3_attention_factor(config))


def _phi3_rope_size(config: Config) -> int:
    part = _rope(config).get("partial_rotary_factor", 1.0)
    return int(part * config["hidden_size"]) // int(config["num_attention_heads"])


def _phi3_attention_factor(config: Config) -> float:
    rope = _rope(config)
    original = rope["original_max_position_embeddings"]
    scale = config["max_position_embeddings"] / original
    if scale <= 1:
        return 1.0
    return math.sqrt(1 + math.log(scale) / math.log(original))


def _gpt2(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_block_count(layers_of(config))
    writer.add_context_length(_first(config, "n_positions", "n_ctx"))
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config.get("n_inner") or 4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])


# --- weights ----------------------------------------------------------------------------------------------------------


def rotated(values: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of a query or key projection: each head's two halves become pairs.

    transformers rotates row ``i`` of a head with row ``i + size/2``, llama.cpp row ``2i`` with ``2i + 1``.
    """
    half = values.shape[0] // heads // 2
    return values.reshape(heads, 2, half, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def rotated_heads(name: str, config: Config) -> int | None:
    """Return by how many heads the rows of a tensor of the Llama family are reordered; None for other tensors."""
    if name.endswith(("q_proj.weight", "q_proj.bias")):
        return int(config["num_attention_heads"])
    if name.endswith(("k_proj.weight", "k_proj.bias")):
        return int(config.get("num_key_value_heads") or config["num_attention_heads"])
    return None


def _as_is(tensor: Tensor, config: Config) -> Iterator[Tensor]:
    yield tensor


def _llama_weights(tensor: Tensor, config: Config) -> Iterator[Tensor]:
    heads = rotated_heads(tensor.name, config)
    yield changed(tensor, tensor.name, lambda values: rotated(values, heads)) if heads else tensor


def _plus_one(tensor: Tensor, config: Config) -> Iterator[Tensor]:
    """Gemma multiplies by one plus the weight of a norm, llama.cpp by the weight."""
    norm = tensor.name.endswith("norm.weight")
    yield changed(tensor, tensor.name, lambda values: values + values.dtype.type(1)) if norm else tensor


def _gpt2_weights(tensor: Tensor, config: Config) -> Iterator[Tensor]:
    if tensor.name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
        yield Tensor(tensor.name, tensor.shape[::-1], lambda: np.ascontiguousarray(tensor.read().T))
    else:
        yield tensor


def _qwen_moe_weights(tensor: Tensor, config: Config) -> Iterator[Tensor]:
    """Split the gate and up projections of experts that are stored as one tensor."""
    stem, _, last = tensor.name.removesuffix(".weight").rpartition(".")
    if stem.endswith("mlp.experts") and last == "gate_up_proj":
        count, rows, columns = tensor.shape
        half = rows // 2
        shape = (count, half, columns)
        yield Tensor(f"{stem}.gate_proj.weight", shape, lambda: np.ascontiguousarray(tensor.read()[:, :half]))
        yield Tensor(f"{stem}.up_proj.weight", shape, lambda: np.ascontiguousarray(tensor.read()[:, half:]))
    elif stem.endswith("mlp.experts") and last == "down_proj":
        yield Tensor(f"{stem}.down_proj.weight", tensor.shape, tensor.read)
    else:
        yield tensor


def changed(tensor: Tensor, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """Return a tensor of another name whose values are changed when they are read; the shape stays."""
    return Tensor(name, tensor.shape, lambda: change(tensor.read()))


def stacked_experts(tensors: Sequence[Tensor], config: Config) -> Iterator[Tensor]:
    """Put the experts of a layer, where they are stored one by one, into one tensor for each projection.

    Raises:
        ModelError: an expert is missing.
    """
    groups: dict[str, dict[int, Tensor]] = {}
    for tensor in tensors:
        stem, found, rest = tensor.name.partition(".experts.")
        number, _, projection = rest.partition(".")
        if not found or not number.isdecimal():
            yield tensor
            continue
        # Mixtral's stack has a name of its own in the tables.
        layer = stem.removesuffix(".block_sparse_moe").removeprefix("model.")
        name = (
            f"{layer}.feed_forward.experts.{projection}"
            if stem.endswith(".block_sparse_moe")
            else f"{stem}.experts.{projection}"
        )
        groups.setdefault(name, {})[int(number)] = tensor
        count = _first(config, "num_local_experts", "num_experts")
        if len(groups[name]) == count:
            yield _stack(name, groups.pop(name))
    if groups:
        raise ModelError(f"experts are missing: {', '.join(sorted(groups))}")


def _stack(name: str, experts: Mapping[int, Tensor]) -> Tensor:
    ordered = [experts[number] for number in sorted(experts)]
    return Tensor(name, (len(ordered), *ordered[0].shape), lambda: np.stack([expert.read() for expert in ordered]))


def _llama3_factors(config: Config) -> Iterator[Tensor]:
    """Llama 3's scaling is kept as one factor for each frequency."""
    rope = _rope(config)
    if str(rope.get("rope_type", "")).lower() != "llama3":
        return
    size = _head_size(config)
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    frequencies = np.float32(1.0) / (np.float32(rope.get("rope_theta", 10000.0)) ** exponents)
    factor, low, high = rope.get("factor", 8.0), rope.get("low_freq_factor", 1.0), rope.get("high_freq_factor", 4.0)
    original = rope.get("original_max_position_embeddings", 8192)
    factors = np.array([_llama3_factor(f, original, factor, low, high) for f in frequencies], dtype=np.float32)
    yield Tensor("rope_freqs.weight", factors.shape, lambda: factors)


def _llama3_factor(frequency: np.float32, original: int, factor: float, low: float, high: float) -> Any:
    wavelength = np.float32(2 * math.pi) / frequency
    if wavelength < original / high:
        return 1.0
    if wavelength > original / low:
        return factor
    smooth = (np.float32(original) / wavelength - np.float32(low)) / np.float32(high - low)
    return np.float32(1.0) / ((np.float32(1.0) - smooth) / np.float32(factor) + smooth)


def _phi3_factors(config: Config) -> Iterator[Tensor]:
    """Phi-3's long rope is kept as two lists of factors."""
    rope = _rope(config)
    if not rope.get("long_factor"):
        return
    for name, key in (("rope_factors_long.weight", "long_factor"), ("rope_factors_short.weight", "short_factor")):
        values = np.array(rope.get(key) or (), dtype=np.float32)
        if len(values) != _phi3_rope_size(config) // 2:
            raise ModelError(f"{key} must hold {_phi3_rope_size(config) // 2} factors, not {len(values)}")
        yield Tensor(name, values.shape, lambda values=values: values)  # type: ignore[misc]


# --- the list ---------------------------------------------------------------------------------------------------------

_BOTH = ("sentencepiece", "bpe")
_GELU = ("gelu_pytorch_tanh", "gelu_new")
_LLAMA = Architecture(
    gguf.MODEL_ARCH.LLAMA,
    _BOTH,
    _llama,
    _llama_weights,
    _llama3_factors,
    scalings=("linear", "yarn", "llama3"),
)


def _gemma_of(
    arch: gguf.MODEL_ARCH,
    vocabularies: tuple[str, ...],
    parameters: Callable[[gguf.GGUFWriter, Config], None],
    **differences: Any,
) -> Architecture:
    shared: dict[str, Any] = {"activations": _GELU, "dropped": ("lm_head.weight",), "space_prefix": False}
    return Architecture(arch, vocabularies, parameters, _plus_one, **shared, **differences)


_QWEN2_VL = Architecture(gguf.MODEL_ARCH.QWEN2VL, _BOTH, _common, _as_is, scalings=())
_FIRST_GEMMAS: Mapping[str, Any] = {"scalings": (), "refusal": _gemma_refusal}


def _qwen_moe_of(arch: gguf.MODEL_ARCH, *, normalised: bool) -> Architecture:
    return Architecture(arch, ("bpe",), _qwen_moe, _qwen_moe_weights, refusal=_experts_normalised(normalised))


ARCHITECTURES: Mapping[str, Architecture] = {
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": _LLAMA,
    "MixtralForCausalLM": _LLAMA,
    "Qwen2ForCausalLM": Architecture(gguf.MODEL_ARCH.QWEN2, _BOTH, _common, _as_is),
    "Qwen2MoeForCausalLM": _qwen_moe_of(gguf.MODEL_ARCH.QWEN2MOE, normalised=False),
    "Qwen3ForCausalLM": Architecture(gguf.MODEL_ARCH.QWEN3, _BOTH, _common, _as_is),
    "Qwen3MoeForCausalLM": _qwen_moe_of(gguf.MODEL_ARCH.QWEN3MOE, normalised=True),
    "Qwen2VLTextModel": _QWEN2_VL,
    "Qwen2_5_VLTextModel": _QWEN2_VL,
    "GemmaForCausalLM": _gemma_of(gguf.MODEL_ARCH.GEMMA, ("sentencepiece",), _gemma, **_FIRST_GEMMAS),
    "Gemma2ForCausalLM": _gemma_of(gguf.MODEL_ARCH.GEMMA2, ("sentencepiece",), _gemma2, **_FIRST_GEMMAS),
    "Gemma3ForCausalLM": _gemma_of(gguf.MODEL_ARCH.GEMMA3, _BOTH, _gemma3, refusal=_gemma_scale),
    "Phi3ForCausalLM": Architecture(
        gguf.MODEL_ARCH.PHI3, _BOTH, _phi3, _as_is, _phi3_factors, scalings=("longrope", "su")
    ),
    "GPT2LMHeadModel": Architecture(
        gguf.MODEL_ARCH.GPT2,
        ("bpe",),
        _gpt2,
        _gpt2_weights,
        activations=_GELU,
        dropped=(".attn.bias", ".attn.masked_bias"),
    ),
}
