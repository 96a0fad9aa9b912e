"""Training on images: steps are those of a plain loop, parts stay frozen, runs go on exactly and results load."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from lmflow_core.api import IGNORE, EncodedExample, EncodedSequence, ImagePart, Segment, TrainingSettings
from lmflow_core.data.encoding import Encoder
from lmflow_core.testing.fixtures import CliResult
from lmflow_core.testing.jobs import make_job
from lmflow_multimodal.processor import processed
from lmflow_transformers.training.sft import SftObjective

Cli = Callable[..., CliResult]
_TEXTS = ("over the lazy dog", "the capital", "on the river Seine")
_SETTINGS = TrainingSettings(
    lr=1e-3, batch_size=3, epochs=2, warmup_ratio=0.0, logging_steps=1, lr_scheduler_type="constant"
)


def _rows(model: Any, photos: list[str]) -> list[EncodedSequence]:
    """Return three sequences, with none, one and three pictures."""
    shown = ((), (0,), (1, 0, 2))
    rendered = [
        [*(Segment("", image=ImagePart(photos[number])) for number in numbers), Segment("What?"), Segment(text, True)]
        for numbers, text in zip(shown, _TEXTS, strict=True)
    ]
    return Encoder(model.tokenizer, None, media=model.media).encode_segments(rendered)


def _own_loss(network: Any, model: Any, row: EncodedSequence, photos: list[str]) -> torch.Tensor:
    """Return the summed loss of one sequence by transformers' own forward pass, fed by its processor."""
    ids, labels = torch.tensor([list(row.input_ids)]), torch.tensor([list(row.labels)])
    given: dict[str, Any] = {}
    if row.media:
        images = [model._inputs._opened(media) for media in row.media]
        made = processed(model.processor, model.media.placeholder * len(images), images)
        given = {name: value for name, value in made.items() if name.startswith(("pixel", "image"))}
        types = model._inputs._types(row)[None]
        name = {"gemma3": "token_type_ids", "qwen2_vl": "mm_token_type_ids"}.get(network.config.model_type)
        given |= {name: types} if name else {}
    logits = network(input_ids=ids, **given).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, labels[0, 1:], ignore_index=IGNORE, reduction="sum")


@pytest.mark.parametrize("family", ["llava", "idefics3", "qwen2_vl", "gemma3"])
def test_steps_are_those_of_a_plain_loop(
    family: str, seeing_model: Callable[[str], Path], photos: list[str], tmp_path: Path
) -> None:
    folder = seeing_model(family)
    job = make_job(folder, tmp_path / "c", _SETTINGS, [])
    rows = _rows(job.model, photos)
    job = make_job(folder, tmp_path / "c", _SETTINGS, [EncodedExample((row,)) for row in rows])
    losses = [point.value for point in SftObjective().train(job).training["loss"]]
    network = AutoModelForImageTextToText.from_pretrained(folder)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(job.model.part_of(name) != "vision")
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)
    tokens = sum(label != IGNORE for row in rows for label in row.labels)
    expected = []
    for _ in range(2):
        loss = torch.stack([_own_loss(network, job.model, row, photos) for row in rows]).sum() / tokens
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        expected.append(float(loss.detach()))
    assert losses == pytest.approx(expected, abs=1e-4)
    for (name, trained), (_, own) in zip(job.model.base.named_parameters(), network.named_parameters(), strict=True):
        assert torch.allclose(trained, own, atol=1e-4), name


