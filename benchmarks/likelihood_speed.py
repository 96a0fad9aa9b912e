"""Speed and memory of log-likelihoods: LMFlow's scorer against lm-evaluation-harness's ``HFLM``, on the same requests.

    python benchmarks/likelihood_speed.py --data arc_easy.jsonl

Multiple choice behind few-shot prompts: each question of the file, in the form of AI2's ARC, is asked with each of its
choices behind the same examples, which are the first rows. Each contender works in a process of its own, one after the
other, in float32 on one thread. HFLM is run with each of ``--batch-sizes``, and has its cache for choices of one token.
``requests/s`` is by processor time, so that other work of the machine does not count. The last column is the largest
difference of a log-likelihood from LMFlow's, or with ``--exact`` from what transformers gives for the request alone,
with sums in float64.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

Request = tuple[list[int], list[int]]


def main() -> None:
    """Run every contender and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="questions: rows of ARC, JSONL")
    parser.add_argument("--model", help="a folder; SmolLM2-135M-Instruct of lmflow-smollm2 when left out")
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--letters", action="store_true", help="choices are named in the question, answers are letters")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 16], help="of HFLM")
    parser.add_argument("--exact", action="store_true", help="compare with each request alone, which takes long")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.model = arguments.model or _smollm2()
    if arguments.worker is not None:
        print(json.dumps(_work(arguments)))
        return
    results = [_run(size, arguments) for size in (0, *arguments.batch_sizes, *([-1] if arguments.exact else []))]
    print(json.dumps(results, indent=2) if arguments.json else _table(results, exact=arguments.exact))


def _smollm2() -> str:
    from lmflow_smollm2.loader import cached_folder

    return str(cached_folder())


def _run(size: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run a contender: 0 is LMFlow, -1 each request alone, any other number HFLM with batches of so many."""
    command = [sys.executable, __file__, "--data", arguments.data, "--model", arguments.model, "--worker", size]
    command += ["--questions", arguments.questions, "--shots", arguments.shots, *["--letters"] * arguments.letters]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    name = {0: "LMFlow", -1: "each alone"}.get(size, f"HFLM, batches of {size}")
    return {"name": name, **json.loads(done.stdout.splitlines()[-1])}


def _work(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    requests = _requests(arguments)
    work = {0: _with_lmflow, -1: _alone}.get(arguments.worker, _with_hflm)
    seconds, found = work(arguments, requests)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"requests": len(requests), "cpu_seconds": seconds, "peak_memory_bytes": peak, "logprobs": found}


def _requests(arguments: argparse.Namespace) -> list[Request]:
    from transformers import AutoTokenizer

    rows = [json.loads(line) for line in arguments.data.read_text(encoding="utf-8").splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    shots = "".join(_example(row, letters=arguments.letters) for row in rows[: arguments.shots])
    requests = []
    for row in rows[arguments.shots :][: arguments.questions]:
        context = tokenizer(shots + _question(row, letters=arguments.letters)).input_ids
        for choice in row["choices"]["label" if arguments.letters else "text"]:
            whole = tokenizer(shots + _question(row, letters=arguments.letters) + f" {choice}").input_ids
            requests.append((context, whole[len(context) :]))
    return requests


def _question(row: dict[str, Any], *, letters: bool) -> str:
    named = zip(row["choices"]["label"], row["choices"]["text"], strict=True) if letters else ()
    return f"Question: {row['question']}\n" + "".join(f"{label}. {text}\n" for label, text in named) + "Answer:"


def _example(row: dict[str, Any], *, letters: bool) -> str:
    right = row["choices"]["label"].index(row["answerKey"])
    answer = row["choices"]["label" if letters else "text"][right]
    return f"{_question(row, letters=letters)} {answer}\n\n"


def _with_lmflow(arguments: argparse.Namespace, requests: list[Request]) -> tuple[float, list[float]]:
    from lmflow_core.api import IGNORE, EncodedSequence, ModelSettings
    from lmflow_transformers.models import CausalModelLoader

    settings = ModelSettings(model=arguments.model, device="cpu", dtype="float32")
    model = CausalModelLoader().open(arguments.model, settings)
    model.load()
    texts = [EncodedSequence([*context, *answer], [*[IGNORE] * len(context), *answer]) for context, answer in requests]
    started = time.process_time()
    found = [-score.nll for score in model.score(texts)]
    return time.process_time() - started, found


def _with_hflm(arguments: argparse.Namespace, requests: list[Request]) -> tuple[float, list[float]]:
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=arguments.model, device="cpu", dtype="float32", batch_size=arguments.worker)
    asked = [((str(at), ""), context, answer) for at, (context, answer) in enumerate(requests)]
    started = time.process_time()
    found = [logprob for logprob, _ in model._loglikelihood_tokens(asked, disable_tqdm=True)]
    return time.process_time() - started, found


def _alone(arguments: argparse.Namespace, requests: list[Request]) -> tuple[float, list[float]]:
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    started, found = time.process_time(), []
    with torch.no_grad():
        for context, answer in requests:
            logits = network(torch.tensor([[*context, *answer]]), use_cache=False).logits[0, len(context) - 1 : -1]
            logprobs = logits.double().log_softmax(-1)
            found.append(float(logprobs[torch.arange(len(answer)), torch.tensor(answer)].sum()))
    return time.process_time() - started, found


def _table(results: list[dict[str, Any]], *, exact: bool) -> str:
    reference = results[-1 if exact else 0]["logprobs"]
    lines = [f"{'':24}{'requests/s':>11}{'peak MB':>9}  difference"]
    for result in results:
        speed, memory = result["requests"] / result["cpu_seconds"], result["peak_memory_bytes"] / 1e6
        far = max(abs(one - other) for one, other in zip(result["logprobs"], reference, strict=True))
        lines.append(f"{result['name']:24}{speed:11.2f}{memory:9.0f}  {far:.1e}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
