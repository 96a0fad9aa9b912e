"""Decoders with drafts against plain sampling and against the enumerated distribution of a model of six tokens."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM, MistralConfig, MistralForCausalLM

from lmflow_core.api import DecodeStep, DecodingRequest, ModelError, ModelSettings, RequestError
from lmflow_core.config.request import resolve
from lmflow_core.config.schema import CHAT
from lmflow_core.generation.chat_model import open_chat_model
from lmflow_core.generation.second_models import Models
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.tiny import make_tiny_model
from lmflow_speculative.caching import CachedNetwork
from lmflow_speculative.checking import checked
from lmflow_speculative.decoders import DraftModelDecoder, PromptLookupDecoder, SelfSpeculativeDecoder
from lmflow_speculative.drafters import LookupDrafter, NetworkDrafter
from lmflow_speculative.drafts import Draft
from lmflow_speculative.networks import first_layers
from lmflow_speculative.options import DraftModelOptions, PromptLookupOptions, SelfSpeculativeOptions
from lmflow_speculative.pace import Pace
from lmflow_speculative.sampling_rule import SamplingRule
from lmflow_transformers.api import CausalModel, CausalModelLoader, SamplingOptions
from lmflow_transformers.processing import sampling_processors
from lmflow_transformers.sampling import SamplingDecoder

NO_STOP: frozenset[int] = frozenset()
DECODERS = ("prompt-lookup", "speculative", "self-speculative")
MakeDecoder = Callable[..., Any]
SERVICES = Models(Catalogue.discover())


def _opened(folder: Path) -> CausalModel:
    model = CausalModelLoader().open(str(folder), ModelSettings(model=str(folder), device="cpu"))
    model.load()
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("large") / "model", layers=3, initializer_range=0.2)


@pytest.fixture(scope="module")
def model(folder: Path) -> CausalModel:
    return _opened(folder)


@pytest.fixture(scope="module")
def draft_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a draft model that agrees with the large one now and then: its weights with noise."""
    network = LlamaForCausalLM.from_pretrained(folder)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    made = tmp_path_factory.mktemp("draft") / "model"
    make_tiny_model(made)
    network.save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def make(draft_folder: Path) -> MakeDecoder:
    def made(name: str, **options: Any) -> Any:
        if name == "prompt-lookup":
            return PromptLookupDecoder(PromptLookupOptions(**options))
        if name == "speculative":
            return DraftModelDecoder(DraftModelOptions(draft_model=str(draft_folder), **options))
        return SelfSpeculativeDecoder(SelfSpeculativeOptions(draft_layers=2, **options))

    return made


def _prompt(source: random.Random) -> list[int]:
    """Return a random prompt; the parts of it come again, so that there is something to look up."""
    part = [source.randrange(3, 390) for _ in range(source.randrange(1, 12))]
    return part * source.randrange(1, 4) + part[: source.randrange(len(part))]


def _steps(decoder: Any, model: CausalModel, prompt: Sequence[int], count: int, **asked: Any) -> list[DecodeStep]:
    decoder.prepare(model, SERVICES)
    return list(decoder.decode(model, DecodingRequest(prompt, count, **asked)))


def _ids(steps: Sequence[DecodeStep]) -> list[int]:
    return [token for step in steps for token in step.ids]


@pytest.mark.parametrize("name", DECODERS)
def test_greedy_answers_are_those_of_plain_sampling(name: str, model: CausalModel, make: MakeDecoder) -> None:
    source = random.Random(name)
    accepted = 0
    for number in range(200):
        prompt = _prompt(source)
        penalty = 1.3 if number % 5 == 0 else 1.0
        stop = frozenset(source.sample(range(390), 20)) if number % 2 else NO_STOP
        count = source.randrange(1, 20)
        plain = SamplingDecoder(SamplingOptions(repetition_penalty=penalty))
        expected = _ids(_steps(plain, model, prompt, count, stop_ids=stop))
        steps = _steps(make(name, repetition_penalty=penalty), model, prompt, count, stop_ids=stop)
        assert _ids(steps) == expected
        assert all(step.passes == 1 and 0 <= step.accepted <= step.drafted for step in steps)
        assert all(len(step.ids) - 1 <= step.accepted <= len(step.ids) for step in steps)
        accepted += sum(step.accepted for step in steps)
    assert accepted > 100


