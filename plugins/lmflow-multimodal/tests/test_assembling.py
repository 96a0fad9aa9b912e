"""``lmflow vlm assemble``: what is made keeps both parts, loads as a plain model, answers and trains."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from lmflow_core.testing.fixtures import CliResult

Cli = Callable[..., CliResult]
_SHAPE = {
    "image_size": 16, "patch_size": 4, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
    "num_attention_heads": 2,
}  # fmt: skip
_MAKERS: dict[str, Callable[[], Any]] = {
    "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**_SHAPE)),
    "clip with its text": lambda: CLIPModel(
        CLIPConfig(
            vision_config=_SHAPE,
            text_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        )
    ),
    "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**_SHAPE)),
    "dinov2": lambda: Dinov2Model(Dinov2Config(**_SHAPE)),
}


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, make in _MAKERS.items():
        torch.manual_seed(1)
        network = make()
        for parameter in network.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
        folders[name] = tmp_path_factory.mktemp("towers") / name.replace(" ", "-")
        network.save_pretrained(folders[name])
    SiglipImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folders["siglip"])
    return folders


@pytest.fixture
def made(lmflow_cli: Cli, tiny_model: Path, towers: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    def make(kind: str, tower: str, *more: object) -> Path:
        output = tmp_path / f"{kind}-{tower}".replace(" ", "-")
        line = ("vlm", "assemble", "--language", tiny_model, "--vision", towers[tower], "--output", output)
        result = lmflow_cli(*line, "--kind", kind, *more)
        assert result.status == 0, result.stderr
        assert f"{output}: {kind}, " in result.stdout
        return output

    return make


each_made = pytest.mark.parametrize(
    ("kind", "tower"), [*(("llava", tower) for tower in _MAKERS), ("idefics3", "siglip")]
)


@each_made
def test_text_is_answered_as_the_language_model_does(
    kind: str, tower: str, made: Callable[..., Path], tiny_model: Path
) -> None:
    folder = made(kind, tower)
    alone, seeing = (
        AutoModelForCausalLM.from_pretrained(tiny_model),
        AutoModelForImageTextToText.from_pretrained(folder),
    )
    ids = AutoTokenizer.from_pretrained(tiny_model)("Hello world, the quick brown fox", return_tensors="pt").input_ids
    assert AutoTokenizer.from_pretrained(folder)("Hello world, the quick brown fox").input_ids == ids[0].tolist()
    with torch.no_grad():
        expected, found = alone(input_ids=ids).logits, seeing(input_ids=ids).logits
    before = expected.shape[-1]
    torch.testing.assert_close(found[..., :before], expected)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert found.shape[-1] == max(len(tokenizer), before)
    assert tokenizer.convert_tokens_to_ids("<image>") == seeing.config.image_token_id
    head, embeddings = seeing.get_output_embeddings().weight, seeing.get_input_embeddings().weight
    is_tied = alone.get_output_embeddings().weight is alone.get_input_embeddings().weight
    assert (head is embeddings) == is_tied
    torch.testing.assert_close(embeddings[before:], embeddings[:before].mean(0).expand(len(embeddings) - before, -1))


def _pixels() -> torch.Tensor:
    return torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tower", _MAKERS)
def test_llava_sees_what_its_tower_sees(tower: str, made: Callable[..., Path], towers: dict[str, Path]) -> None:
    torch.manual_seed(1)
    alone = _MAKERS[tower]()
    alone = getattr(alone, "vision_model", alone) if tower == "clip with its text" else alone
    alone = type(alone).from_pretrained(towers[tower])
    seeing = AutoModelForImageTextToText.from_pretrained(made("llava", tower))
    with torch.no_grad():
        hidden = alone(_pixels(), output_hidden_states=True).hidden_states[-2]
        patches = hidden[:, 1:] if hidden.shape[1] == 17 else hidden
        projector = seeing.model.multi_modal_projector
        expected = projector.linear_2(torch.nn.functional.gelu(projector.linear_1(patches)))
        found = seeing.get_image_features(pixel_values=_pixels()).pooler_output[0]
    torch.testing.assert_close(found, expected[0], rtol=1e-4, atol=1e-6)


def test_idefics3_sees_what_its_tower_sees(made: Callable[..., Path], towers: dict[str, Path]) -> None:
    alone = SiglipVisionModel.from_pretrained(towers["siglip"])
    seeing = AutoModelForImageTextToText.from_pretrained(made("idefics3", "siglip"))
    with torch.no_grad():
        expected = alone(_pixels()).last_hidden_state
        found = seeing.model.vision_model(pixel_values=_pixels()).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@each_made
def test_plain_transformers_loads_it_and_answers(
    kind: str, tower: str, made: Callable[..., Path], photos: list[str]
) -> None:
    folder = made(kind, tower)
    processor, network = AutoProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder)
    asked = [{"role": "user", "content": [{"type": "image", "image": Image.open(photos[0]).convert("RGB")},
                                          {"type": "text", "text": "What jumps?"}]}]  # fmt: skip
    inputs = processor.apply_chat_template(
        asked, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    image_tokens = int((inputs["input_ids"] == network.config.image_token_id).sum())
    assert image_tokens == (16 if kind == "llava" else 4)
    text = processor.tokenizer.decode(inputs["input_ids"][0])
    assert text.replace("<image>", "").endswith("What jumps?<|im_end|>\n<|im_start|>assistant\n")
    written = network.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert written.shape[1] > inputs["input_ids"].shape[1]


@pytest.mark.parametrize(("kind", "tower"), [("llava", "clip"), ("idefics3", "siglip")])
@pytest.mark.usefixtures("other_plugins")
def test_it_trains(
    kind: str, tower: str, made: Callable[..., Path], lmflow_cli: Cli, photos: list[str], tmp_path: Path
) -> None:
    folder = made(kind, tower)
    row = {"conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "The dog"}],
           "image": photos[0]}  # fmt: skip
    file = Path(photos[0]).parent / f"{kind}.json"
    file.write_text(json.dumps([row] * 4), encoding="utf-8")
    line = (
        "finetune",
        "--model",
        folder,
        "--dataset",
        file,
        "--output",
        tmp_path / "tuned",
        "--epochs",
        8,
        "--lr",
        1e-2,
    )
    result = lmflow_cli(*line, "--batch-size", 4, "--logging-steps", 1, "--warmup-ratio", 0)
    assert result.status == 0, result.stderr
    losses = [value for _, value in json.loads((tmp_path / "tuned/run.json").read_text())["losses"]]
    assert losses[-1] < losses[0] * 0.7
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\nWhat?"}]}]
    before, after = (
        AutoProcessor.from_pretrained(each).apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        for each in (folder, tmp_path / "tuned")
    )
    assert before == after
    assert "<image>\nWhat?" in after


def test_the_projector_follows_from_the_seed(made: Callable[..., Path]) -> None:
    def weights(*more: object) -> torch.Tensor:
        folder = made("llava", "clip", *more)
        network = AutoModelForImageTextToText.from_pretrained(folder)
        shutil.rmtree(folder)
        found: torch.Tensor = network.model.multi_modal_projector.linear_1.weight.detach().clone()
        return found

    first = weights()
    assert torch.equal(first, weights("--projector", "mlp", "--seed", 42))
    assert not torch.equal(first, weights("--seed", 7))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"--vision": "tiny"}, "is no vision tower: it is a llama model, not CLIP, SigLIP or DINOv2"),
        ({"--language": "dinov2"}, "is no causal language model: it is a dinov2 model"),
        ({"--language": "clip"}, "is no causal language model: it is a clip_vision_model model"),
        ({"--language": "nowhere"}, "--language: "),
        ({"--vision": "nowhere"}, "--vision: "),
        (
            {"--kind": "idefics3"},
            "--kind idefics3 takes a SigLIP tower, whose layers are its own, and not a clip_vision",
        ),
        ({"--projector": "pixel-shuffle"}, "--projector pixel-shuffle does not go with --kind llava, whose is mlp"),
        ({"--output": "full"}, "full is not empty: name a folder that is not there yet"),
    ],
)
def test_what_cannot_be_assembled_is_named_and_leaves_nothing(
    changes: dict[str, str], said: str, lmflow_cli: Cli, tiny_model: Path, towers: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    places = {**towers, "tiny": tiny_model, "nowhere": tmp_path / "nowhere", "full": tmp_path / "full"}
    given: dict[str, object] = {"--language": tiny_model, "--vision": towers["clip"], "--output": tmp_path / "out"}
    given |= {flag: places.get(value, value) for flag, value in changes.items()}
    result = lmflow_cli("vlm", "assemble", *(word for pair in given.items() for word in pair))
    assert result.status == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_weights_that_are_missing_are_named(
    lmflow_cli: Cli, tiny_model: Path, towers: dict[str, Path], tmp_path: Path
) -> None:
    network = CLIPVisionModel.from_pretrained(towers["clip"])
    weights = {name: value for name, value in network.state_dict().items() if "layers.2.mlp" not in name}
    network.save_pretrained(tmp_path / "tower", state_dict=weights)
    line = ("vlm", "assemble", "--language", tiny_model, "--vision", tmp_path / "tower", "--output", tmp_path / "out")
    result = lmflow_cli(*line)
    assert (result.status, "lacks weights: " in result.stderr, "layers.2.mlp.fc1" in result.stderr) == (2, True, True)


def test_settings_that_do_not_fit_the_tower_are_refused(
    lmflow_cli: Cli, tiny_model: Path, towers: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(towers["siglip"], tmp_path / "tower")
    SiglipImageProcessorPil(size={"height": 24, "width": 24}).save_pretrained(tmp_path / "tower")
    line = ("vlm", "assemble", "--language", tiny_model, "--vision", tmp_path / "tower", "--output", tmp_path / "out")
    result = lmflow_cli(*line)
    assert (result.status, "takes images of 16 x 16, and its settings make 24 x 24" in result.stderr) == (2, True)


def test_a_language_model_without_a_chat_template_is_told(
    lmflow_cli: Cli, tiny_model: Path, towers: dict[str, Path], tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = None
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    line = (
        "vlm",
        "assemble",
        "--language",
        tmp_path / "base",
        "--vision",
        towers["clip"],
        "--output",
        tmp_path / "out",
    )
    result = lmflow_cli(*line)
    assert (result.status, "has no chat template" in result.stderr) == (0, True)
    assert not list((tmp_path / "out").glob("*chat_template*"))


def _language(kind: str, tiny_model: Path, folder: Path, **changes: object) -> Path:
    """Return a folder with a random language model of a type, and the tiny model's tokenizer."""
    torch.manual_seed(2)
    shape = {
        "vocab_size": 512, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 2,
    }  # fmt: skip
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**shape, **changes}))
    network.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["llava", "idefics3"])
