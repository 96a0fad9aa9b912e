"""Settings of measuring a model by what its own answers are worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmflow_core.options import option


@dataclass(frozen=True, kw_only=True)
class AnsweringSettings:
    """Which prompts are answered, and what is told of the answers."""

    dataset: tuple[Path, ...] = option(
        help="Prompts, or conversations, whose last answer is then left to the reward: file, folder or hub name."
    )
    dataset_format: str | None = option(None, help="Form of the rows; recognised from them when left out.")
    max_prompts: int | None = option(None, help="Answer only this many.", minimum=1)
    samples: int = option(
        1, help="Answers to each prompt; several are sampled at temperature 1 unless another is given.", minimum=1
    )
    batch_size: int = option(32, help="Answers that are written together, at most.", minimum=1)
    reward_at_least: float | None = option(
        None, help="Tell the share of answers worth this much; the most the rewards can give when left out."
    )
    reference_model: str | None = option(
        None, help="Tell how far the model is from this one, as KL divergence of its answers; same tokenizer."
    )
    samples_file: Path | None = option(None, help="Write every answer with its rewards to this JSONL file.")
    output_file: Path | None = option(None, help="Write the result to this JSON file.")
