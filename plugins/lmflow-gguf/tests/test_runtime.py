"""llama.cpp on our files: the same tokens, scores and answers as the source, and files that are damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_cpp", reason="llama.cpp's binding is optional")

from lmflow_core.api import (
    IGNORE,
    DecodingRequest,
    EncodedSequence,
    Message,
    ModelError,
    ModelSettings,
    RequestError,
    TemplateLimitError,
)
from lmflow_core.models.opening import open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.fixtures import CliResult
from lmflow_gguf.decoder import LlamaCppDecoder
from lmflow_gguf.export import GgufExporter
from lmflow_gguf.model import LlamaCppLoader, LlamaCppModel
from lmflow_gguf.options import NEED_CALIBRATION, PLAIN, QUANTISED, GgufOptions, LlamaCppOptions
from lmflow_gguf.texts import read_text, scored, windows
from lmflow_gguf.verify import TORTURE, mean_divergence
from lmflow_transformers.api import CausalModel, CausalModelLoader

NAMES = json.loads((Path(__file__).parent / "data" / "oracle.json").read_text(encoding="utf-8"))
SCALED = json.loads((Path(__file__).parent / "data" / "oracle-scaled.json").read_text(encoding="utf-8"))
Models = Callable[[str], Path]
Exported = Callable[[str], Path]
# llama.cpp takes the name phi3 for a promise of certain tokens, which the small vocabulary does not hold.
UNNAMED = "tiny"


def _source(folder: Path) -> CausalModel:
    return CausalModelLoader().open(str(folder), ModelSettings(model=str(folder), device="cpu", dtype="float32"))


def _opened(file: Path, adapter: Path | None = None) -> LlamaCppModel:
    model = LlamaCppLoader().open(str(file), ModelSettings(model=str(file), adapter=adapter))
    model.load()
    return model


def _answer(decoder: LlamaCppDecoder, model: LlamaCppModel, prompt: Sequence[int], length: int = 24) -> list[int]:
    steps = decoder.decode(model, DecodingRequest(prompt, length, seed=1))
    return [token for step in steps for token in step.ids]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_scores_and_splits_text_as_its_source_does(name: str, exported: Exported, model_folder: Models) -> None:
    source, model = _source(model_folder(name)), _opened(exported(name))
    source.load()
    if not name.startswith("qwen2"):  # transformers composes accents for Qwen 2, whatever its file says
        assert model.tokenizer.encode([TORTURE, "e\u0301"], [True, True]) == source.tokenizer.encode(
            [TORTURE, "e\u0301"], [True, True]
        )
    rows = [scored(part) for part in windows(source.tokenizer, read_text(None), 128, 256)][:2]
    for ours, theirs in zip(model.score(rows), source.score(rows), strict=True):
        assert (ours.tokens, ours.correct) == (theirs.tokens, theirs.correct)
        assert ours.nll / ours.tokens == pytest.approx(theirs.nll / theirs.tokens, abs=1e-4)


@pytest.mark.parametrize(("name", "scheme"), [(name, scheme) for name in SCALED for scheme in SCALED[name]])
def test_a_model_scaled_while_it_is_exported_scores_as_the_scaled_source(
    name: str, scheme: str, lmflow_cli: Callable[..., CliResult], sharp_folder: Models, tmp_path: Path
) -> None:
    pytest.importorskip("lmflow_position_scaling", reason="positions are scaled by the plugin that knows the schemes")
    folder, file = tmp_path / UNNAMED, tmp_path / "model.gguf"
    folder.symlink_to(sharp_folder(name))
    scaled = ("--position-scaling", scheme, "--position-scaling-factor", 2)
    written = ("--format", "gguf", "--type", "F32", "--pre-tokenizer", "gpt-2", "--output", file)
    assert lmflow_cli("export", "--model", folder, *scaled, *written).status == 0
    settings = ModelSettings(model=str(folder), device="cpu", position_scaling=scheme, position_scaling_factor=2.0)
    plain, source = _source(folder), open_model(settings, Catalogue.discover()).load()
    plain.load()
    # Beyond the 256 tokens of before, where llama.cpp takes the long factors of Phi 3 whatever a text's length is.
    ids = [3 + n * n % 400 for n in range(400)]
    scores = [next(iter(model.score([EncodedSequence(ids, ids)]))) for model in (_opened(file), source, plain)]
    ours, theirs, unscaled = (score.nll / score.tokens for score in scores)
    assert abs(theirs - unscaled) > (5e-3 if name.startswith("gemma") else 2e-4)
    # llama.cpp's table for GELU costs Gemma some digits, scaled or not.
    assert ours == pytest.approx(theirs, abs=5e-4 if name.startswith("gemma") else 5e-5)


def test_only_labelled_tokens_are_scored_across_batches(exported: Exported, model_folder: Models) -> None:
    source, model = _source(model_folder("qwen3")), _opened(exported("qwen3"))
    source.load()
    ids = [3 + n % 400 for n in range(700)]
    labels = [token if n % 3 == 0 and n else IGNORE for n, token in enumerate(ids)]
    (ours,), (theirs,) = model.score([EncodedSequence(ids, labels)]), source.score([EncodedSequence(ids, labels)])
    assert ours.tokens == theirs.tokens == sum(label != IGNORE for label in labels)
    assert ours.nll == pytest.approx(theirs.nll, rel=1e-5)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_what_looks_like_a_control_token_stays_text(name: str, exported: Exported) -> None:
    tokenizer = _opened(exported(name)).tokenizer
    for text, number in tokenizer.control_tokens.items():
        (ids,) = tokenizer.encode([f"a{text}b"], [False])
        assert number not in ids
        assert tokenizer.decode(ids).strip() == f"a{text}b"
    assert set(tokenizer.control_tokens) >= {"qwen3": {"<|im_end|>", "<think>"}, "llama": {"<s>", "</s>"}}[name]


def test_a_tokenizer_is_the_source_in_everything_the_core_asks(exported: Exported, model_folder: Models) -> None:
    for name in ("llama", "qwen3", "gemma"):
        ours, theirs = _opened(exported(name)).tokenizer, _source(model_folder(name)).tokenizer
        assert (ours.bos, ours.eos) == (theirs.bos, theirs.eos)
        messages = (Message("user", "a"), Message("assistant", "b"), Message("user", "{{ 1 }}"))
        assert ours.render_chat(messages, True) == theirs.render_chat(messages, True) is not None
        if name != "gemma":  # transformers adds tokens of its own to a Gemma that has none of them
            assert {text for text in theirs.control_tokens if text != "<unk>"} <= set(ours.control_tokens)


def test_a_template_that_refuses_or_misbehaves_gives_nothing(exported: Exported) -> None:
    tokenizer = _opened(exported("llama")).tokenizer
    messages = (Message("user", "a"),)
    assert tokenizer.render_chat(messages, True, jinja="{{ raise_exception('no') }}") is None
    assert tokenizer.render_chat(messages, True, jinja="{{ ''.__class__.__mro__ }}") is None
    greeting = "{{ bos_token }}{{ messages[0]['content'] | tojson }} {{ strftime_now('%d %b %Y') }}"
    assert tokenizer.render_chat(messages, True, jinja=greeting) == '<s>"a" 26 Jul 2024'
    with pytest.raises(TemplateLimitError, match=r"^the chat template given writes more than"):
        tokenizer.render_chat(messages, True, jinja="{{ 'a' * 10**7 }}")


def test_greedy_answers_are_those_of_the_source(exported: Exported, model_folder: Models) -> None:
    import torch

    source, model = _source(model_folder("llama")), _opened(exported("llama"))
    source.load()
    prompt = [1, 40, 50, 60, 70]
    with torch.no_grad():
        expected = source.network.generate(
            torch.tensor([prompt]), max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0
        )[0, len(prompt) :].tolist()
    assert _answer(LlamaCppDecoder(), model, prompt) == expected


def test_a_looked_up_draft_changes_no_answer_and_is_counted(exported: Exported) -> None:
    model = _opened(exported("llama"))
    prompt = [1, *([40, 50, 60, 70] * 6)]
    for temperature in (0.0, 0.7):
        plain = LlamaCppDecoder(LlamaCppOptions(temperature=temperature))
        drafting = LlamaCppDecoder(LlamaCppOptions(temperature=temperature, prompt_lookup=6))
        expected = _answer(plain, model, prompt, 40)
        steps = list(drafting.decode(model, DecodingRequest(prompt, 40, seed=1)))
        assert [token for step in steps for token in step.ids] == expected
        assert sum(step.drafted for step in steps) > 0
        assert all(len(step.ids) <= step.accepted + 1 <= step.drafted + 1 for step in steps)


def test_sampling_depends_on_the_seed_alone(exported: Exported) -> None:
    model = _opened(exported("qwen3"))
    decoder = LlamaCppDecoder(LlamaCppOptions(temperature=1.0, top_k=50, top_p=0.9, min_p=0.01))
    prompt = [40, 50, 60]

    def sampled(seed: int) -> list[int]:
        steps = decoder.decode(model, DecodingRequest(prompt, 16, seed=seed))
        return [token for step in steps for token in step.ids]

    assert sampled(1) == sampled(1) != sampled(2)


def test_a_stop_token_is_yielded_last(exported: Exported) -> None:
    model = _opened(exported("llama"))
    whole = _answer(LlamaCppDecoder(), model, [1, 40, 50, 60, 70])
    stop = whole[5]
    steps = LlamaCppDecoder().decode(model, DecodingRequest([1, 40, 50, 60, 70], 24, frozenset({stop}), seed=1))
    assert [token for step in steps for token in step.ids] == whole[: whole.index(stop) + 1]


def test_a_prompt_that_begins_like_the_last_one_is_not_evaluated_again(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _opened(exported("qwen3"))
    prompt = list(range(40, 80))
    answer = _answer(LlamaCppDecoder(), model, prompt, 8)
    longer = [*prompt, *answer, 90, 91]
    session = model.session(64)
    model.give_back(session)
    sizes: list[int] = []
    evaluate = session.evaluate
    monkeypatch.setattr(session, "evaluate", lambda ids, **more: (sizes.append(len(ids)), evaluate(ids, **more))[1])
    again = _answer(LlamaCppDecoder(), model, longer, 8)
    assert sizes[0] <= 3
    monkeypatch.undo()
    assert again == _answer(LlamaCppDecoder(), _opened(exported("qwen3")), longer, 8)


def test_answers_written_at_once_do_not_disturb_each_other(exported: Exported) -> None:
    model = _opened(exported("qwen3"))
    prompts = [list(range(start, start + 20)) for start in (40, 90, 140)]
    expected = [_answer(LlamaCppDecoder(), _opened(exported("qwen3")), prompt, 16) for prompt in prompts]
    running = [LlamaCppDecoder().decode(model, DecodingRequest(prompt, 16, seed=1)) for prompt in prompts]
    interleaved = list(zip(*running, strict=True))
    assert [[token for step in steps for token in step.ids] for steps in zip(*interleaved, strict=True)] == expected


def test_a_prompt_cache_on_the_disk_is_used_by_the_next_run(exported: Exported, tmp_path: Path) -> None:
    decoder = LlamaCppDecoder(LlamaCppOptions(prompt_cache=tmp_path / "cache"))
    prompt = list(range(40, 80))
    expected = _answer(decoder, _opened(exported("qwen3")), prompt, 8)
    (file,) = (tmp_path / "cache").iterdir()
    assert file.suffix == ".state"
    model = _opened(exported("qwen3"))
    assert _answer(decoder, model, prompt, 8) == expected
    other = _opened(exported("llama"))
    _answer(decoder, other, prompt, 8)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_grammar_and_a_schema_bound_what_is_written(exported: Exported, tmp_path: Path) -> None:
    model = _opened(exported("qwen3"))
    grammar = tmp_path / "yes.gbnf"
    grammar.write_text('root ::= "yes" | "no"')
    ids = _answer(LlamaCppDecoder(LlamaCppOptions(grammar=grammar)), model, [40, 50])
    assert model.tokenizer.decode(ids) in ("yes", "no")
    schema = tmp_path / "schema.json"
    fields = {"ok": {"type": "boolean"}, "kind": {"enum": ["a", "b"]}}
    schema.write_text(json.dumps({"type": "object", "properties": fields, "required": ["ok", "kind"]}))
    ids = _answer(LlamaCppDecoder(LlamaCppOptions(json_schema=str(schema))), model, [40, 50], 200)
    written = json.loads(model.tokenizer.decode(ids))
    assert isinstance(written["ok"], bool)
    assert written["kind"] in ("a", "b")


def test_a_broken_grammar_is_told(exported: Exported, tmp_path: Path) -> None:
    file = tmp_path / "broken"
    file.write_text("root ::= (")
    with pytest.raises(RequestError, match=r"llama.cpp refuses the grammar"):
        _answer(LlamaCppDecoder(LlamaCppOptions(grammar=file)), _opened(exported("qwen3")), [40])
    with pytest.raises(RequestError, match="is no JSON schema"):
        LlamaCppDecoder(LlamaCppOptions(json_schema=str(file)))
    with pytest.raises(RequestError, match="cannot be read"):
        LlamaCppDecoder(LlamaCppOptions(grammar=tmp_path / "none"))


def test_damaged_files_are_told(exported: Exported, tmp_path: Path) -> None:
    whole = exported("qwen3").read_bytes()
    file = tmp_path / "damaged.gguf"
    cases = {
        b"GGML" + whole[4:]: "is no GGUF file: it begins with b'GGML'",
        b"": "is no GGUF file",
        whole[:4] + b"\x09" + whole[5:]: "is of GGUF version 9",
        whole[:3000]: "is truncated: it ends within its header",
        whole[:-1000]: "is truncated: it has .* bytes, and its tensors need",
        whole.replace(b"tokenizer.ggml.tokens", b"tokenizer.ggml.tokenz"): "has no tokenizer",
    }
    for content, message in cases.items():
        file.write_bytes(content)
        with pytest.raises(ModelError, match=message):
            _opened(file)
    with pytest.raises(ModelError, match="no such file"):
        LlamaCppLoader().open("nowhere.gguf", ModelSettings(model="nowhere.gguf"))


def test_a_file_that_is_cut_anywhere_never_opens(exported: Exported, tmp_path: Path) -> None:
    whole = exported("qwen3").read_bytes()
    file = tmp_path / "cut.gguf"
    for length in [*range(0, 200, 7), *range(200, len(whole) - 40, 9973)]:
        file.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"truncated|no GGUF file"):
            _opened(file)


@pytest.mark.parametrize("adapter_type", ["F32", "F16"])
def test_an_adapter_put_on_by_llama_cpp_is_the_merged_model(
    adapter_type: str, model_folder: Models, exported: Exported, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    from lmflow_gguf.adapter import AdapterExporter
    from lmflow_gguf.options import AdapterOptions

    for name, variant in (
        ("llama", {"use_rslora": True, "alpha_pattern": {"v_proj": 32}}),
        ("gpt2", {"fan_in_fan_out": True}),
    ):
        source = _source(model_folder(name))
        source.load()
        config = LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", init_lora_weights=False, **variant)
        source.network = get_peft_model(source.network, config).eval()
        folder = tmp_path / f"{name}-{adapter_type}"
        source.network.save_pretrained(folder, save_embedding_layers=False)
        source.adapter = folder
        out = tmp_path / f"out-{name}-{adapter_type}"
        out.mkdir()
        AdapterExporter(AdapterOptions(type=adapter_type)).export(source, out, None)
        model = _opened(exported(name), adapter=next(out.iterdir()))
        ids = source.tokenizer.encode([read_text(None)[:400]], [False])[0][:100]
        expected = source.network(input_ids=_tensor(ids)).logits[0].detach().numpy()
        session = model.session(len(ids))
        session.evaluate(ids, outputs=True)
        assert mean_divergence(expected, session.logits(len(ids))) < 1e-5
        without = _opened(exported(name)).session(len(ids))
        without.evaluate(ids, outputs=True)
        assert mean_divergence(expected, without.logits(len(ids))) > 1e-3


def _tensor(ids: Sequence[int]) -> Any:
    import torch

    return torch.tensor([list(ids)])


def test_an_adapter_that_does_not_fit_is_told(exported: Exported) -> None:
    model = LlamaCppLoader().open(str(exported("qwen3")), ModelSettings(model="x", adapter=exported("llama")))
    model.load()
    with pytest.raises(ModelError, match=r"the adapter .* does not fit"):
        model.session(8)


@pytest.fixture(scope="module")
def wide_model(model_folder: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a model whose rows divide by 256, as most of llama.cpp's types need it."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("wide") / "wide"
    tokenizer = AutoTokenizer.from_pretrained(model_folder("llama-bias"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_every_type_without_calibration_can_be_made(wide_model: Path, tmp_path: Path) -> None:
    options = GgufOptions(type=(*PLAIN, *QUANTISED), pre_tokenizer="gpt-2", verify=True)
    report = GgufExporter(options).export(_source(wide_model), tmp_path, None)
    assert len(report.files) == len(PLAIN) + len(QUANTISED)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_calibration_makes_the_other_types_and_a_closer_model(wide_model: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(read_text(None))
    calibrated, plain = tmp_path / "calibrated", tmp_path / "plain"
    for folder in (calibrated, plain):
        folder.mkdir()
    types = (*NEED_CALIBRATION, "Q2_K")
    GgufExporter(GgufOptions(type=types, pre_tokenizer="gpt-2", calibration=text)).export(
        _source(wide_model), calibrated, None
    )
    GgufExporter(GgufOptions(type=("Q2_K",), pre_tokenizer="gpt-2")).export(_source(wide_model), plain, None)
    assert len(list(calibrated.glob("*.gguf"))) == len(types)
    source = _source(wide_model)
    source.load()
    ids = source.tokenizer.encode([read_text(None)], [False])[0][:256]
    expected = source.network(input_ids=_tensor(ids)).logits[0].detach().numpy()

    def divergence(folder: Path) -> float:
        session = _opened(next(folder.glob("*-Q2_K.gguf"))).session(len(ids))
        session.evaluate(ids[:256], outputs=True)
        return mean_divergence(expected, session.logits(len(ids)))

    assert divergence(calibrated) < divergence(plain)


def test_llama_cpps_quantiser_refusing_is_told(model_folder: Models, tmp_path: Path) -> None:
    from lmflow_gguf.quantise import quantise

    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"llama.cpp cannot make Q4_K_M"):
        quantise(broken, tmp_path / "out.gguf", "Q4_K_M")


def test_a_report_measures_each_file(
    model_folder: Models, tmp_path: Path, lmflow_cli: Callable[..., CliResult]
) -> None:
    result = lmflow_cli(
        "export", "--model", model_folder("qwen3"), "--format", "gguf", "--type", "q8_0,q4_0", "--report",
        "--pre-tokenizer", "gpt-2", "--output", tmp_path / "out", "--json",
    )  # fmt: skip
    assert result.status == 0, result.stderr
    rows = result.json()["measured"]
    assert [row["type"] for row in rows] == ["(F32)", "Q8_0", "Q4_0"]
    assert rows[0]["change"] == "+0.00%"
    assert abs(rows[1]["nll"] - rows[0]["nll"]) < abs(rows[2]["nll"] - rows[0]["nll"])
    assert all(row["tokens_per_second"] > 0 and row["load_seconds"] >= 0 for row in rows)
    assert sorted(os.listdir(tmp_path / "out")) == ["qwen3-Q4_0.gguf", "qwen3-Q8_0.gguf"]


def test_a_wrong_pre_tokenizer_is_found_by_verifying(
    model_folder: Models, tmp_path: Path, lmflow_cli: Callable[..., CliResult]
) -> None:
    arguments = ["export", "--model", model_folder("qwen3"), "--format", "gguf", "--output", tmp_path / "x.gguf"]
    result = lmflow_cli(*arguments, "--pre-tokenizer", "chameleon", "--verify")
    assert result.status == 2
    assert "splits text in another way" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_gguf_model_is_evaluated_and_answers_from_the_command_line(
    model_folder: Models, exported: Exported, tmp_path: Path, lmflow_cli: Callable[..., CliResult], write_rows: Any
) -> None:
    for needed in ("lmflow_datasets", "lmflow_templates"):
        pytest.importorskip(needed)
    data = write_rows([{"type": "text_only", "text": "What is the capital of France?"}])
    source = lmflow_cli("evaluate", "--model", model_folder("qwen3"), "--dataset", data, "--json").json()
    ours = lmflow_cli("evaluate", "--model", exported("qwen3"), "--dataset", data, "--json").json()
    assert ours["nll_per_token"] == pytest.approx(source["nll_per_token"], abs=1e-4)
    asked = ("--prompt", "hello", "--max-new-tokens", 8, "--json", "--template", "chatml")
    answer = lmflow_cli("generate", "--model", exported("qwen3"), *asked)
    theirs = lmflow_cli("generate", "--model", model_folder("qwen3"), *asked)
    assert answer.json()["text"] == theirs.json()["text"]


def test_an_attention_of_torch_is_refused_by_name(lmflow_cli: Callable[..., CliResult], exported: Exported) -> None:
    refused = lmflow_cli("generate", "--model", exported("llama"), "--prompt", "hello", "--attention", "sdpa")
    assert refused.status == 2
    assert "--attention:" in refused.stderr
    assert "runs in llama-cpp, which attends in its own way: leave --attention out" in refused.stderr


def test_a_decoder_and_a_model_of_different_runtimes_are_refused_by_name(
    model_folder: Models, exported: Exported, lmflow_cli: Callable[..., CliResult]
) -> None:
    result = lmflow_cli("generate", "--model", model_folder("qwen3"), "--decoder", "llama-cpp", "--prompt", "a")
    assert result.status == 2
    assert "decoder 'llama-cpp' needs a model that runs in llama-cpp" in result.stderr
    result = lmflow_cli("finetune", "--model", "gguf:llama-cpp", "--dataset", "x.json", "--output", "x")
    assert result.status == 2


@pytest.mark.slow
def test_smollm2_scores_and_splits_text_as_transformers(smollm2_folder: Path, tmp_path: Path) -> None:
    GgufExporter(GgufOptions(type=("F32",))).export(_source(smollm2_folder), tmp_path, None)
    source, model = _source(smollm2_folder), _opened(next(tmp_path.glob("*.gguf")))
    source.load()
    texts = [TORTURE, f"  {TORTURE}\n\n", "e\u0301 \u200b\ufeff", "<|im_start|>system\n<|im_end|>", "1 22 333 4444", ""]
    assert model.tokenizer.encode(texts, [False] * len(texts)) == source.tokenizer.encode(texts, [False] * len(texts))
    rows = [scored(part) for part in windows(source.tokenizer, read_text(None), 512, 8192)]
    for ours, theirs in zip(model.score(rows), source.score(rows), strict=True):
        assert ours.nll / ours.tokens == pytest.approx(theirs.nll / theirs.tokens, abs=1e-3)
