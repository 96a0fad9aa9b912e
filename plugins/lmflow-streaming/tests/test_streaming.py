"""The window against a plain, slow reference: every token's attention written out, with what it sees and where."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AttentionInterface,
    AutoConfig,
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    GPT2Config,
    GPTJConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lmflow_core.api import DecodeStep, DecodingRequest, ModelSettings, RequestError
from lmflow_core.testing.fixtures import CliResult
from lmflow_core.testing.tiny import make_tiny_model
from lmflow_streaming.decoder import StreamingDecoder, open_window
from lmflow_streaming.options import StreamingOptions
from lmflow_streaming.rotation import rotations
from lmflow_streaming.window import Window
from lmflow_transformers.api import CausalModel, CausalModelLoader, SamplingOptions, register_attention
from lmflow_transformers.sampling import SamplingDecoder

_SHAPE: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
_LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
# By name: model type, values of the configuration, and whether neighbouring features turn together.
_ARCHITECTURES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "llama": ("llama", {}, False),
    "llama-yarn": ("llama", {"rope_parameters": _YARN}, False),
    "llama-llama3": ("llama", {"rope_parameters": _LLAMA3}, False),
    "llama-linear": ("llama", {"rope_parameters": _LINEAR}, False),
    "qwen2": ("qwen2", {}, False),
    "qwen3": ("qwen3", {"head_dim": 16}, False),
    "phi, half of a head": ("phi", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, False),
    "gpt_neox, a quarter": ("gpt_neox", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.25}}, False),
    "cohere, neighbours": ("cohere", {}, True),
    "glm, neighbours and half": ("glm", {"head_dim": 16}, True),
    "olmo2": ("olmo2", {}, False),
    "granite": ("granite", {}, False),
    "smollm3, a layer without": ("smollm3", {"no_rope_layers": [1, 0, 1], "use_sliding_window": False}, False),
}
_WINDOWS = ((12, 3), (16, 4), (8, 0), (5, 4), (1, 0), (40, 20))

each_architecture = pytest.mark.parametrize("name", _ARCHITECTURES)


def _network(config: Any, seed: int = 0) -> Any:
    """Return a random network whose attention is far from even, so that positions matter."""
    torch.manual_seed(seed)
    network = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.25)
    return network


def _config(name: str) -> Any:
    model_type, values, _ = _ARCHITECTURES[name]
    return AutoConfig.for_model(model_type, **{**_SHAPE, **values})


class _Opened:
    """A model as far as a decoder looks at it."""

    def __init__(self, network: Any, context: int | None = 64) -> None:
        self.reference = "tiny"
        self.network = self.base = network
        self.device = torch.device("cpu")
        self.context_length = context
        self.media_ids: frozenset[int] = frozenset()


def _model(name: str) -> Any:
    return _Opened(_network(_config(name)))


def _ids(length: int, seed: int = 1) -> list[int]:
    return torch.randint(3, 96, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def _read(model: Any, ids: Sequence[int], parts: Sequence[int], size: int, sinks: int) -> torch.Tensor:
    """Return the logits behind every token, read in parts."""
    window = open_window(model, size, sinks)
    with torch.inference_mode():
        pieces = torch.tensor([list(ids)]).split(list(parts), dim=1)
        return torch.cat([logits for piece in pieces for logits in window.passes(piece, every=True)])


class _Reference:
    """A model's attention written out: for each token what it sees, each at its place in the window."""

    def __init__(self, network: Any, size: int, sinks: int, *, neighbours: bool, moved: bool = True) -> None:
        self.network, self.size, self.sinks, self.neighbours, self.moved = network, size, sinks, neighbours, moved
        text = network.config.get_text_config()
        kind = text.rope_parameters.get("rope_type", "default")
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        if kind == "default":
            turning = int(head * text.rope_parameters.get("partial_rotary_factor", 1.0))
            self.frequencies = text.rope_parameters["rope_theta"] ** (-torch.arange(0, turning, 2).double() / turning)
        else:
            self.frequencies = ROPE_INIT_FUNCTIONS[kind](text, torch.device("cpu"))[0].double()

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """Return the logits behind every token of a text, computed from nothing."""
        AttentionInterface.register("written_out", self._attend)
        own = self.network.config._attn_implementation
        self.network.set_attn_implementation("written_out")
        try:
            with torch.no_grad():
                # At position 0 nothing is rotated yet.
                zeros = torch.zeros(1, len(ids), dtype=torch.long)
                mask = torch.zeros(1, 1, 1, 1)
                return self.network(
                    input_ids=torch.tensor([list(ids)]), position_ids=zeros, attention_mask=mask, use_cache=False
                ).logits[0]
        finally:
            self.network.set_attn_implementation(own)

    def _attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **others: Any
    ) -> tuple[torch.Tensor, None]:
        scaling = others.get("scaling") or query.shape[-1] ** -0.5
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        rows = [self._row(module, query, key, value, token, scaling) for token in range(query.shape[2])]
        return torch.stack(rows, dim=1), None

    def _row(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, token: int, scaling: float
    ) -> torch.Tensor:
        last = self.size - self.sinks
        seen = [other for other in range(token + 1) if other < self.sinks or other > token - last]
        places = list(range(len(seen))) if self.moved else seen
        rotates = bool(getattr(module, "use_rope", True))
        turned = self._turn(key[0, :, seen], places, rotates)
        asked = self._turn(query[0, :, token : token + 1], places[-1:], rotates)
        weights = (torch.einsum("hqd,hsd->hs", asked, turned) * scaling).softmax(-1)
        return torch.einsum("hs,hsd->hd", weights, value[0, :, seen].double())[None].to(value.dtype)

    def _turn(self, states: torch.Tensor, places: list[int], rotates: bool) -> torch.Tensor:
        """Rotate states (heads, tokens, head size), each token's to its place: pairs of features as complex numbers."""
        result = states.double().clone()
        if not rotates:
            return result
        pair, count = torch.arange(len(self.frequencies)), len(self.frequencies)
        one, two = (2 * pair, 2 * pair + 1) if self.neighbours else (pair, pair + count)
        turns = torch.exp(1j * torch.tensor(places)[:, None] * self.frequencies)
        both = torch.complex(result[..., one], result[..., two]) * turns
        result[..., one], result[..., two] = both.real, both.imag
        return result


