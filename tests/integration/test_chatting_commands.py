"""A command of a plugin that works with a model that answers: its flags, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from lmflow_core.contracts.command import CommandSpec
from lmflow_core.contracts.settings import EvaluationSettings
from lmflow_core.errors import SpecError
from lmflow_core.plugins import discovery
from lmflow_core.testing.fixtures import CliResult

Install = Callable[..., EntryPoint]
Cli = Callable[..., CliResult]

POLL = """
import json
from dataclasses import dataclass
from lmflow_core.api import CommandSpec, Message, OptionError, hookimpl, option

@dataclass(frozen=True, kw_only=True)
class PollOptions:
    times: int = option(2, help="How often to ask.", minimum=1)

@hookimpl
def lmflow_register_commands():
    return [
        CommandSpec(name="poll", target=f"{__name__}:poll", summary="Asks.", options=PollOptions, chats=True),
        CommandSpec(name="odd", target=f"{__name__}:nothing", summary="Is no function.", chats=True),
        CommandSpec(name="quiet", target=f"{__name__}:quiet", summary="Asks nothing.", chats=True),
    ]

nothing = None

def quiet(open_model, options):
    assert options is None
    print("nothing opened")

def poll(open_model, options):
    model = open_model()
    asked = [*model.opening(), Message("user", "hello")]
    answers = [model.changed(temperature=1.0, seed=seed).answer(asked) for seed in range(options.times)]
    refused = []
    for wrong in ({"temperature": -1}, {"warmth": 1}, {"max_new_tokens": 0}):
        try:
            model.changed(**wrong)
        except OptionError as error:
            refused.append(str(error))
    texts = ["".join(answer) for answer in answers]
    same = "".join(model.answer(asked))
    completed = "".join(model.changed(max_new_tokens=3).complete("hello"))
    cut = model.answer(asked)
    pieces = iter(cut)
    first = next(pieces)
    cut.cancel()
    rest = list(pieces)
    print(json.dumps({"texts": texts, "same": same, "refused": refused, "completed": completed,
                      "cut": [first, *rest], "reason": cut.finish_reason, "tokens": cut.tokens,
                      "offsets": [token.offset for token in answers[0].sampled]}))
"""


@pytest.fixture
def polling(monkeypatch: pytest.MonkeyPatch, install_plugin: Install) -> None:
    entries = list(discovery.installed_entry_points())
    entries.append(install_plugin("poll", POLL))
    monkeypatch.setattr(discovery, "installed_entry_points", lambda: entries)


@pytest.mark.usefixtures("polling")
def test_it_is_given_a_model_that_answers_each_time_as_asked(lmflow_cli: Cli, tiny_model: Path) -> None:
    asked = ("--model", tiny_model, "--max-new-tokens", "12")
    told = lmflow_cli("poll", *asked, "--times", "3").json()
    plain = lmflow_cli("generate", *asked, "--prompt", "hello", "--json").json()
    raw = ("generate", "--model", tiny_model, "--prompt", "hello", "--raw", "--max-new-tokens", "3", "--json")
    hot = [
        lmflow_cli("generate", *asked, "--prompt", "hello", "--temperature", "1", "--seed", n, "--json").json()["text"]
        for n in range(3)
    ]
    assert told["texts"] == hot
    assert len(set(hot)) > 1
    assert told["same"] == plain["text"]
    assert told["completed"] == lmflow_cli(*raw).json()["text"]
    assert told["refused"] == [
        "temperature: -1.0 is below the smallest value allowed, 0",
        "warmth: the decoder 'sampling' has no such option",
        "max_new_tokens: 0 is below the smallest value allowed, 1",
    ]
    assert "".join(told["cut"]) == plain["text"][: len("".join(told["cut"]))]
    assert (told["reason"], told["tokens"] < plain["tokens"]) == ("cancelled", True)
    assert told["offsets"] == sorted(told["offsets"])


@pytest.mark.usefixtures("polling")
def test_its_flags_are_those_of_chat_and_its_own(lmflow_cli: Cli, tiny_model: Path) -> None:
    shown = lmflow_cli("poll", "--help").stdout
    assert "lmflow poll [OPTIONS]" in shown
    for flag in ("--times N", "--model TEXT", "--decoder TEXT", "--temperature X", "--max-new-tokens N"):
        assert flag in shown
    assert "--times" not in lmflow_cli("quiet", "--help").stdout
    assert lmflow_cli("quiet", "--model", "nowhere").stdout == "nothing opened\n"
    odd = lmflow_cli("odd", "--model", "nowhere")
    assert (odd.status, odd.stderr) == (
        2,
        "lmflow: error: command 'odd': its target fake_lmflow_poll:nothing is no function\n",
    )
    wrong = lmflow_cli("poll", "--model", tiny_model, "--times", "0")
    assert (wrong.status, wrong.stdout) == (2, "")
    assert "--times: 0 is below the smallest value allowed, 1" in wrong.stderr


def test_options_are_for_commands_that_chat() -> None:
    with pytest.raises(SpecError, match="has options but does not chat"):
        CommandSpec(name="poll", target="a:b", summary="Asks.", options=EvaluationSettings)