class _Scripted:
    """Drafts what follows in a given text."""

    cost = 0.0

    def __init__(self, text: Sequence[int]) -> None:
        self.text = list(text)

    def draft(self, ids: Sequence[int], length: int) -> Draft:
        return Draft(self.text[len(ids) : len(ids) + length])


def _scripted(model: CausalModel, prompt: list[int], text: Sequence[int], count: int, stop: frozenset[int]) -> Any:
    options = SamplingOptions()
    rule = SamplingRule(sampling_processors(options), options.temperature == 0, torch.Generator())
    network = CachedNetwork(model.network, model.device)
    request = DecodingRequest(prompt, count, stop)
    with torch.inference_mode():
        return list(checked(network, _Scripted(text), rule, Pace(8, 0.0, quick=True), request, options))


def test_nothing_comes_behind_a_stop_inside_an_accepted_run(model: CausalModel) -> None:
    prompt = [10, 20, 30]
    greedy = _ids(_steps(SamplingDecoder(), model, prompt, 12))
    place = next(at for at in range(1, 3) if greedy[at] not in greedy[:at])
    stop = frozenset([greedy[place]])
    steps = _scripted(model, prompt, [*prompt, *greedy], 12, stop)
    assert [step.ids for step in steps] == [tuple(greedy[: place + 1])]
    assert (steps[0].drafted, steps[0].accepted) == (2, min(2, place + 1))


@pytest.mark.parametrize("count", range(1, 12))
def test_never_more_tokens_than_asked_for(model: CausalModel, count: int) -> None:
    prompt = [10, 20, 30]
    greedy = _ids(_steps(SamplingDecoder(), model, prompt, 20))
    steps = _scripted(model, prompt, [*prompt, *greedy], count, NO_STOP)
    assert _ids(steps) == greedy[:count]
    assert len(steps) < count or count == 1
    assert sum(step.accepted for step in steps) == count - len(steps)


def test_a_wrong_draft_costs_no_token(model: CausalModel) -> None:
    prompt = [10, 20, 30]
    greedy = _ids(_steps(SamplingDecoder(), model, prompt, 20))
    wrong = [(token + 1) % 390 for token in greedy]
    steps = _scripted(model, prompt, [*prompt, *wrong], 20, NO_STOP)
    assert _ids(steps) == greedy
    assert sum(step.accepted for step in steps) == 0


@pytest.mark.parametrize("name", DECODERS)
def test_a_seed_repeats_and_another_differs(name: str, model: CausalModel, make: MakeDecoder) -> None:
    decoder = make(name, temperature=1.0)
    first = _ids(_steps(decoder, model, [5, 6, 7, 5, 6], 20, seed=1))
    assert _ids(_steps(decoder, model, [5, 6, 7, 5, 6], 20, seed=1)) == first
    assert _ids(_steps(decoder, model, [5, 6, 7, 5, 6], 20, seed=2)) != first


@pytest.mark.parametrize("name", DECODERS)
def test_logprobs_are_those_of_the_model(name: str, model: CausalModel, make: MakeDecoder) -> None:
    prompt = [5, 6, 7, 5, 6]
    steps = _steps(make(name, logprobs=2, temperature=0.7), model, prompt, 16)
    ids = _ids(steps)
    told = [logprob for step in steps for logprob in step.logprobs]
    with torch.no_grad():
        rows = model.network(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    assert len(told) == 16
    for logprob, token, row in zip(told, ids, rows, strict=True):
        assert logprob.logprob == pytest.approx(float(row[token]), abs=1e-4)
        assert [token for token, _ in logprob.alternatives] == row.topk(2).indices.tolist()


@pytest.mark.parametrize("name", DECODERS)
def test_an_adapter_takes_part_in_drafts_and_checks(name: str, folder: Path, make: MakeDecoder) -> None:
    model = _opened(folder)
    before = _ids(_steps(SamplingDecoder(), model, [5, 6, 7], 20))
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model.network = get_peft_model(model.network, config).eval()
    expected = _ids(_steps(SamplingDecoder(), model, [5, 6, 7], 20))
    assert expected != before
    assert _ids(_steps(make(name), model, [5, 6, 7], 20)) == expected


def test_windows_forget_what_was_refused() -> None:
    """A sliding window much shorter than the text: what is cropped must come back."""
    torch.manual_seed(3)
    config = MistralConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
        initializer_range=0.3,
    )
    network = MistralForCausalLM(config).eval()
    model: Any = SimpleNamespace(network=network, base=network, device=torch.device("cpu"), reference="window")
    source = random.Random(0)
    for _ in range(30):
        prompt = [source.randrange(40) for _ in range(source.randrange(1, 30))]
        with torch.no_grad():
            expected = list(prompt)
            for _ in range(25):
                expected.append(
                    int(network(input_ids=torch.tensor([expected]), use_cache=False).logits[0, -1].argmax())
                )
        for decoder in (PromptLookupDecoder(), SelfSpeculativeDecoder(SelfSpeculativeOptions(draft_layers=2))):
            assert prompt + _ids(_steps(decoder, model, prompt, 25)) == expected


