"""Data made ready: the cache is used when nothing changed, never when a label would; files of every form serve."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.api import DataError, EncodedExample, ImagePart, ModelSettings
from lmflow_core.contracts.settings import DataSettings
from lmflow_core.data.asked import as_prompt
from lmflow_core.data.dataset import Dataset, DatasetMaker
from lmflow_core.data.examples import ExampleReader
from lmflow_core.models.opening import open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.fixtures import CliResult

Cli = Callable[..., CliResult]


def _turns(*contents: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[at % 2], "content": content} for at, content in enumerate(contents)]}


ROWS = [_turns(f"hello {n}", f"world {n}", "and?", f"again {n}") for n in range(12)]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.discover()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMFLOW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path: Path) -> DataSettings:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    return DataSettings(dataset=(file,), template="chatml", max_length=64)


def _made(data: DataSettings, folder: Path, catalogue: Catalogue, seed: int = 0) -> Dataset:
    opened = open_model(ModelSettings(model=str(folder)), catalogue)
    return DatasetMaker(data, opened, catalogue, seed=seed).make()


def test_nothing_changed_reuses_what_is_there(data: DataSettings, tiny_model: Path, catalogue: Catalogue) -> None:
    first, second = (_made(data, tiny_model, catalogue) for _ in range(2))
    assert (first.from_cache, second.from_cache) == (False, True)
    assert first.key == second.key
    assert first.counts == second.counts
    assert first.rows.fingerprint() == second.rows.fingerprint()
    assert [*first.rows] == [*second.rows]
    moved = data.dataset[0].rename(data.dataset[0].with_name("moved.jsonl"))
    assert _made(dataclasses.replace(data, dataset=(moved,)), tiny_model, catalogue).from_cache


CHANGES: dict[str, dict[str, Any]] = {
    "what is trained on": {"train_on": "last"},
    "the template": {"template": "zephyr"},
    "the longest row": {"max_length": 63},
    "the policy for longer rows": {"length_policy": "drop"},
    "the number of rows": {"max_train_samples": 11},
    "the form of the rows": {"dataset_format": "messages"},
    "the share for validation": {"eval_share": 0.3},
    "how often rows count": {"dataset_weights": (2.0,)},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_setting_has_a_key_of_its_own(
    name: str, data: DataSettings, tiny_model: Path, catalogue: Catalogue
) -> None:
    before = _made(data, tiny_model, catalogue)
    after = _made(dataclasses.replace(data, **CHANGES[name]), tiny_model, catalogue)
    assert after.key != before.key
    assert not after.from_cache


def test_a_changed_row_or_tokenizer_has_a_key_of_its_own(
    data: DataSettings, tiny_model: Path, tmp_path: Path, catalogue: Catalogue
) -> None:
    before = _made(data, tiny_model, catalogue)
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["pre_tokenizer"] = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": True,
        "use_regex": True,
    }
    (other / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    assert _made(data, other, catalogue).key != before.key
    settings = json.loads((tiny_model / "tokenizer_config.json").read_text(encoding="utf-8"))
    (other / "tokenizer.json").write_bytes((tiny_model / "tokenizer.json").read_bytes())
    ends = {"eos_token": "<|im_start|>", "pad_token": "<|im_start|>"}
    assert settings["eos_token"] != "<|im_start|>"
    (other / "tokenizer_config.json").write_text(json.dumps({**settings, **ends}), encoding="utf-8")
    assert _made(data, other, catalogue).key != before.key
    rows = [*ROWS[:-1], _turns("hello", "world!")]
    data.dataset[0].write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert _made(data, tiny_model, catalogue).key != before.key


def test_the_seed_counts_where_something_is_drawn(data: DataSettings, tiny_model: Path, catalogue: Catalogue) -> None:
    assert _made(data, tiny_model, catalogue, 1).key == _made(data, tiny_model, catalogue, 2).key
    sampled = dataclasses.replace(data, eval_share=0.5)
    first, second = (_made(sampled, tiny_model, catalogue, seed) for seed in (1, 2))
    assert first.key != second.key
    assert first.validation is not None
    assert len(first.rows) + len(first.validation) == len(ROWS)


def test_what_is_trained_on_follows_the_policy(data: DataSettings, tiny_model: Path, catalogue: Catalogue) -> None:
    trained = {
        policy: _made(dataclasses.replace(data, train_on=policy), tiny_model, catalogue).counts.trained_tokens
        for policy in ("last", "assistant", "all")
    }
    assert 0 < trained["last"] < trained["assistant"] < trained["all"]


def test_a_broken_cache_is_made_anew(
    data: DataSettings, tiny_model: Path, catalogue: Catalogue, own_cache: Path
) -> None:
    first = _made(data, tiny_model, catalogue)
    labels = own_cache / "data" / first.key / "rows" / "labels"
    labels.write_bytes(labels.read_bytes()[:-4])
    again = _made(data, tiny_model, catalogue)
    assert not again.from_cache
    assert again.rows.fingerprint() == first.rows.fingerprint()


def test_without_a_cache_nothing_is_left(
    data: DataSettings, tiny_model: Path, catalogue: Catalogue, own_cache: Path
) -> None:
    made = _made(dataclasses.replace(data, cache=False), tiny_model, catalogue)
    assert len(list(made.rows)) == len(ROWS)
    assert not own_cache.exists()


def test_a_bad_row_leaves_no_cache(data: DataSettings, tiny_model: Path, lmflow_cli: Cli, own_cache: Path) -> None:
    with data.dataset[0].open("a", encoding="utf-8") as file:
        file.write('\n{"messages": []}\n')
    result = lmflow_cli("evaluate", "--model", tiny_model, "--dataset", data.dataset[0])
    assert result.status == 2
    assert f"{data.dataset[0]}, row 13: the conversation is empty" in result.stderr
    assert [entry.suffix for entry in (own_cache / "data").iterdir()] == [".lock"]


def test_the_same_rows_from_any_file_are_the_same_data(
    data: DataSettings, tiny_model: Path, tmp_path: Path, catalogue: Catalogue
) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [{"instruction": f"Say {n}", "output": f"{n}!"} for n in range(5)]
    table = pyarrow.Table.from_pylist(rows)
    files = {name: tmp_path / f"same{name}" for name in (".jsonl", ".csv", ".parquet", ".arrow")}
    files[".jsonl"].write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    files[".csv"].write_text("instruction,output\n" + "\n".join(f"Say {n},{n}!" for n in range(5)), encoding="utf-8")
    parquet.write_table(table, files[".parquet"])
    with pyarrow.OSFile(str(files[".arrow"]), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    prints = {
        _made(dataclasses.replace(data, dataset=(file,)), tiny_model, catalogue).rows.fingerprint()
        for file in files.values()
    }
    assert len(prints) == 1


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_a_broken_table_is_told(suffix: str, tmp_path: Path, lmflow_cli: Cli) -> None:
    file = tmp_path / f"rows{suffix}"
    file.write_bytes(b"no table at all")
    result = lmflow_cli("data", "check", file)
    assert result.status == 2
    assert f"{file}: cannot be read as {suffix[1:].capitalize()}" in result.stdout


def test_a_hub_that_cannot_be_reached_is_told(lmflow_cli: Cli) -> None:
    result = lmflow_cli("data", "check", "nobody/nothing")
    assert result.status == 2
    assert "nobody/nothing: cannot be loaded from the hub" in result.stdout


def test_a_validation_share_is_measured_during_training(
    data: DataSettings, tiny_model: Path, tmp_path: Path, lmflow_cli: Cli
) -> None:
    flags = ["--eval-share", "0.3", "--load-best-model", "--epochs", "2", "--json"]
    request = ["finetune", "--model", tiny_model, "--dataset", data.dataset[0], "--output", tmp_path / "out", *flags]
    result = lmflow_cli(*request)
    assert result.status == 0, result.stderr
    assert len(result.json()["validation_losses"]) == 2
    assert " for validation" in result.stderr


class _Pictures:
    """An image is as many tokens as it has bytes, the first of them."""

    fingerprint = "pictures"
    around = ("", "")
    placeholder = "<image>"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def tokenize(self, image: ImagePart) -> tuple[list[int], str]:
        self.asked.append(Path(image.source).name)
        try:
            content = Path(image.source).read_bytes()
        except OSError as error:
            raise ValueError(f"{image.source} cannot be read: {error.strerror}") from error
        return [content[0]] * len(content), hashlib.sha256(content).hexdigest()

    def held(self, image: ImagePart) -> ImagePart:
        return image


@pytest.fixture
def shown(tmp_path: Path) -> DataSettings:
    """Return data of two rows, each with an image beside the file."""
    rows = []
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"ab")
        asked = {"role": "user", "content": [{"type": "image", "image": name}, {"type": "text", "text": "what?"}]}
        rows.append({"messages": [asked, {"role": "assistant", "content": "this"}]})
    file = tmp_path / "shown.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return DataSettings(dataset=(file,), template="chatml", max_length=64)


def _made_seeing(data: DataSettings, folder: Path, catalogue: Catalogue, pictures: _Pictures) -> Dataset:
    opened = open_model(ModelSettings(model=str(folder)), catalogue)
    opened.model.media = pictures
    return DatasetMaker(data, opened, catalogue).make()


def test_images_are_kept_by_reference(
    shown: DataSettings, tiny_model: Path, tmp_path: Path, catalogue: Catalogue
) -> None:
    made = _made_seeing(shown, tiny_model, catalogue, _Pictures())
    [media] = made.rows[1].sequences[0].media
    assert (media.source, media.tokens) == (str(tmp_path / "b.png"), 2)
    assert media.digest == hashlib.sha256(b"ab").hexdigest()
    assert list(made.rows[1].sequences[0].input_ids[media.start : media.start + 2]) == [97, 97]
    with pytest.raises(DataError, match=r"row 1: the model takes no images"):
        _made(shown, tiny_model, catalogue)


def test_an_image_with_other_bytes_makes_the_data_anew(
    shown: DataSettings, tiny_model: Path, tmp_path: Path, catalogue: Catalogue
) -> None:
    pictures = _Pictures()
    first = _made_seeing(shown, tiny_model, catalogue, pictures)
    assert (first.from_cache, pictures.asked) == (False, ["a.png", "b.png"])
    # Nothing changed: no image is read.
    assert _made_seeing(shown, tiny_model, catalogue, pictures).from_cache
    assert pictures.asked == ["a.png", "b.png"]
    # A file that was only touched is read, and its bytes are the same.
    os.utime(tmp_path / "b.png", ns=(1, 1))
    assert _made_seeing(shown, tiny_model, catalogue, pictures).from_cache
    assert pictures.asked == ["a.png", "b.png", "b.png"]
    (tmp_path / "b.png").write_bytes(b"cde")
    again = _made_seeing(shown, tiny_model, catalogue, pictures)
    assert not again.from_cache
    assert again.rows.fingerprint() != first.rows.fingerprint()
    assert [m.tokens for s in again.rows.sequences() for m in s.media] == [2, 3]
    assert _made_seeing(shown, tiny_model, catalogue, pictures).from_cache


def test_an_image_that_is_gone_is_told_by_row(
    shown: DataSettings, tiny_model: Path, tmp_path: Path, catalogue: Catalogue
) -> None:
    _made_seeing(shown, tiny_model, catalogue, _Pictures())
    (tmp_path / "b.png").unlink()
    with pytest.raises(DataError, match=r"shown\.jsonl, row 2: .*b\.png cannot be read: No such file"):
        _made_seeing(shown, tiny_model, catalogue, _Pictures())


def test_the_same_rows_elsewhere_may_show_other_images(
    shown: DataSettings, tiny_model: Path, tmp_path: Path, catalogue: Catalogue
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name, content in (("a.png", b"x"), ("b.png", b"yz")):
        (elsewhere / name).write_bytes(content)
    copied = dataclasses.replace(shown, dataset=(Path(shutil.copy(shown.dataset[0], elsewhere)),))
    first, second = (_made_seeing(data, tiny_model, catalogue, _Pictures()) for data in (shown, copied))
    assert [m.tokens for s in first.rows.sequences() for m in s.media] == [2, 2]
    assert [m.tokens for s in second.rows.sequences() for m in s.media] == [1, 2]
    other = _Pictures()
    other.fingerprint = "other pictures"
    assert not _made_seeing(shown, tiny_model, catalogue, other).from_cache


PAIR = {"prompt": "hello", "chosen": " world", "rejected": " dog", "margin": 1.5}
GROUPS: dict[str, tuple[tuple[str, ...], list[dict[str, Any]], dict[str, int]]] = {
    "preference": (("preference",), [PAIR, {**PAIR, "chosen": " fox"}], {"rows": 2, "examples": 2, "sequences": 4}),
    "judged": (
        ("judged",),
        [{"prompt": "hello", "completion": " world", "label": True}],
        {"rows": 1, "examples": 1, "sequences": 1},
    ),
    "candidates": (
        ("candidates",),
        [{"input": "hello", "output": [" a", " b", " c"]}],
        {"rows": 1, "examples": 1, "sequences": 3},
    ),
    "prompt": (("prompt",), [{"prompt": "hello"}], {"rows": 1, "examples": 1, "sequences": 1, "trained_tokens": 0}),
}


def _comparable(examples: Iterable[EncodedExample]) -> list[EncodedExample]:
    """Return examples whose numbers are texts: scores that are not there are no numbers, which nothing equals."""
    return [
        dataclasses.replace(each, numbers={name: tuple(map(str, values)) for name, values in each.numbers.items()})
        for each in examples
    ]


@pytest.mark.parametrize("kind", GROUPS)
def test_data_of_groups_is_made_and_kept(
    kind: str, data: DataSettings, tiny_model: Path, write_rows: Callable[..., Path], catalogue: Catalogue
) -> None:
    accepted, rows, counts = GROUPS[kind]
    settings = dataclasses.replace(data, dataset=(write_rows(rows),))
    opened = open_model(ModelSettings(model=str(tiny_model)), catalogue)
    maker = DatasetMaker(settings, opened, catalogue, accepted=accepted)
    first, second = maker.make(), maker.make()
    assert (first.from_cache, second.from_cache) == (False, True)
    assert _comparable(first.rows) == _comparable(second.rows)
    assert {name: first.counts.as_dict()[name] for name in counts} == counts
    # What is encoded later is encoded as the data was.
    located = ExampleReader(catalogue).read(settings.dataset)
    examples = [(as_prompt(each) if kind == "prompt" else None) or each.example for each in located]
    assert _comparable(maker.encoder.encode(examples)) == _comparable(first.rows)
    with pytest.raises(DataError, match=f"row 1: a {kind} example, but the objective learns from text, prompted"):
        DatasetMaker(settings, opened, catalogue).make()


def test_messages_that_end_with_the_user_are_read_as_prompts_alone(
    data: DataSettings, tiny_model: Path, write_rows: Callable[..., Path], catalogue: Catalogue
) -> None:
    opened = open_model(ModelSettings(model=str(tiny_model)), catalogue)
    settings = dataclasses.replace(data, dataset=(write_rows([_turns("hello", "world", "and?")]),))
    with pytest.raises(DataError, match="row 1: the conversation ends with a user message"):
        DatasetMaker(settings, opened, catalogue, accepted=("prompt",)).make()
    asked = dataclasses.replace(settings, dataset_format="prompt")
    assert len(DatasetMaker(asked, opened, catalogue, accepted=("prompt",)).make().rows) == 1
    answered = dataclasses.replace(asked, dataset=(write_rows([_turns("hello", "world")]),))
    with pytest.raises(
        DataError, match="row 1: the prompt ends with a message of the assistant; the last message must"
    ):
        DatasetMaker(answered, opened, catalogue, accepted=("prompt",)).make()
