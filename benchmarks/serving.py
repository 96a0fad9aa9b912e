"""Speed of ``lmflow serve``, beside ``transformers serve`` and llama.cpp's server.

``python benchmarks/serving.py --data ROWS.json`` exports SmolLM2 to a folder and a GGUF file in float32, starts one
server after the other and asks each the same: one client and eight at once, with prompts of 20 to 600 tokens; a short
prompt alone and while a prompt of 4,000 tokens is read; eight prompts of 500 tokens one after the other, and eight
answers to one. No two requests begin alike, but for the last. Servers that are not installed are left out;
``--llama-server`` names the program of llama.cpp.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import openai

from lmflow_core.report.console import table

_MODEL = "smollm2-135m-instruct"
_LENGTHS = (20, 60, 120, 200, 300, 400, 500, 600)
_ROUNDS = 1
_ANSWER = 128
_LONG, _SHORT, _SHARED = 4000, 20, 500
_SECONDS_TO_START = 300


@dataclass(frozen=True)
class Contender:
    """A server.

    Attributes:
        name: for the table.
        command: starts it at ``{port}``.
        model: what requests call the model.
        several: whether it takes ``n``.
    """

    name: str
    command: Sequence[str]
    model: str
    several: bool = False


@dataclass(frozen=True)
class Figures:
    """What was measured of one server; seconds, and tokens of answers per second."""

    one_client: float
    eight_clients: float
    first_alone: float
    first_beside_long: float
    worst_beside_long: float
    shared_in_turn: float | None
    shared_together: float | None
    texts: tuple[str, ...]


def contenders(folder: Path, gguf: Path, llama_server: str | None) -> Iterator[Contender]:
    """Yield the servers that there are."""
    lmflow = [sys.executable, "-m", "lmflow_core", "serve", "--model", str(folder), "--port", "{port}"]
    named = [*lmflow, "--served-model-name", "model", "--max-queue", "1000"]
    yield Contender("lmflow serve", named, "model", several=True)
    yield Contender("lmflow serve --decoder prompt-lookup", [*named, "--decoder", "prompt-lookup"], "model", True)
    if llama_server is not None:
        serve = [llama_server, "-m", str(gguf), "--port", "{port}", "-t", str(os.cpu_count()), "-np", "8"]
        yield Contender("llama-server -np 8, F32", [*serve, "-c", "40960"], "model")
    transformers = shutil.which("transformers", path=str(Path(sys.executable).parent))
    if transformers is not None:
        serve = [transformers, "serve", str(folder), "--device", "cpu", "--dtype", "float32", "--port", "{port}"]
        yield Contender("transformers serve", serve, str(folder))
        yield Contender("transformers serve --continuous-batching", [*serve, "--continuous-batching"], str(folder))


@contextlib.contextmanager
def running(contender: Contender) -> Iterator[str]:
    """Start a server and give its address once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [part.format(port=port) for part in contender.command]
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(command, stdout=told, stderr=told, text=True)
        try:
            _wait_until_up(process, f"http://127.0.0.1:{port}/v1/models", told)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_up(process: subprocess.Popen[str], url: str, told: Any) -> None:
    end = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.5)
    told.seek(0)
    raise SystemExit(f"{process.args} did not start:\n{told.read()[-2000:]}")


class Client:
    """Asks one server."""

    def __init__(self, url: str, contender: Contender) -> None:
        self._client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=3600, max_retries=0)
        self._model = contender.model

    def ask(self, prompt: str, tokens: int = _ANSWER, **fields: Any) -> tuple[list[str], int]:
        """Return the answers to a prompt and how many tokens they have."""
        messages: Any = [{"role": "user", "content": prompt}]
        options: Any = {"temperature": 0, "max_tokens": tokens, **fields}
        answer = self._client.chat.completions.create(model=self._model, messages=messages, **options)
        assert answer.usage is not None
        return [str(choice.message.content) for choice in answer.choices], answer.usage.completion_tokens

    def first(self, prompt: str) -> float:
        """Return the seconds from a request to the first text of its answer."""
        started = time.perf_counter()
        stream = self._client.chat.completions.create(
            model=self._model,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=4,
            temperature=0,
            stream=True,
        )
        took = None
        for chunk in stream:
            if took is None and chunk.choices and chunk.choices[0].delta.content:
                took = time.perf_counter() - started
        return took or time.perf_counter() - started


