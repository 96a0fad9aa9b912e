"""Tokens per second of decoding one answer at a time: plain sampling, drafts of several kinds, and transformers' own.

``python benchmarks/decoding_speed.py --model smollm2-135m-instruct`` asks every contender for the same greedy answers
in turn, round after round, and prints the medians over all prompts and rounds. Grounded prompts ask for a text to be
rewritten, free ones for something new. Tokens per second of processor time (with ``OMP_NUM_THREADS=1``) hold also
where other work has the cores. The last column tells whether all tokens were those of our plain sampling.

``--draft-model FOLDER`` adds the decoders ``speculative`` with that draft model and ``self-speculative``;
``--prompts FILE`` asks other prompts (JSONL rows with ``prompt``), such as some the draft model did not learn from.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from lmflow_core.contracts.decoder import DecodingRequest
from lmflow_core.contracts.examples import Message
from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.data.encoding import Encoder
from lmflow_core.generation.answers import encoded_prompt, own_stops, stop_tokens
from lmflow_core.generation.prompts import read_prompts
from lmflow_core.generation.second_models import Models
from lmflow_core.models.opening import open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report.console import table
from lmflow_core.templates.choosing import choose_template
from lmflow_speculative.decoders import DraftModelDecoder, PromptLookupDecoder, SelfSpeculativeDecoder
from lmflow_speculative.options import DraftModelOptions, PromptLookupOptions, SelfSpeculativeOptions
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


@dataclass(frozen=True)
class Sampled:
    """An answer: its tokens, how many of them were drafted and accepted, and the passes of the model; 0 is unknown."""

    ids: list[int]
    drafted: int = 0
    accepted: int = 0
    passes: int = 0


Contender = Callable[[Sequence[int], int], Sampled]


def contenders(
    model: Any, catalogue: Catalogue, stop_ids: frozenset[int], length: int, draft_model: Path | None
) -> dict[str, Contender]:
    """Return by name what answers a prompt greedily with up to a number of tokens."""

    services = Models(catalogue)

    def ours(decoder: Any) -> Contender:
        decoder.prepare(model, services)

        def answer(prompt: Sequence[int], tokens: int) -> Sampled:
            steps = list(decoder.decode(model, DecodingRequest(prompt, tokens, stop_ids)))
            return Sampled(
                [token for step in steps for token in step.ids],
                sum(step.drafted for step in steps),
                sum(step.accepted for step in steps),
                sum(step.passes for step in steps),
            )

        return answer

    # A model of its own, as ours keeps copies of its weights that would serve transformers too.
    theirs = copy.deepcopy(model.base)

    def generate(**options: Any) -> Contender:
        def answer(prompt: Sequence[int], tokens: int) -> Sampled:
            ids = torch.tensor([list(prompt)])
            asked = {"max_new_tokens": tokens, "do_sample": False, "eos_token_id": list(stop_ids), **options}
            whole = theirs.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **asked)
            return Sampled(list(whole[0, len(prompt) :].tolist()))

        return answer

    lookup = PromptLookupDecoder(PromptLookupOptions(draft_length=length))
    asked = {"LMFlow sampling": ours(SamplingDecoder()), "LMFlow prompt-lookup": ours(lookup)}
    if draft_model is not None:
        options = DraftModelOptions(draft_model=str(draft_model), draft_length=length)
        asked["LMFlow speculative"] = ours(DraftModelDecoder(options))
        asked["LMFlow self-speculative"] = ours(SelfSpeculativeDecoder(SelfSpeculativeOptions(draft_length=length)))
        draft = AutoModelForCausalLM.from_pretrained(draft_model).eval()
        asked["transformers generate, assistant_model"] = generate(assistant_model=draft)
    return {
        **asked,
        "transformers generate": generate(),
        "transformers generate, prompt_lookup_num_tokens": generate(prompt_lookup_num_tokens=length),
    }


def measure(prompts: Sequence[Sequence[int]], asked: dict[str, Contender], tokens: int, rounds: int) -> Any:
    """Return by contender the tokens/s of every answer, how drafts fared, and whether the first one's tokens came."""
    speeds: dict[str, list[float]] = {name: [] for name in asked}
    busy: dict[str, list[float]] = {name: [] for name in asked}
    answers: dict[str, list[Sampled]] = {name: [] for name in asked}
    for answer in asked.values():
        answer(prompts[0], 4)  # warms up
    for _ in range(rounds):
        for prompt in prompts:
            for name, answer in asked.items():
                started, worked = time.perf_counter(), time.process_time()
                sampled = answer(prompt, tokens)
                speeds[name].append(len(sampled.ids) / (time.perf_counter() - started))
                busy[name].append(len(sampled.ids) / (time.process_time() - worked))
                answers[name].append(sampled)
    first = [sampled.ids for sampled in next(iter(answers.values()))]
    return {
        name: {
            "tokens_per_second": round(median(speeds[name]), 2),
            "tokens_per_processor_second": round(median(busy[name]), 2),
            **_drafts(answers[name]),
            "same_tokens": [sampled.ids for sampled in answers[name]] == first,
        }
        for name in asked
    }


def _drafts(answers: Sequence[Sampled]) -> dict[str, float]:
    """Return how drafts fared over all answers, where that is known."""
    drafted, passes = sum(sampled.drafted for sampled in answers), sum(sampled.passes for sampled in answers)
    if not drafted:
        return {}
    return {
        "acceptance_rate": round(sum(sampled.accepted for sampled in answers) / drafted, 4),
        "tokens_per_pass": round(sum(len(sampled.ids) for sampled in answers) / passes, 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--tokens", type=int, default=128, help="the longest answer")
    parser.add_argument("--draft-length", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--draft-model", type=Path, help="folder of a draft model")
    parser.add_argument("--prompts", type=Path, help="file of prompts to ask instead")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    catalogue = Catalogue.discover()
    opened = open_model(ModelSettings(model=arguments.model, device="cpu"), catalogue)
    _, template = choose_template(None, opened, catalogue)
    model: Any = opened.load()
    stop_ids = stop_tokens(own_stops(template, model.tokenizer), model.tokenizer)
    asked = contenders(model, catalogue, stop_ids, arguments.draft_length, arguments.draft_model)
    asked_for = {kind: [[Message("user", text)] for text in texts] for kind, texts in PROMPTS.items()}
    if arguments.prompts is not None:
        asked_for = {arguments.prompts.name: read_prompts(arguments.prompts)}
    measured = {}
    for kind, conversations in asked_for.items():
        encoder = Encoder(model.tokenizer, template)
        prompts = [list(encoded_prompt(encoder, messages).input_ids) for messages in conversations]
        measured[kind] = measure(prompts, asked, arguments.tokens, arguments.rounds)
    if arguments.json:
        print(json.dumps(measured, indent=2))
        return
    columns = ("PROMPTS", "CONTENDER", "TOKENS/S", "TOKENS/CPU-S", "ACCEPTED", "TOKENS/PASS", "SAME TOKENS")
    rows = [
        (
            kind,
            name,
            f"{told['tokens_per_second']:.1f}",
            f"{told['tokens_per_processor_second']:.1f}",
            str(told.get("acceptance_rate", "")),
            str(told.get("tokens_per_pass", "")),
            "yes" if told["same_tokens"] else "no",
        )
        for kind, found in measured.items()
        for name, told in found.items()
    ]
    print(table(columns, rows))


if __name__ == "__main__":
    main()