def _reference(model: Any, name: str, size: int, sinks: int, **changes: Any) -> _Reference:
    return _Reference(model.network, size, sinks, neighbours=_ARCHITECTURES[name][2], **changes)


@each_architecture
@pytest.mark.parametrize(("size", "sinks"), _WINDOWS[:3])
def test_logits_equal_the_reference_however_a_text_is_cut(name: str, size: int, sinks: int) -> None:
    model, ids = _model(name), _ids(45)
    expected = _reference(model, name, size, sinks).logits(ids)
    for parts in ([45], [1] * 45, [7, 1, 20, 17]):
        torch.testing.assert_close(_read(model, ids, parts, size, sinks), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("size", "sinks"), _WINDOWS)
def test_every_form_of_window_equals_the_reference(size: int, sinks: int) -> None:
    model, ids = _model("llama"), _ids(90)
    expected = _reference(model, "llama", size, sinks).logits(ids)
    for parts in ([90], [1] * 90, [44, 1, 45]):
        torch.testing.assert_close(_read(model, ids, parts, size, sinks), expected, atol=1e-4, rtol=1e-4)


def test_the_reference_can_tell_a_wrong_place_of_the_sinks() -> None:
    model, ids = _model("llama"), _ids(45)
    right = _reference(model, "llama", 12, 3).logits(ids)
    where_they_were = _reference(model, "llama", 12, 3, moved=False).logits(ids)
    torch.testing.assert_close(right[:12], where_they_were[:12], atol=1e-4, rtol=1e-4)
    assert (right[12:] - where_they_were[12:]).abs().max() > 0.05


def test_nothing_adds_up_over_a_long_text() -> None:
    model, ids = _model("llama"), _ids(600)
    expected = _reference(model, "llama", 8, 2).logits(ids)
    torch.testing.assert_close(_read(model, ids, [250, *[1] * 100, 250], 8, 2), expected, atol=1e-4, rtol=1e-4)