def measure(contender: Contender, texts: Texts) -> Figures:
    """Start a server and measure it."""
    with running(contender) as url:
        client = Client(url, contender)
        client.ask("Hello there.", 8)  # warms up
        alone = median(client.first(texts.words(_SHORT, start)) for start in range(5))
        one, told = _speed(client, _mixed(texts, "First"), 1)
        eight, told_together = _speed(client, _mixed(texts, "Then"), 8)
        beside = _beside_a_long_prompt(client, texts)
        in_turn = together = None
        if contender.several:
            others = [texts.words(_SHARED, 900 + 15 * at) for at in range(8)]
            shared = texts.words(_SHARED, 1100)
            in_turn = _seconds(lambda: [client.ask(prompt, 64, temperature=1.0) for prompt in others])
            together = _seconds(lambda: client.ask(shared, 64, n=8, temperature=1.0))
    return Figures(one, eight, alone, median(beside), max(beside), in_turn, together, (*told, *told_together))


def _mixed(texts: Texts, opening: str) -> list[str]:
    """Return prompts of all lengths; with another opening, the same that have no beginning in common."""
    return [f"{opening}: {texts.words(length, 50 + 20 * at)}" for at, length in enumerate(_LENGTHS * _ROUNDS)]


def _speed(client: Client, prompts: Sequence[str], clients: int) -> tuple[float, list[str]]:
    """Return the tokens per second of some clients that share the prompts, and the answers."""
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(client.ask, prompts))
    took = time.perf_counter() - started
    return sum(tokens for _, tokens in answers) / took, [text for (text,), _ in answers]


def _beside_a_long_prompt(client: Client, texts: Texts) -> list[float]:
    """Return the seconds to the first text of short prompts, asked one by one while a long one is read."""
    reading = threading.Thread(target=client.ask, args=(texts.words(_LONG, 2000), 1))
    reading.start()
    time.sleep(0.5)
    seconds: list[float] = []
    while reading.is_alive() and len(seconds) < 12:
        took = client.first(texts.words(_SHORT, 4000 + 7 * len(seconds)))
        if reading.is_alive() or not seconds:
            seconds.append(took)
        time.sleep(0.2)
    reading.join()
    return seconds


def _seconds(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Texts:
    """Prompts of given lengths, cut from real instructions and answers."""

    def __init__(self, file: Path, folder: Path) -> None:
        from transformers import AutoTokenizer

        rows = json.loads(file.read_text(encoding="utf-8"))
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        text = " ".join(f"{row['instruction']} {row['input']} {row['output']}" for row in rows)
        self._ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def words(self, length: int, start: int) -> str:
        """Return a text of ``length`` tokens; another one for another start."""
        begin = 37 * start % (len(self._ids) - length)
        return str(self._tokenizer.decode(self._ids[begin : begin + length])).replace("\ufffd", "").strip()


def exported(work: Path) -> tuple[Path, Path]:
    """Export the model as a folder and as a GGUF file; return both."""
    folder, gguf = work / "model", work / "gguf"
    lmflow = [sys.executable, "-m", "lmflow_core", "export", "--model", _MODEL]
    subprocess.run([*lmflow, "--format", "huggingface", "--output", str(folder)], check=True, capture_output=True)
    made = [*lmflow, "--format", "gguf", "--type", "F32", "--output", str(gguf)]
    subprocess.run(made, check=True, capture_output=True)
    (file,) = [gguf] if gguf.is_file() else gguf.glob("*.gguf")
    return folder, file


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--llama-server")
    parser.add_argument("--only", help="part of a server's name")
    arguments = parser.parse_args()
    rows = []
    texts: tuple[str, ...] | None = None
    with tempfile.TemporaryDirectory() as work:
        folder, gguf = exported(Path(work))
        prompts = Texts(arguments.data, folder)
        for contender in contenders(folder, gguf, arguments.llama_server):
            if arguments.only and arguments.only not in contender.name:
                continue
            figures = measure(contender, prompts)
            if contender.name.startswith("lmflow"):
                texts = texts or figures.texts
                if figures.texts != texts:
                    raise SystemExit(f"an answer of {contender.name} differs")
            rows.append(_row(contender.name, figures))
            print("  ".join(rows[-1]), file=sys.stderr, flush=True)
    head = ("SERVER", "1 CLIENT", "8 CLIENTS", "FIRST", "BESIDE LONG", "WORST", "8 IN TURN", "n=8")
    print(table(head, rows))
    print("tokens/s of one and of eight clients; the others in seconds")


def _row(name: str, figures: Figures) -> tuple[str, ...]:
    speeds = (figures.one_client, figures.eight_clients)
    seconds = (
        *(figures.first_alone, figures.first_beside_long, figures.worst_beside_long),
        *(figures.shared_in_turn, figures.shared_together),
    )
    return (name, *(f"{speed:.1f}" for speed in speeds), *("" if s is None else f"{s:.2f}" for s in seconds))


if __name__ == "__main__":
    main()