# Distributions: six tokens, so that every answer of three tokens can be enumerated.

VOCABULARY = 6
PROMPT = [1, 2, 3, 1, 2, 3, 1, 2]


def _small_network(seed: int, layers: int) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.35,
    )
    return LlamaForCausalLM(config).eval()


class _Remembering:
    """Gives the logits of a network from a full pass for each text, which it remembers; the loop is what is tested."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self._known: dict[tuple[int, ...], torch.Tensor] = {}

    def logits(self, ids: Sequence[int], count: int) -> torch.Tensor:
        return torch.stack([self._behind(tuple(ids[:end])) for end in range(len(ids) - count + 1, len(ids) + 1)])

    def _behind(self, ids: tuple[int, ...]) -> torch.Tensor:
        if ids not in self._known:
            with torch.no_grad():
                self._known[ids] = self._network(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        return self._known[ids]


LARGE = _small_network(0, 3)
TARGET: Any = _Remembering(LARGE)
SMALL: Any = _Remembering(_small_network(1, 1))
FIRST: Any = _Remembering(first_layers(LARGE, 2))
CPU = torch.device("cpu")
MakeDrafter = Callable[[SamplingRule], Any]
SAMPLES = 1000


def _lookup(rule: SamplingRule) -> Any:
    return LookupDrafter(3)


def _draft_network(rule: SamplingRule) -> Any:
    return NetworkDrafter(SMALL, rule, VOCABULARY, 0.0)


def _frequent_tokens(rule: SamplingRule) -> Any:
    """Draft from some of the tokens only, in an order of their own."""
    kept = [4, 0, 2]

    class Cut:
        def logits(self, ids: Sequence[int], count: int) -> torch.Tensor:
            found: torch.Tensor = SMALL.logits(ids, count)[:, kept]
            return found

    cut: Any = Cut()
    return NetworkDrafter(cut, rule, VOCABULARY, 0.0, kept)


def _own_layers(rule: SamplingRule) -> Any:
    return NetworkDrafter(FIRST, rule, VOCABULARY, 0.0)


DRAFTERS = {
    "prompt-lookup": _lookup,
    "speculative": _draft_network,
    "frequent-tokens": _frequent_tokens,
    "self-speculative": _own_layers,
}


def _exact(options: SamplingOptions, length: int) -> dict[tuple[int, ...], float]:
    """Return the probability of each answer, from a full pass for each beginning of one."""
    found: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(length):
        longer = {}
        for answer, probability in found.items():
            ids = [*PROMPT, *answer]
            scores = sampling_processors(options)(torch.tensor([ids]), TARGET.logits(ids, 1))
            for token, share in enumerate(scores.softmax(-1)[0].tolist()):
                longer[(*answer, token)] = probability * share
        found = longer
    return found


def _sampled(
    make_drafter: MakeDrafter, options: SamplingOptions, length: int, count: int = SAMPLES, cached: bool = False
) -> Iterator[tuple[int, ...]]:
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        rule = SamplingRule(sampling_processors(options), options.temperature == 0, generator)
        network = CachedNetwork(LARGE, CPU) if cached else TARGET
        request = DecodingRequest(PROMPT, length)
        with torch.inference_mode():
            steps = checked(network, make_drafter(rule), rule, Pace(4, 0.0, quick=True), request, options)
            yield tuple(_ids(list(steps)))


def _statistic(expected: dict[tuple[int, ...], float], counts: Counter[tuple[int, ...]]) -> tuple[float, int]:
    """Return Pearson's chi-square and its degrees of freedom; rare answers are counted together."""
    total = sum(counts.values())
    pairs = [(probability * total, counts[answer]) for answer, probability in expected.items()]
    common = [pair for pair in pairs if pair[0] >= 5]
    rare = [pair for pair in pairs if pair[0] < 5]
    together = (sum(pair[0] for pair in rare), sum(pair[1] for pair in rare))
    if together[0] >= 5:
        common.append(together)
    return sum((count - wanted) ** 2 / wanted for wanted, count in common), len(common) - 1