@each_architecture
def test_greedy_answers_are_those_of_the_reference(name: str) -> None:
    model, prompt = _model(name), _ids(20)
    reference, text = _reference(model, name, 12, 3), list(prompt)
    for _ in range(12):
        text.append(int(reference.logits(text)[-1].argmax()))
    assert _tokens(_steps(model, prompt, 12, attention_window=12, attention_sinks=3)) == text[20:]


def test_a_model_of_one_layer_answers_as_to_the_shortened_text_alone() -> None:
    """Its keys know of no other token, so reading anew what the window shows must give the same."""
    model = _Opened(_network(LlamaConfig(**{**_SHAPE, "num_hidden_layers": 1})))
    ids = _ids(50)
    logits = _read(model, ids, [50], 16, 4)
    for length in (16, 17, 30, 50):
        shown = ids[:4] + ids[4:length][-12:]
        with torch.no_grad():
            expected = model.network(input_ids=torch.tensor([shown])).logits[0, -1]
        torch.testing.assert_close(logits[length - 1], expected, atol=1e-5, rtol=1e-5)


def _steps(model: Any, prompt: Sequence[int], count: int, seed: int = 0, **options: Any) -> list[DecodeStep]:
    decoder = StreamingDecoder(StreamingOptions(**options))
    return list(decoder.decode(model, DecodingRequest(prompt, count, seed=seed)))


def _tokens(steps: Sequence[DecodeStep]) -> list[int]:
    return [token for step in steps for token in step.ids]


@each_architecture
def test_a_text_that_fits_is_read_exactly_as_by_sampling(name: str) -> None:
    model, prompt = _model(name), _ids(20)
    values: dict[str, Any] = {"temperature": 0.9, "top_p": 0.95, "repetition_penalty": 1.1, "logprobs": 5}
    plain = SamplingDecoder(SamplingOptions(**values))
    expected = list(plain.decode(model, DecodingRequest(prompt, 21, seed=3)))
    # Bit by bit: the last token sampled is not read, so 40 tokens fit a window of 40.
    assert _steps(model, prompt, 21, seed=3, attention_window=40, **values) == expected


def test_what_is_dropped_is_counted_where_it_happens() -> None:
    model = _model("llama")
    dropped = [step.dropped for step in _steps(model, _ids(10), 9, attention_window=12, attention_sinks=2)]
    assert dropped == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert [step.dropped for step in _steps(model, _ids(30), 3, attention_window=12)] == [18, 1, 1]


def test_a_conversation_that_goes_on_is_not_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompt = _model("llama"), _ids(30)
    decoder = StreamingDecoder(StreamingOptions(attention_window=12, attention_sinks=2, logprobs=3))
    read: list[int] = []
    passes = Window.passes

    def watched(window: Window, ids: torch.Tensor, **how: Any) -> Iterator[torch.Tensor]:
        read.append(ids.shape[1])
        return passes(window, ids, **how)

    monkeypatch.setattr(Window, "passes", watched)

    def answer(text: Sequence[int], by: StreamingDecoder) -> list[DecodeStep]:
        read.clear()
        return list(by.decode(model, DecodingRequest(text, 5)))

    first = answer(prompt, decoder)
    assert read == [30, 1, 1, 1, 1]
    longer = [*prompt, *_tokens(first), *_ids(8, seed=2)]
    second = answer(longer, decoder)
    # The last token sampled was not read yet.
    assert read == [9, 1, 1, 1, 1]
    anew = answer(longer, StreamingDecoder(decoder._options))
    assert _tokens(second) == _tokens(anew)
    assert [step.dropped for step in second] == [step.dropped for step in anew] == [43 - 12, 1, 1, 1, 1]
    for one, other in zip(second, anew, strict=True):
        assert one.logprobs[0].logprob == pytest.approx(other.logprobs[0].logprob, abs=1e-4)
    answer([3, *longer[1:]], decoder)
    assert read[0] == 43
    # Within the window everything is read anew, so that it stays that of sampling to the last bit.
    short = answer(_ids(4), decoder)
    answer([*_ids(4), *_tokens(short), 7], decoder)
    assert read[0] == 10