@pytest.fixture
def questions(photos: list[str]) -> Path:
    """Return a data file of conversations, most of them about pictures."""
    dice = random.Random(0)
    rows = []
    for number in range(9):
        shown = [{"type": "image", "image": dice.choice(photos)} for _ in range(number % 3)]
        asked = {"role": "user", "content": [*shown, {"type": "text", "text": f"What is {number}?"}]}
        rows.append({"messages": [asked, {"role": "assistant", "content": dice.choice(_TEXTS)}]})
    file = Path(photos[0]).with_name("questions.jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def _run(cli: Cli, model: Path, data: Path, output: Path, *more: object) -> dict[str, Any]:
    result = cli(
        "finetune", "--model", model, "--dataset", data, "--template", "chatml", "--output", output,
        "--lr", "0.01", "--device", "cpu", "--batch-size", 3, "--logging-steps", 1, *more,
    )  # fmt: skip
    assert result.status == 0, result.stderr
    record: dict[str, Any] = json.loads((output / "run.json").read_text(encoding="utf-8"))
    return record


def _changed(before: Path, after: Path) -> set[str]:
    old, new = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    assert old.keys() == new.keys()
    return {name for name in old if not torch.equal(old[name], new[name])}


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ((), {"language", "projector"}),
        (("--train-parts", "projector"), {"projector"}),
        (("--train-parts", "vision,language", "--pack-length", 200), {"vision", "language"}),
        (("--tuner", "lisa", "--lisa-activated-layers", 1), {"language", "projector"}),
    ],
)
@pytest.mark.usefixtures("other_plugins")
def test_parts_train_and_the_result_is_plain(
    options: tuple[object, ...],
    parts: set[str],
    seeing_model: Callable[[str], Path],
    questions: Path,
    tmp_path: Path,
    lmflow_cli: Cli,
) -> None:
    folder, output = seeing_model("llava"), tmp_path / "out"
    _run(lmflow_cli, folder, questions, output, *options)
    kinds = {"vision_tower": "vision", "multi_modal_projector": "projector"}
    changed = {next((kinds[kind] for kind in kinds if kind in name), "language") for name in _changed(folder, output)}
    assert changed == parts
    network = AutoModelForImageTextToText.from_pretrained(output)
    processor = AutoProcessor.from_pretrained(output)
    assert processor.to_dict() == AutoProcessor.from_pretrained(folder).to_dict()
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    assert network(**processor(text=["<image> a"], images=[image], return_tensors="pt")).logits.isfinite().all()


@pytest.mark.usefixtures("other_plugins")
def test_adapters_go_to_the_parts_that_train(
    seeing_model: Callable[[str], Path], questions: Path, tmp_path: Path, lmflow_cli: Cli
) -> None:
    folder, output = seeing_model("qwen2_vl"), tmp_path / "out"
    _run(lmflow_cli, folder, questions, output, "--tuner", "lora", "--lora-dropout", 0)
    names = load_file(output / "adapter_model.safetensors").keys()
    assert {"visual" in name for name in names if "merger" not in name} == {False}
    assert {"lora" in name for name in names if "merger" in name} == {False}
    assert any("merger.mlp.0.weight" in name for name in names)
    assert any("language_model.layers.0.mlp" in name for name in names)
    PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(folder), output)
    whole = tmp_path / "whole"
    assert lmflow_cli("merge", "--model", output, "--output", whole).status == 0
    scores = [
        lmflow_cli("evaluate", "--model", place, "--dataset", questions, "--template", "chatml", "--json").json()
        for place in (output, whole)
    ]
    assert scores[0]["nll_per_token"] == pytest.approx(scores[1]["nll_per_token"], abs=1e-4)
    assert (whole / "processor_config.json").read_text() == (folder / "processor_config.json").read_text()


@pytest.mark.usefixtures("other_plugins")
@pytest.mark.parametrize("family", ["llava", "idefics3"])
def test_beside_adapters_a_projector_trains_as_it_is_in_float32(
    family: str, seeing_model: Callable[[str], Path], questions: Path, tmp_path: Path, lmflow_cli: Cli
) -> None:
    folder, first, second = seeing_model(family), tmp_path / "first", tmp_path / "second"
    told = _run(lmflow_cli, folder, questions, first, "--tuner", "lora", "--dtype", "bfloat16")
    assert math.isfinite(told["losses"][-1][1])
    _run(lmflow_cli, first, questions, second, "--tuner", "lora", "--dtype", "bfloat16")
    before, after = (load_file(output / "adapter_model.safetensors") for output in (first, second))
    whole = [name for name in before if "multi_modal_projector" in name or "connector" in name]
    assert whole
    assert all("lora" not in name and before[name].dtype == torch.float32 for name in whole)
    assert all(not torch.equal(before[name], after[name]) for name in whole)


