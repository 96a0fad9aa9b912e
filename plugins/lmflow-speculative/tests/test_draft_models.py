"""Draft models: what they learn, what is cut and kept, what is refused, and that answers stay the model's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from lmflow_core.api import IGNORE, EncodedExample, EncodedSequence, TrainingState
from lmflow_core.testing.tiny import make_tiny_model
from lmflow_speculative.caching import CachedNetwork
from lmflow_speculative.cutting import chosen_layers, cut
from lmflow_speculative.distillation import DistillationLoss
from lmflow_speculative.divergence import chunked_divergence
from lmflow_speculative.drafters import NetworkDrafter
from lmflow_speculative.frequent import VOCABULARY_FILE, FrequentTokens, keep_rows
from lmflow_speculative.networks import parameters
from lmflow_speculative.options import DraftOptions
from lmflow_speculative.sampling_rule import SamplingRule
from lmflow_transformers.api import Head, SamplingOptions, collate, using_attention
from lmflow_transformers.attention import SdpaAttention
from lmflow_transformers.processing import sampling_processors

LAYERS = 4
Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("whole") / "model", layers=LAYERS, initializer_range=0.15)


@pytest.fixture
def data(write_rows: Callable[..., Path]) -> Path:
    pytest.importorskip("lmflow_datasets", reason="rows are read by the plugin that knows their form")
    said = ("the quick brown fox", "the lazy dog", "the capital of France is Paris", "the river Seine")
    talks = [
        [{"role": "user", "content": f"what {text}"}, {"role": "assistant", "content": f"{text}. " * 3}]
        for text in said * 8
    ]
    return write_rows([{"messages": talk} for talk in talks], "rows.jsonl")


def _distilled(cli: Cli, model: Path, data: Path, output: Path, *others: object) -> Any:
    asked = ("--model", model, "--dataset", data, "--output", output, "--draft-layers", 2, "--batch-size", 4)
    return cli("distill-draft", *asked, "--epochs", 3, "--logging-steps", 2, "--lr", "3e-3", *others)


# What is learned.


def _heads(bias: bool, softcap: float | None, scale: float) -> tuple[Head, Head]:
    torch.manual_seed(0)

    def made(size: int, cap: float | None) -> Head:
        offset = torch.randn(37, requires_grad=True) if bias else None
        return Head(torch.randn(37, size, requires_grad=True), offset, scale, cap)

    return made(8, softcap), made(12, None)


@pytest.mark.parametrize(("bias", "softcap", "scale"), [(False, None, 1.0), (True, None, 0.5), (True, 3.0, 2.0)])
@pytest.mark.parametrize("chunk", [1, 7, 23, 100])
def test_the_divergence_and_its_gradients_are_those_of_whole_logits(
    bias: bool, softcap: float | None, scale: float, chunk: int
) -> None:
    own, teacher = _heads(bias, softcap, scale)
    hidden, wanted = torch.randn(23, 8, requires_grad=True), torch.randn(23, 12)
    learned = [tensor for tensor in (hidden, own.weight, own.bias) if tensor is not None]
    reference = torch.nn.functional.kl_div(
        own.logits(hidden).log_softmax(-1), teacher.logits(wanted).log_softmax(-1), reduction="sum", log_target=True
    )
    expected = torch.autograd.grad(3 * reference, learned)
    loss = chunked_divergence(hidden, wanted, own, teacher, chunk)
    torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(torch.autograd.grad(3 * loss, learned), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_model_has_no_divergence_from_itself() -> None:
    head, _ = _heads(True, None, 1.0)
    hidden = torch.randn(9, 8, requires_grad=True)
    loss = chunked_divergence(hidden, hidden.detach(), head, head, 4)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-5)
    assert float(torch.autograd.grad(loss, hidden)[0].abs().max()) < 1e-5


def test_only_labelled_positions_of_a_packed_batch_count(model: Path) -> None:
    whole = LlamaForCausalLM.from_pretrained(model).eval()
    shorter, owned = cut(whole, [0, 3])
    examples = [
        EncodedSequence([5, 6, 7, 8], [IGNORE, 6, 7, IGNORE]),
        EncodedSequence([9, 10, 11], [IGNORE, IGNORE, 11]),
    ]
    expected = torch.zeros(())
    for example in examples:
        ids = torch.tensor([list(example.input_ids)])
        own, target = (each(ids, use_cache=False).logits[0].log_softmax(-1) for each in (shorter, whole))
        rows = [place for place, label in enumerate(example.labels[1:]) if label != IGNORE]
        expected = expected + (target[rows].exp() * (target[rows] - own[rows])).sum()
    wanted = torch.autograd.grad(expected / 3, owned)
    packed = SdpaAttention().implementation("cpu")
    batch = collate([EncodedExample((example,)) for example in examples])
    distillation = DistillationLoss(whole, 2)
    assert (distillation.unit, distillation.units(batch)) == ("tokens", 3)
    with using_attention(whole, packed), using_attention(shorter, packed):
        loss = distillation(shorter, batch).total / 3
    torch.testing.assert_close(loss, expected / 3, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(torch.autograd.grad(loss, owned), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


# What is cut and kept.


def test_layers_are_the_first_or_spread_from_end_to_end() -> None:
    assert chosen_layers(30, DraftOptions()) == [0, 1, 2]
    assert chosen_layers(5, DraftOptions()) == [0]
    assert chosen_layers(30, DraftOptions(draft_layers=4, draft_layers_from="spread")) == [0, 10, 19, 29]
    assert chosen_layers(30, DraftOptions(draft_layers=1, draft_layers_from="spread")) == [0]


def test_a_cut_model_is_what_transformers_makes_of_its_files(model: Path, tmp_path: Path) -> None:
    whole = LlamaForCausalLM.from_pretrained(model).eval()
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    shorter, owned = cut(whole, [0, 3])
    shorter.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    assert len(again.model.layers) == again.config.num_hidden_layers == 2
    torch.testing.assert_close(again(ids).logits, shorter(ids, use_cache=False).logits)
    # Cached passes find the keys and values of each layer under its new number.
    assert again.generate(ids, max_new_tokens=8).tolist() == shorter.generate(ids, max_new_tokens=8).tolist()
    assert torch.equal(again.model.layers[1].mlp.up_proj.weight, before["model.layers.3.mlp.up_proj.weight"])
    with torch.no_grad():
        for parameter in owned:
            parameter.fill_(0.5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in whole.state_dict().items())
    assert (whole.config.num_hidden_layers, len(whole.model.layers)) == (LAYERS, LAYERS)
    assert shorter.get_input_embeddings() is whole.get_input_embeddings()


def test_a_layers_kind_goes_with_it(tmp_path: Path) -> None:
    config = Gemma2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=4,
    )
    shorter, _ = cut(Gemma2ForCausalLM(config).eval(), [1, 2])
    assert shorter.config.layer_types == [config.layer_types[1], config.layer_types[2]]
    shorter.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.arange(3, 20)[None]
    torch.testing.assert_close(again(ids).logits, shorter(ids, use_cache=False).logits)


def test_embeddings_and_head_stay_and_layers_learn(model: Path, data: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    output = tmp_path / "draft"
    told = _distilled(lmflow_cli, model, data, output, "--eval-share", 0.25, "--json").json()
    for kind in ("losses", "validation_losses"):
        losses = [loss for _, loss in told[kind]]
        assert losses[-1] < 0.9 * losses[0], kind
    assert (told["options"]["objective"], told["options"]["tuner"]) == ("distillation", "draft")
    whole, draft = (AutoModelForCausalLM.from_pretrained(folder) for folder in (model, output))
    assert draft.config.num_hidden_layers == 2
    assert torch.equal(whole.model.embed_tokens.weight, draft.model.embed_tokens.weight)
    assert not torch.equal(whole.model.layers[0].mlp.up_proj.weight, draft.model.layers[0].mlp.up_proj.weight)
    assert not torch.equal(whole.model.norm.weight, draft.model.norm.weight)
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (model, output)]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()
    talk = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]
    first, second = (tokenizer.apply_chat_template(talk, tokenize=False) for tokenizer in tokenizers)
    assert first == second


@pytest.mark.parametrize("vocabulary", [(), ("--draft-vocabulary", 20)], ids=["all-tokens", "frequent-tokens"])
def test_a_draft_model_drafts_and_answers_stay_the_same(
    vocabulary: tuple[object, ...], model: Path, data: Path, tmp_path: Path, lmflow_cli: Cli
) -> None:
    output = tmp_path / "draft"
    assert _distilled(lmflow_cli, model, data, output, *vocabulary).status == 0
    AutoModelForCausalLM.from_pretrained(output)
    accepted = 0
    for prompt in ("what the lazy dog", "hello", "the quick"):
        asked = ("generate", "--model", model, "--prompt", prompt, "--max-new-tokens", 40, "--json")
        plain = lmflow_cli(*asked).json()
        told = lmflow_cli(*asked, "--decoder", "speculative", "--draft-model", output).json()
        assert told["text"] == plain["text"]
        assert told["drafted"] > 0
        accepted += told["accepted"]
    # What the model says to the prompts is not what it learned to draft frequent tokens for.
    assert accepted > 0 or vocabulary


def test_a_run_goes_on_where_it_stopped(model: Path, data: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    several = ("--save-steps", 6)
    whole = _distilled(lmflow_cli, model, data, straight, *several, "--json").json()
    _distilled(lmflow_cli, model, data, resumed, *several)
    last = sorted((resumed / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))[-1]
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    again = _distilled(lmflow_cli, model, data, resumed, *several, "--resume", "--json").json()
    assert again["losses"][-1] == pytest.approx(whole["losses"][-1])
    ends = [AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (straight, resumed)]
    for name, tensor in ends[0].items():
        torch.testing.assert_close(ends[1][name], tensor)


def test_a_named_teacher_teaches_a_whole_model(model: Path, data: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    pupil = make_tiny_model(tmp_path / "pupil", seed=9)
    told = lmflow_cli(
        *("finetune", "--model", pupil, "--dataset", data, "--output", tmp_path / "out", "--objective", "distillation"),
        *("--teacher", model, "--lr", "3e-3", "--batch-size", 4, "--epochs", 3, "--logging-steps", 2, "--json"),
    ).json()
    losses = [loss for _, loss in told["losses"]]
    assert losses[-1] < 0.7 * losses[0]


def test_the_most_frequent_learned_tokens_are_kept(tmp_path: Path) -> None:
    counted = FrequentTokens(2)
    pair = EncodedExample((EncodedSequence([1, 2], [7, 9]), EncodedSequence([1], [5])))
    data = [EncodedExample((EncodedSequence([1, 2, 3], [IGNORE, 7, 5]),)), pair]
    counted.on_start(TrainingState(step=0, optimizer=None, data=data))
    counted.write(tmp_path)
    assert json.loads((tmp_path / VOCABULARY_FILE).read_text()) == {"tokens": [5, 7]}


def test_only_kept_tokens_are_drafted(model: Path) -> None:
    network = LlamaForCausalLM.from_pretrained(model).eval()
    tokens = [3, 20, 90, 300]
    whole = network(torch.tensor([[5, 6]])).logits[0, -1].detach()
    embeddings = network.get_input_embeddings().weight
    keep_rows(network, tokens)
    assert network.get_input_embeddings().weight is embeddings
    torch.testing.assert_close(network(torch.tensor([[5, 6]])).logits[0, -1].detach(), whole[tokens])
    for temperature in (0.0, 1.0):
        processors = sampling_processors(SamplingOptions(temperature=temperature))
        rule = SamplingRule(processors, temperature == 0, torch.Generator().manual_seed(0))
        drafter = NetworkDrafter(CachedNetwork(network, torch.device("cpu")), rule, 400, 0.1, tokens)
        with torch.inference_mode():
            draft = drafter.draft([5, 6], 8)
        assert set(draft.tokens) <= set(tokens)
        assert draft.tokens[0] == tokens[int(whole[tokens].argmax())] or temperature


def test_embeddings_that_are_no_head_cost_nothing(model: Path) -> None:
    tied = LlamaForCausalLM.from_pretrained(model)
    apart = LlamaForCausalLM.from_pretrained(model, tie_word_embeddings=False)
    assert parameters(tied) == parameters(apart) == sum(parameter.numel() for parameter in tied.parameters())


# What is refused, before anything is read or written.


def _refused(cli: Cli, output: Path, *arguments: object) -> str:
    result = cli("distill-draft", "--output", output, *arguments)
    assert result.status != 0
    assert not output.exists()
    message: str = result.stderr
    assert "examples" not in message  # the data was not read
    return message


def test_as_many_layers_as_the_model_has_are_refused(model: Path, data: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    told = _refused(lmflow_cli, tmp_path / "out", "--model", model, "--dataset", data, "--draft-layers", LAYERS)
    assert f"--draft-layers {LAYERS}: the model has {LAYERS} layers; keep fewer" in told


def test_kinds_of_models_that_cannot_be_cut_are_refused(data: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    gpt2 = make_tiny_model(tmp_path / "gpt2")
    GPT2LMHeadModel(GPT2Config(vocab_size=400, n_embd=16, n_layer=3, n_head=2)).save_pretrained(gpt2)
    told = _refused(lmflow_cli, tmp_path / "out", "--model", gpt2, "--dataset", data)
    assert "a gpt2 model has no list of layers to cut short" in told
    moe = make_tiny_model(tmp_path / "moe")
    config = Qwen3MoeConfig(
        vocab_size=400,
        hidden_size=16,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_experts=2,
        num_experts_per_tok=1,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        mlp_only_layers=[3],
    )
    Qwen3MoeForCausalLM(config).save_pretrained(moe)
    asked = ("--model", moe, "--dataset", data, "--draft-layers", 2, "--draft-layers-from", "spread")
    assert "the layers of a qwen3_moe model depend on their place" in _refused(lmflow_cli, tmp_path / "out", *asked)


def test_a_teacher_is_needed_and_must_mean_the_same(model: Path, data: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    asked = ("--model", model, "--dataset", data)
    told = _refused(lmflow_cli, tmp_path / "out", *asked, "--tuner", "full")
    assert "--objective distillation needs --teacher REF" in told
    other = make_tiny_model(tmp_path / "other")
    file = other / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace("<|endoftext|>", "<|other|>"), encoding="utf-8")
    told = _refused(lmflow_cli, tmp_path / "out", *asked, "--teacher", other)
    assert f"--teacher {other}" in told
    assert "choose one with the tokenizer of the model" in told
    told = _refused(lmflow_cli, tmp_path / "out", *asked, "--teacher", tmp_path / "nothing")
    assert "no such folder" in told


def test_an_output_that_is_taken_is_refused(model: Path, data: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("x")
    result = _distilled(lmflow_cli, model, data, taken)
    assert result.status != 0
    assert "already holds files" in result.stderr


@pytest.mark.parametrize("content", ['{"tokens": [1, 400]}', '{"tokens": [1, 1]}', '{"tokens": []}', "[1]", "no"])
def test_a_broken_list_of_tokens_is_told(content: str, model: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    draft = make_tiny_model(tmp_path / "draft")
    (draft / VOCABULARY_FILE).write_text(content, encoding="utf-8")
    asked = ("generate", "--model", model, "--prompt", "hello", "--decoder", "speculative", "--draft-model", draft)
    result = lmflow_cli(*asked)
    assert result.status == 2
    assert f"{VOCABULARY_FILE} is no list of the draft model's tokens" in result.stderr
