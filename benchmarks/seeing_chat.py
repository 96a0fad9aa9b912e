"""Talk about one picture with the model of seeing.py, in the terminal and on the page in a browser.

    python benchmarks/seeing_chat.py --folder runs/seeing --picture 0 --screenshot runs/seeing/page.png

It asks what the test asked of that picture, and prints the right answer beside both that were given; the screenshot
shows the first. Besides LMFlow it needs selenium, Chromium and its driver.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from selenium.webdriver.support.wait import WebDriverWait

from lmflow_core.report.console import table
from lmflow_core.testing.browser import MISSING, open_browser

_SECONDS = 120
_ANSWER = "#chat .bot .md"
# The system prompt is that of the training.
_FLAGS = ("--system", "Answer briefly.", "--max-new-tokens", "8")


def main() -> None:
    """Ask in both places and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="that seeing.py --keep wrote")
    parser.add_argument("--picture", type=int, default=0, help="number of a test picture")
    parser.add_argument("--screenshot", type=Path, required=True, help="PNG file to write the page into")
    arguments = parser.parse_args()
    if MISSING:
        parser.error("Chromium and its driver are not installed: install chromium and chromium-driver")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    model, name = arguments.folder / "seeing", f"test-{arguments.picture}.png"
    picture = arguments.folder / "pictures" / name
    questions, right = _asked_of(arguments.folder, name)
    in_terminal = _in_terminal(model, picture, questions)
    in_browser = _in_browser(model, picture, questions, arguments.screenshot)
    print(table((name, "right", "terminal", "browser"), [*zip(questions, right, in_terminal, in_browser, strict=True)]))


def _asked_of(folder: Path, name: str) -> tuple[list[str], list[str]]:
    """Return the questions that the test asked of a picture, and what is right."""
    rows = [json.loads(line) for line in (folder / "pictures/test-0.jsonl").read_text(encoding="utf-8").splitlines()]
    contents = [row["messages"][-1]["content"] for row in rows]
    places = [place for place, content in enumerate(contents) if content[0]["image"] == name]
    answers = json.loads((folder / "pictures/right.json").read_text(encoding="utf-8"))
    return [contents[place][-1]["text"] for place in places], [answers[place] for place in places]


def _in_terminal(model: Path, picture: Path, questions: Sequence[str]) -> list[str]:
    """Ask all in one conversation, and return the answers, each of which is a line."""
    command = [*_command("chat", model), "--image", str(picture)]
    typed = "".join(question + "\n" for question in questions)
    run = subprocess.run(command, input=typed, check=True, stdout=subprocess.PIPE, text=True)
    return run.stdout.split("\n")[: len(questions)]


def _in_browser(model: Path, picture: Path, questions: Sequence[str], screenshot: Path) -> list[str]:
    """Show the picture, ask all in one conversation, and return the answers."""
    with tempfile.TemporaryDirectory() as downloads, _page(model) as address, open_browser(Path(downloads)) as browser:
        browser.get(address)
        wait = WebDriverWait(browser, _SECONDS)
        wait.until(lambda page: _found(page, "#picture-file"))[0].send_keys(str(picture.resolve()))
        wait.until(lambda page: _found(page, "#picture-shown img"))
        answers = [_ask_page(browser, wait, questions[0])]
        browser.save_screenshot(str(screenshot))  # while the picture is in sight
        answers += [_ask_page(browser, wait, question) for question in questions[1:]]
    return answers


@contextlib.contextmanager
def _page(model: Path) -> Iterator[str]:
    """Give the address of a page that serves the model until the end."""
    command = [*_command("webui", model), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield next(line for line in process.stderr if "the page is at" in line).split(" is at ")[1].split(";")[0]
        finally:
            process.terminate()


def _ask_page(browser: Any, wait: Any, question: str) -> str:
    """Ask, and return the answer when it is whole."""
    answered = len(_found(browser, _ANSWER))
    _found(browser, "#message textarea")[0].send_keys(question)
    _found(browser, "#send")[0].click()
    wait.until(lambda page: len(_found(page, _ANSWER)) > answered)
    time.sleep(1)  # the first token is shown a moment before the status stops telling of the answer before
    wait.until(lambda page: "tokens/s" in _found(page, "#status textarea")[0].get_property("value"))
    return str(_found(browser, _ANSWER)[-1].text).strip()


def _found(browser: Any, selector: str) -> list[Any]:
    return list(browser.find_elements("css selector", selector))


def _command(name: str, model: Path) -> list[str]:
    return [sys.executable, "-m", "lmflow_core", name, "--model", str(model), *_FLAGS]


if __name__ == "__main__":
    main()
