"""Models that see: both files are those of llama.cpp's converter, and llama.cpp sees with them what the model sees."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer

from lmflow_core.api import ModelError
from lmflow_core.testing.fixtures import CliResult
from lmflow_gguf.convert import Source, convert, make_source
from lmflow_gguf.seeing.families import FAMILIES
from lmflow_gguf.seeing.writing import convert_eyes, note_of, read_eyes

# Made by: python dev/gguf_oracle.py LLAMA_CPP_SOURCES --records seeing
ORACLE: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "oracle-seeing.json").read_text(encoding="utf-8"))
Models = Callable[[str], Path]
Describe = Callable[[Path], dict[str, Any]]


def _source(folder: Path, **changes: Any) -> Source:
    config = AutoConfig.from_pretrained(folder).to_dict()
    for part, values in changes.items():
        config[part] = {**config[part], **values} if isinstance(values, dict) else values
    return make_source(folder, folder.name, config, AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize(
    ("family", "type_name"), [(family, name) for family in ORACLE for name in ORACLE[family]["text"]]
)
def test_text_and_eyes_are_those_of_the_converter(
    family: str, type_name: str, seeing_folder: Models, describe: Describe, tmp_path: Path
) -> None:
    source = _source(seeing_folder(family))
    convert(source, tmp_path / "text.gguf", type_name.upper(), "gpt-2")
    convert_eyes(source, read_eyes(source), tmp_path / "eyes.gguf", type_name.upper())
    for part in ("text", "eyes"):
        ours, theirs = describe(tmp_path / f"{part}.gguf"), ORACLE[family][part][type_name]
        assert ours["tensors"] == theirs["tensors"]
        assert ours["keys"] == theirs["keys"]


def test_every_family_is_recorded() -> None:
    assert set(ORACLE) == set(FAMILIES)


def test_a_text_of_another_kind_is_the_one_of_a_model_that_does_not_see(
    seeing_folder: Models, model_folder: Models, describe: Describe, tmp_path: Path
) -> None:
    """Idefics3 takes any language model, and the converter only those of the Llama family."""
    from safetensors.torch import load_file, save_file

    plain, folder = model_folder("qwen3"), tmp_path / "qwen3"
    shutil.copytree(plain, folder)
    text = load_file(folder / "model.safetensors")
    save_file(
        {name.replace("model.", "model.text_model."): each for name, each in text.items()}, folder / "model.safetensors"
    )
    config = AutoConfig.from_pretrained(plain).to_dict()
    whole = AutoConfig.from_pretrained(seeing_folder("idefics3")).to_dict() | {"text_config": config}
    tokenizer = AutoTokenizer.from_pretrained(plain)
    convert(make_source(folder, "qwen3", whole, tokenizer), tmp_path / "seen.gguf", "F32", "gpt-2")
    convert(make_source(plain, "qwen3", config, tokenizer), tmp_path / "plain.gguf", "F32", "gpt-2")
    assert describe(tmp_path / "seen.gguf") == describe(tmp_path / "plain.gguf")


REFUSED = {
    "idefics3": ({"hidden_act": "gelu"}, "the activation gelu is not gelu_pytorch_tanh"),
    "qwen2_vl": ({"spatial_merge_size": 4}, "spatial_merge_size is 4, not 2"),
    "qwen2_5_vl": ({"window_size": 56}, "window_size is 56, not 112"),
}


@pytest.mark.parametrize("family", REFUSED)
def test_eyes_that_llama_cpp_would_compute_wrongly_are_refused(family: str, seeing_folder: Models) -> None:
    changes, message = REFUSED[family]
    with pytest.raises(ModelError, match=f"would compute the eyes of this model wrongly: {message}"):
        read_eyes(_source(seeing_folder(family), vision_config=changes))


def test_another_family_is_refused_with_the_list(seeing_folder: Models) -> None:
    with pytest.raises(
        ModelError,
        match=r"a model that sees of type llava cannot be written as GGUF; of these it can: idefics3, smolvlm, ",
    ):
        _source(seeing_folder("idefics3"), model_type="llava")


def test_a_processor_without_colours_is_told(seeing_folder: Models, tmp_path: Path) -> None:
    folder = tmp_path / "idefics3"
    shutil.copytree(seeing_folder("idefics3"), folder)
    file = folder / "processor_config.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    del told["image_processor"]["image_mean"]
    file.write_text(json.dumps(told), encoding="utf-8")
    source = _source(folder)
    with pytest.raises(ModelError, match="lack 'image_mean'"):
        convert_eyes(source, read_eyes(source), tmp_path / "eyes.gguf", "F32")


def test_a_model_that_is_shown_images_in_another_way_is_noted(seeing_folder: Models, tmp_path: Path) -> None:
    assert note_of(read_eyes(_source(seeing_folder("idefics3")))) is None
    folder = tmp_path / "whole"
    shutil.copytree(seeing_folder("idefics3"), folder)
    file = folder / "processor_config.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    told["image_processor"]["do_image_splitting"] = False
    file.write_text(json.dumps(told), encoding="utf-8")
    assert "is shown each of them twice" in str(note_of(read_eyes(_source(folder))))


def test_the_command_writes_both_files_or_none(
    lmflow_cli: Callable[..., CliResult], seeing_folder: Models, describe: Describe, tmp_path: Path
) -> None:
    pytest.importorskip("lmflow_multimodal", reason="models that see are opened by a plugin of their own")
    file, eyes = tmp_path / "seen.gguf", tmp_path / "mmproj-seen.gguf"
    flags = ("export", "--model", seeing_folder("idefics3"), "--format", "gguf", "--pre-tokenizer", "gpt-2")
    eyes.write_text("of somebody else")
    refused = lmflow_cli(*flags, "--type", "F32", "--output", file)
    assert refused.status == 2
    assert "mmproj-seen.gguf exists already" in refused.stderr
    assert list(tmp_path.iterdir()) == [eyes]
    assert lmflow_cli(*flags, "--type", "F32", "--output", file, "--overwrite").status == 0
    assert {path.name for path in tmp_path.iterdir()} == {"seen.gguf", "mmproj-seen.gguf"}
    assert describe(file)["tensors"] == ORACLE["idefics3"]["text"]["f32"]["tensors"]
    assert describe(eyes)["tensors"] == ORACLE["idefics3"]["eyes"]["f32"]["tensors"]
    folder = tmp_path / "types"
    assert lmflow_cli(*flags, "--type", "F16,Q8_0", "--mmproj-type", "F32", "--output", folder).status == 0
    names = {"idefics3-F16.gguf", "idefics3-Q8_0.gguf", "mmproj-idefics3-F32.gguf"}
    assert {path.name for path in folder.iterdir()} == names
