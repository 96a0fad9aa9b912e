"""A model folder is looked at before a library opens it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.api import ModelError
from lmflow_transformers.folder_check import check_folder
from lmflow_transformers.safetensors_head import tensor_entries

_Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def _refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        check_folder(folder)
    return str(caught.value).replace(str(folder), "MODEL")


def _file(folder: Path, head: object, numbers: int = 4) -> Path:
    written = json.dumps(head).encode()
    file = folder / "model.safetensors"
    file.write_bytes(len(written).to_bytes(8, "little") + written + bytes(4 * numbers))
    return file


def _tensor(*, dtype: object = "F32", shape: object = (2, 2), place: object = (0, 16)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": place}


def test_a_whole_folder_passes(folder: Path) -> None:
    check_folder(folder)


def test_entries_are_read_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    last = _tensor(shape=[1], place=[12, 16])
    file = _file(tmp_path, {"b": last, "a": _tensor(shape=[3], place=[0, 12]), "__metadata__": {"format": "pt"}})
    assert [(entry.name, entry.shape) for entry in tensor_entries(file)] == [("a", (3,)), ("b", (1,))]


LIES: dict[str, tuple[object, str]] = {
    "no object": ([], "its header is no JSON object"),
    "a tensor that is text": ({"a": "x"}, "its header does not tell where a lies and in which shape"),
    "a shape with fractions": ({"a": _tensor(shape=[1.5])}, "does not tell where a lies"),
    "a negative shape": ({"a": _tensor(shape=[-2, -2])}, "does not tell where a lies"),
    "offsets of one": ({"a": _tensor(place=[0])}, "does not tell where a lies"),
    "an unknown format": ({"a": _tensor(dtype="F7")}, "a has the unknown number format 'F7'"),
    "a shape that is too large": ({"a": _tensor(shape=[2**32, 2**32])}, "a has 16 bytes, and F32 of shape"),
    "a tensor beyond the end": ({"a": _tensor(shape=[2**40], place=[0, 2**42])}, "a would end at byte"),
    "tensors that overlap": ({"a": _tensor(), "b": _tensor()}, "b begins at byte 0, where 16 was expected"),
    "bytes of no tensor": ({"a": _tensor(shape=[1], place=[0, 4])}, "its tensors end at byte"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_head_that_lies_is_told(name: str, tmp_path: Path) -> None:
    head, message = LIES[name]
    file = _file(tmp_path, head)
    with pytest.raises(ModelError) as caught:
        tensor_entries(file)
    assert str(caught.value).startswith(f"{file} is ")
    assert message in str(caught.value)


SIZES: dict[str, tuple[str, object, str]] = {
    "layers": ("num_hidden_layers", 10**12, "more than the weights beside it can hold"),
    "width": ("hidden_size", 2**63, "more than the weights beside it can hold"),
    "table of tokens": ("vocab_size", 40_000, "vocab_size times hidden_size is 1,280,000"),
    "no layers": ("num_hidden_layers", 0, "where at least 1 is needed"),
    "any number": ("sliding_window", 10**20, "more than the weights beside it can hold"),
    "code of a hub": ("attn_implementation", "somebody/kernel", "which is no name of an attention"),
    "a configuration within": ("text_config", 5, "text_config must be an object"),
}


@pytest.mark.parametrize("name", SIZES)
def test_an_absurd_size_is_told_before_memory_is_taken(name: str, folder: Path) -> None:
    key, value, message = SIZES[name]
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    assert _refusal(folder).startswith("MODEL/config.json: ")
    assert message in _refusal(folder)


def test_links_out_of_the_folder_are_refused_but_for_weights(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    weights.symlink_to(weights.rename(tmp_path / "kept.safetensors"))
    check_folder(folder)
    (tmp_path / "secret").write_text("mine")
    (folder / "README.md").symlink_to(tmp_path / "secret")
    assert _refusal(folder).startswith("MODEL/README.md is a link out of the folder")


def test_links_of_the_hubs_cache_are_no_links_out(folder: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "1", tmp_path / "hub" / "blobs"
    for made in (snapshot, blobs):
        made.mkdir(parents=True)
    for file in folder.iterdir():
        (snapshot / file.name).symlink_to(file.rename(blobs / file.name))
    check_folder(snapshot)


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")
    assert _refusal(folder) == "MODEL/tokenizer.json is no file"


INDEXES: dict[str, tuple[object, str]] = {
    "out of the folder": (
        {"a": "../model.safetensors"},
        "which is no file of its folder",
    ),
    "to nothing": ({"a": "other.safetensors"}, "MODEL lacks other.safetensors"),
    "to a number": ({"a": 5}, "has no 'weight_map' of tensors to files"),
    "a list": (["a"], "has no 'weight_map' of tensors to files"),
}


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_that_leads_astray_is_told(name: str, folder: Path) -> None:
    placed, message = INDEXES[name]
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    assert message in _refusal(folder)


def test_a_tokenizer_with_tokens_the_model_lacks_is_told_before_weights_are_read(folder: Path, lmflow_cli: Any) -> None:
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"]["h"] = 5000
    file.write_text(json.dumps(content))
    told = lmflow_cli("generate", "--model", folder, "--prompt", "hi")
    assert told.status == 2
    assert told.stderr.endswith("the tokenizer has a token 5000, and the model has 400 tokens\n")