def _limit(freedom: int) -> float:
    """Return the value that chi-square exceeds with a probability of 0.0001 (Wilson and Hilferty)."""
    spread = 2 / (9 * freedom)
    return float(freedom * (1 - spread + 3.719 * spread**0.5) ** 3)


SETTINGS = (
    {"temperature": 0.3},
    {"temperature": 0.7, "top_k": 3},
    {"temperature": 1.0, "repetition_penalty": 1.5},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 1.5, "min_p": 0.2},
    {"temperature": 1.5, "top_k": 4, "top_p": 0.9},
)


@pytest.mark.parametrize("values", SETTINGS, ids=str)
@pytest.mark.parametrize("name", DRAFTERS)
def test_tokens_follow_the_processed_distribution(name: str, values: dict[str, Any]) -> None:
    options = SamplingOptions(**values)
    answers = list(_sampled(DRAFTERS[name], options, 3))
    for length in (1, 2, 3):
        expected = _exact(options, length)
        counts = Counter(answer[:length] for answer in answers)
        assert all(expected[answer] > 0 for answer in counts)
        statistic, freedom = _statistic(expected, counts)
        assert statistic < _limit(freedom), length


def test_so_do_tokens_of_networks_with_caches() -> None:
    def cached(rule: SamplingRule) -> Any:
        short = first_layers(LARGE, 2)
        return NetworkDrafter(CachedNetwork(short, CPU), rule, VOCABULARY, 0.0)

    options = SamplingOptions(temperature=1.0, top_k=3)
    answers = _sampled(cached, options, 2, count=300, cached=True)
    statistic, freedom = _statistic(_exact(options, 2), Counter(answers))
    assert statistic < _limit(freedom)


def test_the_check_sees_a_temperature_that_is_applied_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    options = SamplingOptions(temperature=0.7)
    expected = _exact(options, 2)
    distribution = SamplingRule.distribution
    right, freedom = _statistic(expected, Counter(_sampled(_draft_network, options, 2)))
    assert right < _limit(freedom)
    monkeypatch.setattr(
        SamplingRule,
        "distribution",
        lambda self, ids, logits: distribution(self, ids, logits / options.temperature),
    )
    wrong, freedom = _statistic(expected, Counter(_sampled(_draft_network, options, 2)))
    assert wrong > _limit(freedom)


def test_the_check_sees_a_refused_token_that_is_sampled_anew_from_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    options = SamplingOptions(temperature=1.0)
    monkeypatch.setattr(SamplingRule, "resample", lambda self, target, draft: self.sample(target))
    statistic, freedom = _statistic(_exact(options, 2), Counter(_sampled(_draft_network, options, 2)))
    assert statistic > _limit(freedom)


def test_a_lookup_takes_the_longest_and_latest_place_and_goes_round() -> None:
    assert LookupDrafter(3).draft([1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3], 3).tokens == [4, 9, 2]
    assert LookupDrafter(2).draft([1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3], 3).tokens == [5, 1, 2]
    assert LookupDrafter(3).draft([7, 8, 7, 8, 7, 8], 5).tokens == [7, 8, 7, 8, 7]
    assert LookupDrafter(3).draft([1, 2, 3], 5).tokens == []