def test_a_pass_that_failed_is_not_gone_on_with() -> None:
    model, prompt = _model("llama"), _ids(30)
    decoder = StreamingDecoder(StreamingOptions(attention_window=12, attention_sinks=2))
    steps = decoder.decode(model, DecodingRequest(prompt, 5))
    sampled_ids = [*next(steps).ids, *next(steps).ids]
    network, model.network = model.network, None
    with pytest.raises(AttributeError):
        next(steps)
    model.network = network
    longer = [*prompt, *sampled_ids, 5]
    again = list(decoder.decode(model, DecodingRequest(longer, 5)))
    assert _tokens(again) == _tokens(_steps(model, longer, 5, attention_window=12, attention_sinks=2))


def test_memory_does_not_grow_with_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model("llama")
    shown: list[tuple[int, int]] = []

    def watch(*arguments: Any, **others: Any) -> Any:
        _, query, key = arguments[:3]
        shown.append((query.shape[2], key.shape[2]))
        return own(*arguments, **others)

    own = AttentionInterface().get_interface("sdpa", None)
    AttentionInterface.register("watched_sdpa", watch)
    window = open_window(model, 32, 4)
    model.network.set_attn_implementation("watched_sdpa")
    with torch.inference_mode():
        window.read(torch.tensor([_ids(2000)]))
    assert max(rows for rows, _ in shown) == 32
    assert max(keys for _, keys in shown) <= 3 * 32
    assert max(layer.keys.shape[2] for layer in window._cache.layers) <= 2 * 32
    assert window.dropped == 2000 - 32


def test_bfloat16_is_measured_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    network = _network(LlamaConfig(**_SHAPE)).to(torch.bfloat16)
    model: Any = _Opened(network)
    assert all(found is not None for found in rotations(model))
    one = _read(model, _ids(60), [60], 12, 3).float()
    network.float()
    two = _read(model, _ids(60), [60], 12, 3)
    assert (one - two).norm() / two.norm() < 0.1


