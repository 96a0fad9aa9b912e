"""The tuner of new rows: they train, and nothing else changes by a bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lmflow_core.testing.fixtures import CliResult
from lmflow_core.testing.tiny import make_tiny_model

Cli = Callable[..., CliResult]
Language = Callable[..., Path]


def _extended(lmflow_cli: Cli, old: Path, file: Path, output: Path) -> Path:
    command = ("vocab", "extend", "--model", old, "--files", file, "--size", 60, "--output", output)
    assert lmflow_cli(*command).status == 0
    return output


@pytest.mark.parametrize(
    ("tied", "optimizer"), [(True, "adamw"), (False, "adamw"), (False, "lion"), (True, "adafactor")]
)
def test_old_rows_and_all_else_keep_their_bits(
    tied: bool, optimizer: str, language: Language, tmp_path: Path, lmflow_cli: Cli, write_rows: Callable[..., Path]
) -> None:
    pytest.importorskip("lmflow_datasets", reason="the form of the rows is one of the plugin datasets")
    if optimizer != "adamw":
        pytest.importorskip("lmflow_optimizers", reason="the optimizer is one of the plugin optimizers")
    file = language("CJK")
    old = make_tiny_model(tmp_path / "old", tie_word_embeddings=tied)
    start = _extended(lmflow_cli, old, file, tmp_path / "start")
    rows = write_rows([{"text": line} for line in file.read_text(encoding="utf-8").splitlines()[:40]])
    flags = ("--epochs", 2, "--batch-size", 4, "--weight-decay", 0.1, "--lr", "1e-2", "--optimizer", optimizer)
    command = ("finetune", "--model", start, "--dataset", rows, "--tuner", "embeddings", *flags)
    result = lmflow_cli(*command, "--output", tmp_path / "tuned", "--max-length", 256, "--length-policy", "truncate")
    assert result.status == 0, result.stderr
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("start", "tuned"))
    grown = {"model.embed_tokens.weight", *(() if tied else ("lm_head.weight",))}
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        if name not in grown:
            assert torch.equal(tensor, after[name]), name
            continue
        assert torch.equal(tensor[:400], after[name][:400])
        changed = (tensor[400:460] != after[name][400:460]).any(1)
        assert changed.float().mean() > 0.8, name


def test_which_rows_are_new_must_be_known(
    tiny_model: Path, tmp_path: Path, lmflow_cli: Cli, write_rows: Callable[..., Path]
) -> None:
    rows = write_rows([{"text": "The quick brown fox."}])
    command = (
        "finetune",
        "--model",
        tiny_model,
        "--dataset",
        rows,
        "--tuner",
        "embeddings",
        "--output",
        tmp_path / "o",
    )
    result = lmflow_cli(*command)
    assert result.status == 2
    assert "does not tell which of its tokens are new" in result.stderr
    result = lmflow_cli(*command, "--embeddings-from", 400)
    assert result.status == 2
    assert "the model has 400 rows" in result.stderr


def test_an_optimizer_that_changes_old_rows_is_found_out(tiny_model: Path, tmp_path: Path) -> None:
    import dataclasses

    from lmflow_core.api import LmflowError, TrainingSettings
    from lmflow_core.testing.jobs import make_job, single
    from lmflow_transformers.api import AdamW
    from lmflow_transformers.training.sft import SftObjective
    from lmflow_vocabulary.options import EmbeddingsOptions
    from lmflow_vocabulary.tuner import EmbeddingsTuner

    class Decaying(AdamW):
        def make(self, groups, settings):  # type: ignore[no-untyped-def]
            return super().make([dataclasses.replace(group, decays=True) for group in groups], settings)

    settings = TrainingSettings(lr=1e-2, batch_size=2, epochs=1, weight_decay=0.5, logging_steps=1)
    tuner = EmbeddingsTuner(EmbeddingsOptions(embeddings_from=100))
    examples = [single(list(range(90, 120))), single(list(range(5, 30)))]
    job = make_job(tiny_model, tmp_path / "c", settings, examples, tuner=tuner, optimizer=Decaying())
    with pytest.raises(LmflowError, match="changes rows that have no gradient"):
        SftObjective().train(job)
