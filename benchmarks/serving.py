"""Requests per second of ``lmflow serve``, for numbers of slots and of clients.

``python benchmarks/serving.py --model smollm2-135m-instruct`` starts one server after the other, sends each the same
greedy requests from several clients at once, and prints a table. Every answer must be that of the first server.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import openai

from lmflow_core.report.console import table


@contextlib.contextmanager
def running(model: str, slots: int) -> Iterator[str]:
    """Start a server and give its address."""
    command = [sys.executable, "-m", "lmflow_core", "serve", "--model", model, "--port", "0", "--slots", str(slots)]
    process = subprocess.Popen(
        [*command, "--served-model-name", "model", "--max-queue", "1000"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    found = re.search(r"(http://\S+)/v1;", line := process.stderr.readline())
    if found is None:
        raise SystemExit(line + process.stderr.read())
    try:
        yield found.group(1)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


def ask(client: openai.OpenAI, number: int, tokens: int) -> tuple[str, int, float]:
    """Return an answer, its tokens, and how long it took in seconds."""
    started = time.perf_counter()
    answer = client.completions.create(
        model="model", prompt=f"Story number {number}. Once upon a time,", max_tokens=tokens
    )
    assert answer.usage is not None
    return answer.choices[0].text, answer.usage.completion_tokens, time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    rows = []
    expected: list[str] = []
    for slots in arguments.slots:
        with running(arguments.model, slots) as url, ThreadPoolExecutor(arguments.clients) as pool:
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=3600, max_retries=0)
            ask(client, 0, 4)  # warms up
            started = time.perf_counter()
            asked = [pool.submit(ask, client, number, arguments.tokens) for number in range(arguments.requests)]
            texts, tokens, seconds = zip(*(future.result() for future in asked), strict=True)
            took = time.perf_counter() - started
        expected = expected or list(texts)
        if list(texts) != expected:
            raise SystemExit(f"with {slots} slots an answer differs")
        rows.append((slots, f"{len(texts) / took:.2f}", f"{sum(tokens) / took:.1f}", f"{median(seconds):.2f}"))
    print(table(("SLOTS", "REQUESTS/S", "TOKENS/S", "MEDIAN S"), rows))


if __name__ == "__main__":
    main()