_REFUSED: dict[str, tuple[Any, str]] = {
    "absolute": (GPT2Config(vocab_size=96, n_embd=32, n_layer=1, n_head=2), "no rotary embeddings"),
    "alibi": (BloomConfig(vocab_size=96, hidden_size=32, n_layer=1, n_head=2), "no rotary embeddings"),
    "a table of its own": (GPTJConfig(vocab_size=96, n_embd=32, n_layer=1, n_head=2, rotary_dim=8), "no rotary"),
    "sliding": (MistralConfig(**_SHAPE, sliding_window=8), "a window or a state of their own"),
    "hybrid": (Gemma3TextConfig(**_SHAPE, head_dim=8, sliding_window=8), "a window or a state of their own"),
    "running state": (
        MambaConfig(vocab_size=96, hidden_size=32, num_hidden_layers=1, state_size=4),
        "a window or a state of their own",
    ),
    "dynamic": (
        LlamaConfig(**_SHAPE, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
        "depend on the length of the text",
    ),
    "heads of two parts": (
        AutoConfig.for_model(
            "deepseek_v3",
            **{**_SHAPE, "num_key_value_heads": 4},
            q_lora_rank=8,
            kv_lora_rank=8,
            qk_rope_head_dim=8,
            qk_nope_head_dim=8,
            v_head_dim=8,
            first_k_dense_replace=3,
        ),
        "does not rotate the keys of .* in a way that is known",
    ),
}


@pytest.mark.parametrize("kind", _REFUSED)
def test_models_that_cannot_be_read_so_are_refused(kind: str) -> None:
    config, message = _REFUSED[kind]
    model = _Opened(AutoModelForCausalLM.from_config(config).eval())
    with pytest.raises(RequestError, match=message):
        _steps(model, [5, 6, 7], 1, attention_window=32)


def test_windows_that_make_no_sense_are_refused() -> None:
    model = _model("llama")
    with pytest.raises(RequestError, match="made for 64 tokens; take at most as many"):
        open_window(model, 65, 4)
    with pytest.raises(RequestError, match="must be smaller than the window, which is 64 tokens"):
        open_window(model, None, 64)
    with pytest.raises(RequestError, match="does not tell its context: add --attention-window N"):
        open_window(_Opened(model.network, None), None, 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="--attention-sinks 4 must be smaller than --attention-window 4"):
        StreamingOptions(attention_window=4)
    model.network.set_attn_implementation("eager")
    assert open_window(model, None, 4).dropped == 0
    model.network.set_attn_implementation(register_attention("ignores_the_mask", lambda *_, **__: None))  # type: ignore[arg-type, return-value]
    with pytest.raises(RequestError, match="--attention takes no attention mask"):
        open_window(model, None, 4)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a model whose context is 64 tokens."""
    return make_tiny_model(tmp_path_factory.mktemp("small") / "model", max_position_embeddings=64)


def test_generate_goes_on_beyond_the_context_and_tells_what_it_dropped(
    lmflow_cli: Callable[..., CliResult], small: Path
) -> None:
    asked = ("--model", small, "--decoder", "streaming", "--attention-window", 24, "--max-new-tokens", 100, "--raw")
    prompt = "the lazy dog does not mind at all, " * 10
    told = lmflow_cli("generate", *asked, "--prompt", prompt, "--json").json()
    assert told["prompt_tokens"] > 64
    assert told["tokens"] == 100 or told["finish_reason"] == "stop"
    # The last token sampled is not read.
    assert told["dropped_tokens"] == told["prompt_tokens"] + told["tokens"] - 1 - 24
    written = lmflow_cli("generate", *asked, "--prompt", prompt)
    assert f"{told['dropped_tokens']} tokens between the first and the last are outside" in written.stderr
    short = lmflow_cli("generate", *asked[:-3], "--max-new-tokens", 2, "--prompt", "a", "--json").json()
    assert "dropped_tokens" not in short


def test_a_file_of_prompts_longer_than_the_context_is_answered(
    lmflow_cli: Callable[..., CliResult], small: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("dog " * 100 + "\nthe fox\n", encoding="utf-8")
    asked = ("--prompts", prompts, "--raw", "--max-new-tokens", 8)
    refused = lmflow_cli("generate", "--model", small, *asked, "--output", tmp_path / "plain.jsonl")
    assert refused.status == 1
    output = tmp_path / "answers.jsonl"
    done = lmflow_cli("generate", "--model", small, *asked, "--output", output, "--decoder", "streaming")
    assert done.status == 0
    long, short = map(json.loads, output.read_text(encoding="utf-8").splitlines())
    assert long["dropped_tokens"] == long["prompt_tokens"] + long["tokens"] - 1 - 64
    assert "dropped_tokens" not in short


def test_chat_keeps_every_turn_and_tells_what_is_out_of_sight(
    lmflow_cli: Callable[..., CliResult], small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def typed() -> Iterator[str]:
        yield from ["the quick brown fox jumps over the lazy dog"] * 4
        while True:
            yield "/exit"

    lines = typed()
    monkeypatch.setattr("builtins.input", lambda *_: next(lines))
    talked = lmflow_cli("chat", "--model", small, "--decoder", "streaming", "--max-new-tokens", 30, "--temperature", 1)
    assert talked.status == 0
    assert "tokens between the first and the last are outside the attention window" in talked.stderr
    assert "left out" not in talked.stderr


def test_errors_on_the_command_line(lmflow_cli: Callable[..., CliResult], small: Path) -> None:
    asked = ("generate", "--model", small, "--prompt", "hello", "--attention-window")
    assert "--attention-window belongs to decoder 'streaming': add --decoder streaming" in lmflow_cli(*asked, 8).stderr
    large = lmflow_cli(*asked, 65, "--decoder", "streaming")
    assert large.status == 2
    assert "was made for 64 tokens" in large.stderr
    small_window = lmflow_cli(*asked, 4, "--decoder", "streaming")
    assert (small_window.status, "must be smaller than --attention-window 4" in small_window.stderr) == (2, True)


def test_an_adapter_is_read_through(small: Path) -> None:
    peft = pytest.importorskip("peft")
    opened: CausalModel = CausalModelLoader().open(str(small), ModelSettings(model="tiny", device="cpu"))
    opened.load()
    plain = _tokens(_steps(opened, _ids(30), 20, attention_window=16))
    opened.network = peft.get_peft_model(opened.network, peft.LoraConfig(target_modules=["q_proj"])).eval()
    assert _tokens(_steps(opened, _ids(30), 20, attention_window=16)) == plain
