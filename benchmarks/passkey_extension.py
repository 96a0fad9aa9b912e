"""A small model trained at 256 positions and extended to 1,024: passkey retrieval before, with and after scaling.

    python benchmarks/passkey_extension.py

A two-layer Llama learns, from nothing, to find a five-digit key in prompts of up to 256 tokens. Then every scheme at
factor 4 is measured at up to 1,024 tokens, as it is and after a short fine-tune at the new lengths; "none" is the same
without any scaling, which the paper of position interpolation calls direct fine-tuning. Each figure is the share of
keys found over all depths, as `lmflow evaluate --benchmark passkey` counts it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lmflow_core.api import EncodedSequence, ModelSettings
from lmflow_core.contracts.position_scaling import PositionScalingSpec, ScaledPositions
from lmflow_core.models.opening import open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_position_scaling.passkey import (
    FILLER,
    INTRODUCTION,
    KEY,
    QUESTION,
    PasskeyBenchmark,
    PasskeyOptions,
    PasskeyPrompt,
)

TRAINED, TARGET, FACTOR = 256, 1024, 4.0
LENGTHS = (256, 512, 768, 1024)
SCHEMES = (None, "linear", "ntk", "dynamic-ntk", "yarn", "llama3", "longrope")
DIGITS = 5
# The slowest wavelength is 8 times the trained length: as far beyond it as in the models of the papers, in kind.
THETA = 1000.0


def main() -> None:
    """Train, extend, fine-tune, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1600, help="of training from nothing")
    parser.add_argument("--tuning-steps", type=int, default=60, help="of fine-tuning at the new lengths")
    parser.add_argument("--trials", type=int, default=8, help="keys at each length and depth")
    parser.add_argument("--only", help="extend with schemes whose name holds this text")
    parser.add_argument("--keep", type=Path, help="folder for the trained model, used again when it is there")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.keep or Path(folder) / "small"
        if not path.is_dir():
            _make_model(path)
            _train_from_nothing(path, arguments.steps)
        results = []
        for scheme in (scheme for scheme in SCHEMES if (arguments.only or "") in (scheme or "none")):
            model = _opened(path, scheme)
            before = _measure(model, arguments.trials)
            _fine_tune(model, arguments.tuning_steps)
            results.append({"scheme": scheme or "none", "before": before, "after": _measure(model, arguments.trials)})
            print(results[-1], file=sys.stderr, flush=True)
    print(json.dumps(results, indent=2) if arguments.json else _table(results))


def _make_model(folder: Path) -> None:
    """Write a random model whose vocabulary is the words of the benchmark's prompt."""
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=True)]
    )
    text = " ".join((INTRODUCTION, FILLER, KEY.format(key="0123456789"), QUESTION))
    words = dict.fromkeys(["[PAD]", *(word for word, _ in splitter.pre_tokenize_str(text))])
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[PAD]"))
    backend.pre_tokenizer = splitter
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=TRAINED, tie_word_embeddings=True, pad_token_id=0,
        bos_token_id=None, eos_token_id=None, rope_parameters={"rope_type": "default", "rope_theta": THETA},
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def _opened(folder: Path, scheme: str | None) -> Any:
    catalogue = Catalogue.discover()
    model: Any = open_model(ModelSettings(model=str(folder), device="cpu"), catalogue).model
    if scheme is not None:
        spec = catalogue.of(PositionScalingSpec).spec(scheme)
        options = spec.options() if spec.options else None
        positions = ScaledPositions(scheme, catalogue.of(PositionScalingSpec).load(scheme), FACTOR, options)
        model.accept(replace(model.plan, positions=positions))
    model.load()
    return model


def _train_from_nothing(folder: Path, steps: int) -> None:
    """Train in place; prompts grow from the shortest to the trained length as the loss allows."""
    model = _opened(folder, None)
    shortest = PasskeyPrompt(model).shortest(DIGITS)
    longest, smooth = shortest + 2, 4.0

    def lengths(loss: float | None) -> int:
        nonlocal longest, smooth
        smooth = smooth if loss is None else 0.9 * smooth + 0.1 * loss
        if smooth < 0.25:
            longest, smooth = min(TRAINED, longest + 4), max(smooth, 0.2)
        low = shortest if generator.random() < 0.5 else (shortest + longest) // 2
        return generator.randint(low, longest)

    generator = random.Random(0)
    for step, loss in enumerate(_steps(model, steps, lengths, tokens=2400, rate=2e-3)):
        if step % 100 == 0:
            print(f"step {step}: prompts up to {longest} tokens, loss {loss:.3f}", file=sys.stderr, flush=True)
    model.save(folder, None)


def _fine_tune(model: Any, steps: int) -> None:
    """Train on prompts of every length up to the new one."""
    generator = random.Random(1)
    for _ in _steps(model, steps, lambda _: generator.randint(TRAINED // 2, TARGET), tokens=4096, rate=5e-4):
        pass


def _steps(
    model: Any, steps: int, next_length: Callable[[float | None], int], *, tokens: int, rate: float
) -> Iterator[float]:
    """Take AdamW steps on batches of prompts of one length; yield each step's loss."""
    network, prompt, generator = model.network.train(), PasskeyPrompt(model), random.Random(2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.01)
    loss: float | None = None
    for step in range(steps):
        length = next_length(loss)
        lessons = [_lesson(prompt, length, generator) for _ in range(max(2, tokens // length))]
        ids = torch.tensor([lesson.input_ids for lesson in lessons])
        targets = torch.tensor([lesson.labels for lesson in lessons])[:, 1:]
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 20, max(0.05, (steps - step) / (0.3 * steps)))
        hidden = network.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        error = torch.nn.functional.cross_entropy(network.lm_head(hidden[targets >= 0]), targets[targets >= 0])
        optimizer.zero_grad()
        error.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        loss = error.item()
        yield loss
    network.eval()


def _lesson(prompt: PasskeyPrompt, length: int, generator: random.Random) -> EncodedSequence:
    """Return a prompt whose answer is learned, and the key's second mention too: that is the easier half to learn."""
    built = prompt.build(f"{generator.randrange(10**DIGITS):0{DIGITS}d}", length, generator.random())
    ids, labels = list(built.input_ids), list(built.labels)
    answer = ids[-DIGITS:]
    mentions = [at for at in range(length - DIGITS) if ids[at : at + DIGITS] == answer]
    labels[mentions[-1] : mentions[-1] + DIGITS] = answer
    return EncodedSequence(ids, labels)


def _measure(model: Any, trials: int) -> dict[int, float]:
    started = time.perf_counter()
    report = PasskeyBenchmark(PasskeyOptions(passkey_lengths=LENGTHS, passkey_trials=trials)).run(model)
    print(f"measured in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return {length: report.metrics[f"accuracy_{length}"] for length in LENGTHS}


def _table(results: list[dict[str, Any]]) -> str:
    heads = [f"{when} {length:,}" for when in ("scaled", "tuned") for length in LENGTHS]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for row in results:
        cells = [f"{row[when][length]:.0%}" for when in ("before", "after") for length in LENGTHS]
        lines.append(f"| {row['scheme']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
