"""Run files from strangers: each is taken as it was meant or refused in one short message."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.cli.flags import FlagParser
from lmflow_core.config.run_file import read_run_file
from lmflow_core.config.schema import FINETUNE
from lmflow_core.errors import RequestError
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.scripts import load_script

_CAMPAIGNS = Path(__file__).parents[1] / "dev" / "campaigns"


@pytest.fixture(scope="module")
def campaign() -> Any:
    return load_script(_CAMPAIGNS / "run_files.py")


def test_attacks_and_mutations_end_in_one_message(campaign: Any, tmp_path: Path) -> None:
    catalogue, random_, file = Catalogue.discover(), random.Random(1), tmp_path / "run.yaml"
    parser = FlagParser(FINETUNE, catalogue)
    text = campaign.yaml.safe_dump(campaign._RUN)
    mutations = [campaign.mutated(text, random_) for _ in range(200)]
    for kind, content in (*campaign.ATTACKS.items(), *mutations):
        file.write_bytes(content)
        assert campaign.problem_with(file, parser, catalogue) is None, kind


REFUSED: list[tuple[bytes, str]] = [
    (b"a: &a [x]\nb: *a", "broken YAML: aliases are not taken: write the value out"),
    (b"model: !!python/name:os.system", "broken YAML: the tag 'tag:yaml.org,2002:python/name:os.system' is not taken"),
    (b"model: a\nmodel: b", "broken YAML: 'model' is there twice"),
    (b"max-steps: 1\nmax_steps: 2", "'max_steps' is there twice; leave one out"),
    (b'{"model": "a", "model": "b"}', "'model' is there twice; leave one out"),
    (b"model: m\xf6", r"not UTF-8 \(byte 8\); convert it to UTF-8"),
    (b"model: " + b"[" * 100_000, "nested too deeply for a run file"),
    (b"date: 2024-99-99", "broken YAML: a value cannot be read: month must be in 1..12"),
    (b"n: " + b"9" * 5000, "broken YAML: a value cannot be read: "),
    (b"m" * 101 + b": 1", "a key of 101 characters is no option name"),
    (b"- model", "a run file maps option names to values"),
    (b"x" * ((64 << 20) + 1), "more than 64 MB are no run file"),
]


@pytest.mark.parametrize(("content", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    with pytest.raises(RequestError, match=f"^{file}: {message}"):
        read_run_file(file)


def test_what_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("\ufeffmodel: m\nlora-r: 8\ndataset: [a, b]\n", encoding="utf-8")
    assert read_run_file(file) == {"model": "m", "lora_r": 8, "dataset": ["a", "b"]}
    file.write_text(json.dumps({"options": {"model": "\x7f"}, "losses": [[1, 2.0]]}), encoding="utf-8")
    assert read_run_file(file) == {"model": "\x7f"}
    file.write_text("{model: m, lr: 1e-3}", encoding="utf-8")
    assert read_run_file(file) == {"model": "m", "lr": "1e-3"}


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the run file cannot be read: No such file or directory"):
        read_run_file(tmp_path / "run.yaml")
