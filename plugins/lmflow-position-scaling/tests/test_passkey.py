"""The passkey benchmark: prompts of exact lengths, and what counts as found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from lmflow_core.api import IGNORE, EncodedSequence, ModelSettings, RequestError, Score
from lmflow_position_scaling.passkey import PasskeyBenchmark, PasskeyOptions, PasskeyPrompt
from lmflow_transformers.models import CausalModel, CausalModelLoader


@pytest.fixture
def model(tiny_model: Path) -> CausalModel:
    return CausalModelLoader().open(str(tiny_model), ModelSettings(model=str(tiny_model), device="cpu"))


@pytest.mark.parametrize("depth", [0.0, 0.3, 1.0])
def test_a_prompt_has_its_length_its_key_and_its_answer(model: CausalModel, depth: float) -> None:
    prompt = PasskeyPrompt(model)
    length = prompt.shortest(5) + 100
    built = prompt.build("13579", length, depth)
    assert len(built.input_ids) == len(built.labels) == length
    text = model.tokenizer.decode(built.input_ids)
    assert text.count("13579") == 3
    assert text.endswith("What is the pass key? The pass key is 13579")
    answer = [label for label in built.labels if label != IGNORE]
    assert model.tokenizer.decode(answer) == " 13579"
    hidden_at = len(prompt._start) + round(100 * depth)
    assert model.tokenizer.decode(built.input_ids[hidden_at:]).startswith(" The pass key is 13579.")


def test_a_length_without_room_is_refused(model: CausalModel) -> None:
    shortest = PasskeyPrompt(model).shortest(5)
    with pytest.raises(RequestError, match=f"the shortest prompt has {shortest} tokens"):
        PasskeyPrompt(model).build("13579", shortest - 1, 0.5)


class _Knows(CausalModel):
    """Finds every key in prompts up to a length; misses one token of it in longer ones."""

    limit = 0
    tells = True

    def __init__(self, inner: CausalModel) -> None:
        self.reference, self.tokenizer = inner.reference, inner.tokenizer

    def score(self, examples: Iterable[EncodedSequence]) -> Iterator[Score]:
        for example in examples:
            tokens = sum(label != IGNORE for label in example.labels)
            right = tokens - (len(example.input_ids) > self.limit)
            yield Score(1.0, tokens, right if self.tells else None)


def test_a_key_is_found_only_whole(model: CausalModel) -> None:
    knows = _Knows(model)
    shortest = PasskeyPrompt(model).shortest(5)
    lengths = (shortest + 20, shortest + 90)
    knows.limit = lengths[0]
    benchmark = PasskeyBenchmark(PasskeyOptions(passkey_lengths=lengths, passkey_depths=3, passkey_trials=2))
    report = benchmark.run(knows)
    assert report.metrics == {"accuracy": 0.5, f"accuracy_{lengths[0]}": 1.0, f"accuracy_{lengths[1]}": 0.0}
    assert report.grid is not None
    assert report.grid.values == ((1.0, 0.0), (1.0, 0.0), (1.0, 0.0))
    assert report.grid.rows == ("0%", "50%", "100%")
    knows.tells = False
    with pytest.raises(RequestError, match="does not tell its likeliest tokens"):
        benchmark.run(knows)


@pytest.mark.slow
def test_a_real_model_finds_keys_in_range_and_loses_them_beyond(smollm2_folder: Path) -> None:
    model = CausalModelLoader().open(str(smollm2_folder), ModelSettings(model="smollm2", device="cpu"))
    model.load()
    options = PasskeyOptions(passkey_lengths=(256,), passkey_depths=3, passkey_trials=2)
    assert PasskeyBenchmark(options).run(model).metrics["accuracy"] >= 0.5
