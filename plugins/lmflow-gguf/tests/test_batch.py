"""Answers of llama.cpp that share passes: each is the one it would be alone, whatever is beside it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_cpp", reason="llama.cpp's binding is optional")

from lmflow_core.api import BatchLimits, DecodingRequest, ModelSettings, RequestError, reading_parts
from lmflow_core.testing.batches import ids_of, run_at_random, run_batch
from lmflow_gguf.batch import LlamaBatch
from lmflow_gguf.contexts import Context
from lmflow_gguf.decoder import LlamaCppDecoder
from lmflow_gguf.model import LlamaCppLoader, LlamaCppModel
from lmflow_gguf.options import LlamaCppOptions
from lmflow_gguf.shared import affordable_tokens

Exported = Callable[[str], Path]
Asked = Sequence[tuple[DecodingRequest, LlamaCppDecoder]]
_OPTIONS = (
    LlamaCppOptions(),
    LlamaCppOptions(temperature=1.0, top_p=0.9),
    LlamaCppOptions(temperature=0.8, top_k=20, repetition_penalty=1.3),
    LlamaCppOptions(prompt_lookup=6, logit_bias=("40:-100", "50:2")),
)
_LIKELIEST = (_OPTIONS[0], _OPTIONS[3])
_GREEDY = LlamaCppDecoder()
_END = 2


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep keys and values in float32: then llama.cpp's kernels for one token and for several agree to five digits."""
    made = Context.__init__
    monkeypatch.setattr(Context, "__init__", lambda self, *args, **more: made(self, *args, **{**more, "exact": True}))


def _opened(file: Path) -> LlamaCppModel:
    model = LlamaCppLoader().open(str(file), ModelSettings(model=str(file)))
    model.load()
    return model


@pytest.fixture
def model(exported: Exported) -> LlamaCppModel:
    return _opened(exported("llama"))


def _asked(source: random.Random, count: int, options: Sequence[LlamaCppOptions] = _OPTIONS) -> Asked:
    """Return requests many of which begin alike; some are the same but for their seeds."""
    texts = [[source.randrange(5, 390) for _ in range(160)] for _ in range(3)]
    asked = []
    for seed in range(count):
        start = source.choice(texts)[: source.choice([1, 9, 40, 160])]
        end = [source.randrange(5, 390) for _ in range(source.randrange(30))] if source.random() < 0.8 else []
        stop = frozenset([source.randrange(5, 390) for _ in range(10)])
        request = DecodingRequest([*start, *end], source.randrange(1, 40), stop, seed)
        asked.append((request, LlamaCppDecoder(source.choice(options))))
    return asked


def _alone(model: LlamaCppModel, asked: Asked) -> list[list[int]]:
    return [ids_of(decoder.decode(model, request)) for request, decoder in asked]


def _together(batch: LlamaBatch, asked: Asked) -> list[list[int]]:
    return [ids_of(steps) for steps in run_batch(batch, asked)]


def _batch(model: LlamaCppModel, **limits: Any) -> LlamaBatch:
    return LlamaBatch(model, BatchLimits(**limits), pass_tokens=24)