@pytest.mark.usefixtures("other_plugins")
@pytest.mark.parametrize("family", ["llava", "idefics3"])
def test_adapters_on_quantised_weights_learn_beside_a_projector_that_is_not(
    family: str, seeing_model: Callable[[str], Path], questions: Path, tmp_path: Path, lmflow_cli: Cli
) -> None:
    pytest.importorskip("bitsandbytes", reason="weights are quantised by it")
    folder, output, whole = seeing_model(family), tmp_path / "out", tmp_path / "whole"
    flags = ("--tuner", "qlora", "--lora-dropout", 0, "--lr", 0.01, "--epochs", 6)
    losses = [loss for _, loss in _run(lmflow_cli, folder, questions, output, *flags)["losses"]]
    assert losses[-1] < losses[0] - 0.5
    trained, before = load_file(output / "adapter_model.safetensors"), load_file(folder / "model.safetensors")
    projector = {name: value for name, value in trained.items() if "projector" in name or "connector" in name}
    assert projector
    assert all("lora" not in name for name in projector)
    kept = {name: value for name, value in before.items() if "projector" in name or "connector" in name}
    assert {tuple(value.shape) for value in projector.values()} == {tuple(value.shape) for value in kept.values()}
    assert lmflow_cli("merge", "--model", output, "--output", whole).status == 0
    scores = [
        lmflow_cli("evaluate", "--model", place, "--dataset", questions, "--template", "chatml", "--json").json()
        for place in (folder, output, whole)
    ]
    assert scores[1]["nll_per_token"] < scores[0]["nll_per_token"] - 0.5
    assert scores[1]["nll_per_token"] == pytest.approx(scores[2]["nll_per_token"], abs=1e-4)


@pytest.mark.usefixtures("other_plugins")
def test_a_projector_alone_takes_no_adapters(
    seeing_model: Callable[[str], Path], questions: Path, tmp_path: Path, lmflow_cli: Cli
) -> None:
    options = ("--dataset", questions, "--template", "chatml", "--output", tmp_path / "out", "--tuner", "lora")
    result = lmflow_cli("finetune", "--model", seeing_model("llava"), *options, "--train-parts", "projector")
    assert result.status == 2
    assert "--train-parts projector with --tuner lora" in result.stderr
    assert "--tuner full" in result.stderr


@pytest.mark.usefixtures("other_plugins")
def test_a_run_that_is_stopped_goes_on_exactly(
    seeing_model: Callable[[str], Path], questions: Path, tmp_path: Path, lmflow_cli: Cli
) -> None:
    folder, whole, halved = seeing_model("qwen2_vl"), tmp_path / "whole", tmp_path / "halved"
    steps = ("--epochs", 2, "--save-steps", 2)
    _run(lmflow_cli, folder, questions, whole, *steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmflow_core.workflows.finetune._keep", _stop)
        with pytest.raises(AssertionError, match="interrupted"):
            _run(lmflow_cli, folder, questions, halved, *steps)
    last = max((halved / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[-1]))
    for file in sorted(last.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    last.rmdir()
    _run(lmflow_cli, folder, questions, halved, *steps, "--resume")
    assert _changed(whole, halved) == set()


def _stop(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("other_plugins")
def test_preferences_show_their_images(
    seeing_model: Callable[[str], Path], photos: list[str], tmp_path: Path, lmflow_cli: Cli
) -> None:
    asked = [[{"type": "image", "image": photo}, {"type": "text", "text": "What?"}] for photo in photos]
    rows = [
        {
            "prompt": [{"role": "user", "content": content}],
            "chosen": [{"role": "assistant", "content": _TEXTS[0]}],
            "rejected": [{"role": "assistant", "content": _TEXTS[1]}],
        }
        for content in asked
    ]
    file = Path(photos[0]).with_name("pairs.jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    record = _run(lmflow_cli, seeing_model("qwen2_vl"), file, tmp_path / "out", "--objective", "dpo", "--epochs", 4)
    losses = [value for _, value in record["losses"]]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[-1] < losses[0] - 0.05


@pytest.mark.usefixtures("other_plugins")
def test_parts_that_are_none_are_refused(
    seeing_model: Callable[[str], Path], tiny_model: Path, questions: Path, tmp_path: Path, lmflow_cli: Cli
) -> None:
    common = ("--dataset", questions, "--template", "chatml", "--output", tmp_path / "out")
    result = lmflow_cli("finetune", "--model", seeing_model("llava"), *common, "--train-parts", "eyes")
    assert result.status == 2
    assert "--train-parts eyes: a model that sees has projector, language, vision" in result.stderr
    result = lmflow_cli("finetune", "--model", tiny_model, *common, "--train-parts", "language")
    assert result.status == 2
    assert "--train-parts: " in result.stderr
    result = lmflow_cli("finetune", "--model", tiny_model, *common)
    assert result.status == 2
    assert "the model takes no images" in result.stderr