def test_a_head_of_its_own_and_rows_to_spare_are_kept(
    kind: str, lmflow_cli: Cli, tiny_model: Path, towers: dict[str, Path], tmp_path: Path
) -> None:
    spare = len(AutoTokenizer.from_pretrained(tiny_model)) + 100
    folder = _language("qwen2", tiny_model, tmp_path / "text", vocab_size=spare, tie_word_embeddings=False)
    line = ("vlm", "assemble", "--language", folder, "--vision", towers["siglip"], "--output", tmp_path / "out")
    assert lmflow_cli(*line, "--kind", kind).status == 0
    alone = AutoModelForCausalLM.from_pretrained(folder)
    seeing = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    for part in ("get_input_embeddings", "get_output_embeddings"):
        torch.testing.assert_close(getattr(seeing, part)().weight, getattr(alone, part)().weight)
    assert not torch.equal(seeing.get_input_embeddings().weight, seeing.get_output_embeddings().weight)
    ids = torch.arange(3, 9)[None]
    torch.testing.assert_close(seeing(input_ids=ids).logits, alone(input_ids=ids).logits)


def test_a_language_model_that_changes_its_logits_is_refused(
    lmflow_cli: Cli, tiny_model: Path, towers: dict[str, Path], tmp_path: Path
) -> None:
    folder = _language("granite", tiny_model, tmp_path / "text", logits_scaling=8.0)
    line = ("vlm", "assemble", "--language", folder, "--vision", towers["clip"], "--output", tmp_path / "out")
    result = lmflow_cli(*line)
    assert (result.status, (tmp_path / "out").exists()) == (2, False)
    assert "a granite model answers otherwise within a llava model" in result.stderr
