"""Tokens per second of decoding one answer at a time: plain sampling, prompt lookup, and transformers' own.

``python benchmarks/decoding_speed.py --model smollm2-135m-instruct`` asks every contender for the same greedy answers
in turn, round after round, and prints the medians over all prompts and rounds. Grounded prompts ask for a text to be
rewritten, free ones for something new. Tokens per second of processor time (with ``OMP_NUM_THREADS=1``) hold also
where other work has the cores. The last column tells whether all tokens were those of our plain sampling.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch

from lmflow_core.answers import all_stops, prompt_ids
from lmflow_core.console import table
from lmflow_core.conversations import Message
from lmflow_core.opening import choose_template, open_model
from lmflow_core.registry import Catalogue
from lmflow_core.settings import DecodingSettings, ModelSettings
from lmflow_speculative.decoders import PromptLookupDecoder
from lmflow_speculative.options import PromptLookupOptions
from lmflow_transformers.sampling import SamplingDecoder

_STORY = (
    "The old lighthouse at Carrow Point was built in 1874 by a crew of eleven masons. Its lamp burned whale oil until "
    "1902, when the keeper, Mr. Alder, had a paraffin burner fitted. In the storm of 1913 the gallery was torn away, "
    "and for three weeks the light was tended from a rowing boat. Today the tower is a museum with nine thousand "
    "visitors a year, most of whom climb the one hundred and sixty-two steps to the lantern room."
)
_CODE = (
    "def total(prices, discount):\n    result = 0\n    for price in prices:\n        if price < 0:\n"
    "            raise ValueError('a price is negative')\n        result += price * (1 - discount)\n    return result"
)
PROMPTS = {
    "grounded": (
        f"Repeat this text word for word, but write 1875 instead of 1874:\n\n{_STORY}",
        f"Correct the spelling of this text and give the whole text:\n\n{_STORY.replace('museum', 'musuem')}",
        f"Rename the variable result to amount in this Python function and give the whole function:\n\n{_CODE}",
    ),
    "free": (
        "Write a short story about a fox who learns to swim.",
        "Explain in simple words why the sky is blue.",
        "Give me ideas for a birthday party in winter.",
    ),
}
Contender = Callable[[Sequence[int], int], list[int]]


def contenders(model: Any, stop_ids: frozenset[int], length: int) -> dict[str, Contender]:
    """Return by name what answers a prompt greedily with up to a number of tokens."""

    def ours(decoder: Any) -> Contender:
        def answer(prompt: Sequence[int], tokens: int) -> list[int]:
            steps = decoder.decode(model, prompt, max_new_tokens=tokens, stop_ids=stop_ids, seed=0)
            return [token for step in steps for token in step.ids]

        return answer

    def generate(**options: Any) -> Contender:
        def answer(prompt: Sequence[int], tokens: int) -> list[int]:
            ids = torch.tensor([list(prompt)])
            asked = {"max_new_tokens": tokens, "do_sample": False, "eos_token_id": list(stop_ids), **options}
            whole = model.base.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **asked)
            return list(whole[0, len(prompt) :].tolist())

        return answer

    lookup = PromptLookupDecoder(PromptLookupOptions(draft_length=length))
    return {
        "LMFlow sampling": ours(SamplingDecoder()),
        "LMFlow prompt-lookup": ours(lookup),
        "transformers generate": generate(),
        "transformers generate, prompt_lookup_num_tokens": generate(prompt_lookup_num_tokens=length),
    }


def measure(prompts: Sequence[Sequence[int]], asked: dict[str, Contender], tokens: int, rounds: int) -> Any:
    """Return by contender the tokens/s of every answer, and whether its tokens were always those of the first one."""
    speeds: dict[str, list[float]] = {name: [] for name in asked}
    busy: dict[str, list[float]] = {name: [] for name in asked}
    same = dict.fromkeys(asked, True)
    for answer in asked.values():
        answer(prompts[0], 4)  # warms up
    for _ in range(rounds):
        for prompt in prompts:
            expected: list[int] | None = None
            for name, answer in asked.items():
                started, worked = time.perf_counter(), time.process_time()
                ids = answer(prompt, tokens)
                speeds[name].append(len(ids) / (time.perf_counter() - started))
                busy[name].append(len(ids) / (time.process_time() - worked))
                expected = expected or ids
                same[name] &= ids == expected
    return {
        name: {
            "tokens_per_second": round(median(speeds[name]), 2),
            "tokens_per_processor_second": round(median(busy[name]), 2),
            "same_tokens": same[name],
        }
        for name in asked
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--tokens", type=int, default=128, help="the longest answer")
    parser.add_argument("--draft-length", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    catalogue = Catalogue.discover()
    opened = open_model(ModelSettings(model=arguments.model, device="cpu"), catalogue)
    _, template = choose_template(None, opened, catalogue)
    model: Any = opened.load()
    stops = all_stops(DecodingSettings(), template, model.tokenizer)
    stop_ids = frozenset(
        model.tokenizer.control_tokens[stop] for stop in stops if stop in model.tokenizer.control_tokens
    )
    asked = contenders(model, stop_ids, arguments.draft_length)
    measured = {}
    for kind, texts in PROMPTS.items():
        prompts = [prompt_ids(model.tokenizer, template, [Message("user", text)]) for text in texts]
        measured[kind] = measure(prompts, asked, arguments.tokens, arguments.rounds)
    if arguments.json:
        print(json.dumps(measured, indent=2))
        return
    rows = [
        (
            kind,
            name,
            f"{told['tokens_per_second']:.1f}",
            f"{told['tokens_per_processor_second']:.1f}",
            "yes" if told["same_tokens"] else "no",
        )
        for kind, found in measured.items()
        for name, told in found.items()
    ]
    print(table(("PROMPTS", "CONTENDER", "TOKENS/S", "TOKENS/CPU-S", "SAME TOKENS"), rows))


if __name__ == "__main__":
    main()