def test_a_lookup_that_grows_knows_what_a_new_one_would() -> None:
    source = random.Random(4)
    ids = [source.randrange(4) for _ in range(60)]
    growing = LookupDrafter(3)
    for end in range(1, 60):
        assert growing.draft(ids[:end], 4) == LookupDrafter(3).draft(ids[:end], 4)


def test_the_pace_rises_falls_and_rests() -> None:
    pace = Pace(5, 0.2, quick=True)
    lengths = []
    for _ in range(4):
        lengths.append(pace.length())
        pace.tell(lengths[-1], lengths[-1])
    assert lengths == [2, 3, 4, 5]
    tried = 0
    for _ in range(1000):
        length = pace.length()
        pace.tell(length, 0)
        tried += length > 0
    assert tried < 30
    while not (length := pace.length()):
        pass
    pace.tell(length, length)
    assert pace.length() > 0


@pytest.mark.parametrize(("quick", "goes_on"), [(True, True), (False, False)])
def test_drafting_rests_sooner_where_checking_costs_more(quick: bool, goes_on: bool) -> None:
    pace = Pace(8, 0.0, quick)
    drafted = []
    for _ in range(300):
        drafted.append(pace.length())
        pace.tell(drafted[-1], len(drafted) % 2)  # half a token a draft
    assert (sum(length > 0 for length in drafted) > 250) is goes_on


def test_a_draft_model_that_is_not_named_is_asked_for(folder: Path, lmflow_cli: Callable[..., Any]) -> None:
    result = lmflow_cli("generate", "--model", folder, "--prompt", "hello", "--decoder", "speculative")
    assert result.status == 2
    assert "--decoder speculative needs --draft-model REF" in result.stderr