# llama.cpp computes GELU from a table of F16, where the last digits of an input may choose another entry: sampled
# answers of the other models may differ. Both Gemmas have layers with a window.
@pytest.mark.parametrize(
    ("name", "options"),
    [("llama", _OPTIONS), ("gpt2", _LIKELIEST), ("gemma2", _LIKELIEST), ("gemma3-deep", _LIKELIEST)],
)
@pytest.mark.parametrize("seed", range(2))
def test_any_composition_gives_the_answers_alone(
    name: str, options: Sequence[LlamaCppOptions], seed: int, exported: Exported
) -> None:
    model, source = _opened(exported(name)), random.Random(seed)
    asked = _asked(source, 24, options)
    alone = _alone(model, asked)
    assert len({len(ids) for ids in alone}) > 5
    # The cache holds a few of the texts only, so that requests wait for it and what ended makes way.
    batch = _batch(model, answers=source.choice([2, 7]), cache_tokens=700)
    tokens, removed = run_at_random(batch, asked, source)
    for place, expected in enumerate(alone):
        found = tokens[place]
        assert found == (expected[: len(found)] if place in removed else expected), place
    # Once more with what is left of the texts before.
    assert _together(batch, asked) == alone


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_a_context_grows_with_the_texts_in_it(name: str, exported: Exported) -> None:
    model, source = _opened(exported(name)), random.Random(7)
    asked = _asked(source, 30, _LIKELIEST)
    alone = _alone(model, asked)
    batch = _batch(model, answers=12, cache_tokens=5000)
    lengths = {batch._texts.context.length}
    steps: dict[int, list[int]] = {}
    for request, decoder in asked:
        steps[batch.add(request, decoder)] = []
        for news in batch.step():
            steps[news.ticket] += ids_of([news.step] if news.step else [])
        lengths.add(batch._texts.context.length)
    while batch._running or batch._waiting:
        for news in batch.step():
            steps[news.ticket] += ids_of([news.step] if news.step else [])
    assert [*steps.values()] == alone
    assert min(lengths) == 1024 < max(lengths) <= 5120


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Lists for each pass how many tokens it read of each text."""
    counts: list[list[int]] = []
    read = Context.read

    def counted(self: Context, parts: Sequence[Any]) -> None:
        counts.append([len(part.ids) for part in parts])
        read(self, parts)

    monkeypatch.setattr(Context, "read", counted)
    return counts


def test_what_prompts_have_in_common_is_read_once(model: LlamaCppModel, passes: list[list[int]]) -> None:
    source = random.Random(3)
    system = [source.randrange(5, 390) for _ in range(100)]
    prompts = [[*system, *(source.randrange(5, 390) for _ in range(5))] for _ in range(6)] + [[*system, 7]] * 4
    asked = [(DecodingRequest(prompt, 3, seed=seed), _GREEDY) for seed, prompt in enumerate(prompts)]
    batch = _batch(model, answers=16)
    passes.clear()
    first = _together(batch, asked)
    writing = sum(len(ids) - 1 for ids in first)
    assert sum(map(sum, passes)) == 100 + 6 * 5 + 4 + writing
    # What ended is gone on from, too: of each prompt only the last token is read again, to have its logits.
    passes.clear()
    assert _together(batch, asked) == first
    assert sum(map(sum, passes)) == len(prompts) + writing
    assert first == _alone(model, asked)


def test_a_short_prompt_does_not_wait_for_a_long_one(model: LlamaCppModel, passes: list[list[int]]) -> None:
    batch = _batch(model, answers=4)
    long = batch.add(DecodingRequest([5 + n % 300 for n in range(200)], 2), _GREEDY)
    batch.step()
    short = batch.add(DecodingRequest([9, 8, 7], 4), _GREEDY)
    passes.clear()
    news = [one.ticket for _ in range(4) for one in batch.step()]
    assert news == [short] * 5
    assert long not in news
    assert all(sum(counts) <= 24 + 1 for counts in passes)


def test_prompts_are_read_by_a_plan() -> None:
    class Prompt:
        def __init__(self, unread: int, seen: int = 0) -> None:
            self.unread, self.seen, self.passed_over = unread, seen, 0

    long, short = Prompt(1000), Prompt(60)
    assert reading_parts([long, short], 100, 1e9) == [0, 60]
    assert reading_parts([long], 100, 1e9) == [100]
    assert reading_parts([Prompt(1000, seen=500)], 100, 500.0) == [50]
    for _ in range(3):
        reading_parts([long, short], 100, 1e9)
    assert (long.passed_over, reading_parts([long, short], 100, 1e9)) == (3, [0, 60])
    assert reading_parts([long, short], 100, 1e9) == [100, 0]


def test_an_end_of_the_model_and_a_stop_end_an_answer_as_alone(model: LlamaCppModel) -> None:
    prompt = [1, 40, 50, 60, 70]
    whole = _alone(model, [(DecodingRequest(prompt, 24), _GREEDY)])[0]
    stopped = DecodingRequest(prompt, 24, frozenset({whole[5]}))
    at_once = LlamaCppDecoder(LlamaCppOptions(logit_bias=(f"{_END}:100",)))
    asked = [(stopped, _GREEDY), (DecodingRequest(prompt, 24), at_once), (DecodingRequest(prompt, 24), _GREEDY)]
    assert _together(_batch(model), asked) == [whole[: whole.index(whole[5]) + 1], [], whole] == _alone(model, asked)


def test_a_schema_and_a_grammar_bound_their_own_answers(exported: Exported, tmp_path: Path) -> None:
    model = _opened(exported("qwen3"))
    fields = {"ok": {"type": "boolean"}, "kind": {"enum": ["a", "b"]}}
    schema = json.dumps({"type": "object", "properties": fields, "required": ["ok", "kind"]})
    grammar = tmp_path / "yes.gbnf"
    grammar.write_text('root ::= "yes" | "no"')
    decoders = [
        LlamaCppDecoder(LlamaCppOptions(json_schema=schema)),
        _GREEDY,
        LlamaCppDecoder(LlamaCppOptions(grammar=grammar)),
        LlamaCppDecoder(LlamaCppOptions(json_schema=schema, temperature=1.0)),
    ]
    asked = [(DecodingRequest([40, 50], 200, seed=3), decoder) for decoder in decoders]
    together = _together(_batch(model), asked)
    assert together == _alone(model, asked)
    texts = [model.tokenizer.decode(ids) for ids in together]
    assert all(set(json.loads(texts[place])) == {"ok", "kind"} for place in (0, 3))
    assert texts[2] in ("yes", "no")
    assert len(together[1]) == 200


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ('{"type":', "--json-schema is no JSON schema that llama.cpp can follow: Expecting value"),
        ('{"type": "mood"}', "--json-schema is no JSON schema that llama.cpp can follow: Unrecognized schema"),
        ("nowhere.json", "--json-schema: nowhere.json cannot be read: No such file"),
        ('{"type": "string", "maxLength": 9999}', "to a depth that llama.cpp cannot follow"),
        ('{"items": {"type": "string", "minLength": 10001}}', "something is repeated up to 10001 times"),
        ('{"type": "string", "pattern": "^(ab){5,200000}$"}', "something is repeated up to 200000 times"),
        ("[" * 100_000, "cannot be read"),
        ('{"a":' * 100_000, "--json-schema is no JSON schema"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_told(schema: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        LlamaCppDecoder(LlamaCppOptions(json_schema=schema))


def test_a_schema_may_be_in_a_file_and_brackets_in_its_texts_are_no_parts(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps({"enum": ["(" * 2000, "[("]}))
    for schema in (str(file), file.read_text()):
        LlamaCppDecoder(LlamaCppOptions(json_schema=schema))


def test_drafts_change_no_answer_and_share_what_may_be_drafted(model: LlamaCppModel, passes: list[list[int]]) -> None:
    drafting = LlamaCppDecoder(LlamaCppOptions(prompt_lookup=6))
    prompts = [[1, *([40, 50, 60, 70] * 6)], [1, *([45, 55, 65] * 8)]]
    requests = [DecodingRequest(prompt, 40) for prompt in prompts]
    plain = _alone(model, [(request, _GREEDY) for request in requests])
    for count in (1, 2):
        batch = _batch(model)
        passes.clear()
        steps = run_batch(batch, [(request, drafting) for request in requests[:count]])
        assert [ids_of(one) for one in steps] == plain[:count]
        assert sum(step.drafted for one in steps for step in one) > 0
        assert max(max(counts) for counts in passes if len(counts) == count and sum(counts) < 24) <= 1 + 6 // count


def test_a_bias_forbids_a_token_and_must_be_for_one_of_the_model(model: LlamaCppModel) -> None:
    request = DecodingRequest([1, 40, 50, 60, 70], 8)
    first = _alone(model, [(request, _GREEDY)])[0][0]
    forbidding = LlamaCppDecoder(LlamaCppOptions(logit_bias=(f"{first}:-100",)))
    assert first not in _together(_batch(model), [(request, forbidding)])[0]
    only = LlamaCppDecoder(LlamaCppOptions(logit_bias=("77:100",), temperature=1.0))
    assert _together(_batch(model), [(request, only)]) == [[77] * 8]
    size = model.weights.size
    unknown = LlamaCppDecoder(LlamaCppOptions(logit_bias=(f"{size}:1",)))
    message = f"--logit-bias: the model has {size} tokens, and none with the id {size}"
    with pytest.raises(RequestError, match=message):
        unknown.prepare(model, None)  # type: ignore[arg-type]
    for wrong in ("a:1", "5", "5:101", "-1:1"):
        with pytest.raises(ValueError, match="--logit-bias"):
            LlamaCppOptions(logit_bias=(wrong,))
    # An answer that cannot be sampled ends with its error, and none beside it.
    batch = _batch(model)
    bad, good = batch.add(request, unknown), batch.add(request, _GREEDY)
    news = [one for _ in range(8) for one in batch.step()]
    assert [(one.ticket, one.step, str(one.error)) for one in news if one.error] == [(bad, None, message)]
    assert [one.ticket for one in news if one.ticket != bad] == [good] * 9


def test_a_request_that_never_fits_is_refused(model: LlamaCppModel) -> None:
    batch = _batch(model, cache_tokens=100)
    batch.check(DecodingRequest([5] * 60, 40), _GREEDY)
    expected = "the prompt of 60 tokens and an answer of up to 41 need a cache of 101 tokens, and it holds 100"
    for refused in (batch.check, batch.add):
        with pytest.raises(RequestError, match=expected):
            refused(DecodingRequest([5] * 60, 41), _GREEDY)
    with pytest.raises(RequestError, match="the prompt is empty"):
        batch.check(DecodingRequest([], 4), _GREEDY)
    assert batch.step() == []


def test_requests_join_in_their_order_as_room_comes(model: LlamaCppModel) -> None:
    batch = _batch(model, answers=8, cache_tokens=100)
    requests = [DecodingRequest([5 + n] * 10, most) for n, most in enumerate([50, 40, 5])]
    order: list[int] = []
    for request in requests:
        batch.add(request, _GREEDY)
    while len(order) < 3:
        order += [one.ticket for one in batch.step() if one.step is None]
    # The second does not fit beside the first; the third would, but came later.
    assert order == [0, 2, 1]


def test_who_waits_for_a_prefix_keeps_the_place(model: LlamaCppModel) -> None:
    batch = _batch(model, answers=2)
    start = [5 + n for n in range(100)]
    for prompt, most in ((start, 2), ([*start, 7], 3), ([9] * 10, 30), ([8] * 10, 3)):
        batch.add(DecodingRequest(prompt, most), _GREEDY)
    order: list[int] = []
    while len(order) < 4:
        order += [one.ticket for one in batch.step() if one.step is None]
    assert order == [0, 1, 3, 2]


def test_what_is_taken_away_leaves_its_room(model: LlamaCppModel) -> None:
    batch = _batch(model, cache_tokens=100)
    running, waiting = (batch.add(DecodingRequest([5 + n] * 20, 60), _GREEDY) for n in range(2))
    batch.step()
    batch.remove(running)
    batch.remove(waiting)
    batch.remove(waiting)
    asked = [(DecodingRequest([9] * 20, 80), _GREEDY)]
    assert _together(batch, asked) == _alone(model, asked)
    assert len(batch._texts._open) <= 2


def test_the_cache_is_as_large_as_memory_allows(model: LlamaCppModel, monkeypatch: pytest.MonkeyPatch) -> None:
    # Keys and values of 2 layers, each of 2 heads of 16, in float32.
    assert 2 * 2 * 2 * 16 * 4 <= model.bytes_per_token < 2 * 2 * 2 * 16 * 4 + 200
    batch = _batch(model, answers=3)
    assert batch.cache_tokens == 3 * 256
    assert batch.cache_bytes == batch.cache_tokens * model.bytes_per_token
    for free, tokens in ((400 * model.bytes_per_token, 100), (None, 768)):
        monkeypatch.setattr("lmflow_gguf.shared.free_memory", lambda free=free: free)
        assert affordable_tokens(model, 3) == tokens


def test_some_models_and_options_take_one_answer_at_a_time(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _opened(exported("llama"))
    assert _GREEDY.open_batch(model, BatchLimits()) is not None
    keeping = LlamaCppDecoder(LlamaCppOptions(prompt_cache=tmp_path))
    assert keeping.open_batch(model, BatchLimits()) is None
    # llama.cpp chooses the factors of its positions by the size of the context.
    assert _GREEDY.open_batch(_opened(exported("phi3")), BatchLimits()) is None
    monkeypatch.setattr(model.weights, "forgets", False)
    assert _GREEDY.open_batch(model, BatchLimits()) is None


def test_more_answers_than_llama_cpp_has_texts_wait(model: LlamaCppModel) -> None:
    asked = [(DecodingRequest([5 + n % 300, 7], 2), _GREEDY) for n in range(300)]
    batch = _batch(model, answers=300)
    assert [len(ids) for ids in _together(batch, asked)] == [2] * 300


@pytest.fixture(scope="module")
def smollm2(smollm2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lmflow_gguf.export import GgufExporter
    from lmflow_gguf.options import GgufOptions
    from lmflow_transformers.api import CausalModelLoader

    folder = tmp_path_factory.mktemp("smollm2")
    settings = ModelSettings(model=str(smollm2_folder), device="cpu")
    GgufExporter(GgufOptions(type=("F32",))).export(
        CausalModelLoader().open(str(smollm2_folder), settings), folder, None
    )
    return next(folder.glob("*.gguf"))


@pytest.mark.slow
def test_a_real_model_answers_as_alone(smollm2: Path) -> None:
    model = _opened(smollm2)
    topics = ("black holes", "bread", "the Roman Empire", "jazz", "volcanoes", "chess", "rivers", "vaccines")
    prompts = model.tokenizer.encode([f"Explain {topic} in simple words." for topic in topics], [False] * len(topics))
    asked = [(DecodingRequest(prompt, 32), _GREEDY) for prompt in prompts]
    assert _together(LlamaBatch(model, BatchLimits(answers=8)), asked) == _alone(model, asked)