def test_a_draft_model_may_have_a_registered_name(
    folder: Path, draft_folder: Path, lmflow_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lmflow_smollm2", reason="the name is that of its model")
    monkeypatch.setattr("lmflow_smollm2.loader.cached_folder", lambda: draft_folder)
    asked = ("generate", "--model", folder, "--prompt", "the dog", "--max-new-tokens", 20, "--json")
    drafted = ("--decoder", "speculative", "--draft-model")
    by_folder = lmflow_cli(*asked, *drafted, draft_folder).json()
    by_name = lmflow_cli(*asked, *drafted, "smollm2-135m-instruct").json()
    assert by_name["text"] == by_folder["text"] == lmflow_cli(*asked).json()["text"]
    assert by_name["drafted"] == by_folder["drafted"] > 0


def test_decoders_share_a_draft_model_whose_own_head_stays_whole(model: CausalModel, tmp_path: Path) -> None:
    draft_folder = make_tiny_model(tmp_path / "draft")
    (draft_folder / "draft_vocabulary.json").write_text('{"tokens": [3, 20, 90, 300]}', encoding="utf-8")
    services = Models(Catalogue.discover())
    decoders = [DraftModelDecoder(DraftModelOptions(draft_model=str(draft_folder))) for _ in range(2)]
    for decoder in decoders:
        decoder.prepare(model, services)
    first, second = (decoder._draft for decoder in decoders)
    assert first is second is not None
    assert first.tokens == [3, 20, 90, 300]
    draft: Any = services.open_model(str(draft_folder), beside=model)
    ids = torch.tensor([[5, 6]])
    with torch.no_grad():
        whole, short = draft.network(ids).logits, first.network(ids).logits
    assert (whole.shape[-1], short.shape[-1]) == (len(model.tokenizer.inner), 4)
    torch.testing.assert_close(short, whole[..., first.tokens])
    expected = _ids(list(SamplingDecoder().decode(model, DecodingRequest([5, 6], 12))))
    assert _ids(list(decoders[0].decode(model, DecodingRequest([5, 6], 12)))) == expected


@pytest.mark.parametrize("name", ["prompt-lookup", "self-speculative"])
def test_what_cannot_be_drafted_for_is_refused_before_a_prompt_is_read(name: str, tmp_path: Path) -> None:
    scaled = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    model = _opened(make_tiny_model(tmp_path / "dynamic", rope_parameters=scaled))
    decoder: Any = {"prompt-lookup": PromptLookupDecoder, "self-speculative": SelfSpeculativeDecoder}[name]()
    with pytest.raises(RequestError, match="--decoder sampling"):
        decoder.prepare(model, SERVICES)


def test_a_changed_option_that_the_model_cannot_have_is_refused_at_once(folder: Path) -> None:
    catalogue = Catalogue.discover()
    asked = {"model": str(folder), "device": "cpu", "decoder": "self-speculative", "draft_layers": 1}
    model = open_chat_model(resolve(CHAT, asked, catalogue), catalogue)
    assert model.changed(draft_layers=2).decoder is not model.decoder
    with pytest.raises(RequestError, match="the model has 3 layers; draft with fewer"):
        model.changed(draft_layers=3)


def test_another_vocabulary_is_refused(model: CausalModel, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other")
    file = other / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace("<|endoftext|>", "<|other|>"), encoding="utf-8")
    decoder = DraftModelDecoder(DraftModelOptions(draft_model=str(other)))
    with pytest.raises(ModelError, match=r"they differ in 2 of them, such as '<\|endoftext\|>'"):
        _steps(decoder, model, [5, 6], 3)


def test_logits_without_a_token_are_cut_and_filled_up(folder: Path, tmp_path: Path) -> None:
    padded = make_tiny_model(tmp_path / "padded")
    network = LlamaForCausalLM.from_pretrained(folder)
    network.resize_token_embeddings(450)
    network.save_pretrained(padded)
    for large, draft in ((folder, padded), (padded, folder)):
        model = _opened(large)
        steps = _steps(DraftModelDecoder(DraftModelOptions(draft_model=str(draft))), model, [5, 6], 30)
        assert _ids(steps) == _ids(_steps(SamplingDecoder(), model, [5, 6], 30))
        assert sum(step.accepted for step in steps) > 0


def test_as_many_layers_as_the_model_has_are_refused(model: CausalModel) -> None:
    decoder = SelfSpeculativeDecoder(SelfSpeculativeOptions(draft_layers=3))
    with pytest.raises(RequestError, match="the model has 3 layers; draft with fewer"):
        _steps(decoder, model, [5, 6], 3)


def test_a_model_with_a_running_state_is_refused() -> None:
    torch.manual_seed(0)
    network = MambaForCausalLM(MambaConfig(vocab_size=20, hidden_size=16, num_hidden_layers=2, state_size=4))
    model: Any = SimpleNamespace(network=network, base=network, device=CPU, reference="mamba")
    with pytest.raises(ModelError, match="mamba keeps a running state"):
        _steps(PromptLookupDecoder(), model, [5, 6], 3)


def test_first_layers_share_every_weight_and_leave_the_model_as_it_is() -> None:
    short = first_layers(LARGE, 2)
    assert (len(short.model.layers), len(LARGE.model.layers)) == (2, 3)
    assert {id(p) for p in short.parameters()} < {id(p) for p in LARGE.parameters()}


def test_positions_that_follow_the_length_are_refused(tmp_path: Path) -> None:
    scaled = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    model = _opened(make_tiny_model(tmp_path / "dynamic", rope_parameters=scaled))
    with pytest.raises(RequestError, match="--decoder sampling"):
        _steps(PromptLookupDecoder(), model, [5, 6], 3)


@pytest.mark.parametrize("name", DECODERS)
def test_the_command_line_tells_how_drafts_fared(
    name: str, folder: Path, draft_folder: Path, lmflow_cli: Callable[..., Any]
) -> None:
    own = {"speculative": ["--draft-model", draft_folder], "self-speculative": ["--draft-layers", 2]}.get(name, [])
    asked = ("generate", "--model", folder, "--prompt", "the dog the dog the dog", "--max-new-tokens", 40)
    plain = lmflow_cli(*asked, "--json").json()
    told = lmflow_cli(*asked, "--decoder", name, *own, "--json").json()
    assert told["text"] == plain["text"]
    assert "drafted" not in plain
    assert 0 <= told["accepted"] <= told["drafted"]
    assert told["tokens_per_pass"] == round(told["tokens"] / told["passes"], 3)
    assert told["acceptance_rate"] == round(told["accepted"] / told["drafted"], 4)
    assert "drafted tokens accepted" in lmflow_cli(*asked, "--decoder", name, *own).stderr
