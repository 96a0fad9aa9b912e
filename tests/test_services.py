"""Second models: what opens them, where they go, and that the last one is kept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lmflow_core.contracts.engine import EngineSpec
from lmflow_core.contracts.examples import Conversation, Message, Text
from lmflow_core.contracts.model import LoadPlan
from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.errors import ModelError, RequestError, UnknownNameError
from lmflow_core.generation import second_models
from lmflow_core.generation.second_models import Models
from lmflow_core.models.opening import open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.tiny import make_tiny_model
from lmflow_core.workflows.services import TrainingServices


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.discover()


def _beside(**plan: Any) -> Any:
    return SimpleNamespace(reference="first", plan=LoadPlan(**{"device": "cpu", **plan}))


def test_a_model_goes_where_the_other_is_and_the_last_one_is_kept(tiny_model: Path, catalogue: Catalogue) -> None:
    models = Models(catalogue)
    model: Any = models.open_model(str(tiny_model), beside=_beside())
    assert models.open_model(str(tiny_model), beside=_beside(attention="other")) is model
    assert (model.plan.device, model.plan.dtype) == ("cpu", "auto")
    with pytest.raises(ModelError, match="are not loaded"):
        model.network  # noqa: B018
    model.load()
    half: Any = models.open_model(str(tiny_model), beside=_beside(dtype="bfloat16"))
    assert half is not model
    half.load()
    assert str(half.network.dtype) == "torch.bfloat16"
    assert models.open_model(str(tiny_model), beside=_beside()) is not model


def test_examples_are_encoded_as_the_model_opened_last_wants_them(tiny_model: Path, catalogue: Catalogue) -> None:
    from transformers import AutoTokenizer

    models = Models(catalogue)
    model = models.open_model(str(tiny_model), beside=_beside())
    chat = Conversation((Message("user", "hello"), Message("assistant", "no")))
    first, second = models.encode_for(model, [chat, Text("hello world")])
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "no"}]
    assert list(first.sequences[0].input_ids) == tokenizer.apply_chat_template(turns, return_dict=False)
    text = tokenizer("hello world", add_special_tokens=False).input_ids
    assert list(second.sequences[0].input_ids) == [*text, tokenizer.eos_token_id]


def test_a_registered_name_is_opened_by_its_own_loader(
    tiny_model: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmflow_smollm2 import loader

    monkeypatch.setattr(loader, "cached_folder", lambda: tiny_model)
    model = Models(catalogue).open_model("smollm2", beside=_beside())
    assert (model.reference, model.folder) == ("smollm2-135m-instruct", tiny_model)


def test_an_adapter_is_put_on_its_base(
    tiny_model: Path, tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on: list[Path] = []

    class Tuner:
        def attach(self, model: Any, adapter: Path) -> None:
            model.network  # noqa: B018  # loaded before
            put_on.append(adapter)

    open_model = second_models.open_model

    def with_adapter(*arguments: Any, **others: Any) -> Any:
        opened = open_model(*arguments, **others)
        opened.adapter, opened.tuner = tmp_path, Tuner()
        return opened

    monkeypatch.setattr(second_models, "open_model", with_adapter)
    models = Models(catalogue)
    for _ in range(2):
        models.open_model(str(tiny_model), beside=_beside()).load()
    assert put_on == [tmp_path]


def test_what_cannot_be_opened_is_told(tmp_path: Path, catalogue: Catalogue) -> None:
    make_tiny_model(tmp_path / "model")
    with pytest.raises(ModelError, match="no such folder"):
        Models(catalogue).open_model(str(tmp_path / "nowhere"), beside=_beside())
    with pytest.raises(RequestError, match="working beside first needs a model that runs in llama-cpp"):
        Models(catalogue, "llama-cpp").open_model(str(tmp_path / "model"), beside=_beside())


def test_answers_are_those_of_the_model_that_trains(catalogue: Catalogue, tiny_model: Path) -> None:
    model: Any = open_model(ModelSettings(model=str(tiny_model), device="cpu"), catalogue).load()
    offered = TrainingServices(catalogue, catalogue.of(EngineSpec).load("local")(None))
    prompts = [[5, 6, 7], [8]]
    given: dict[str, Any] = {"max_new_tokens": 6, "options": {"temperature": 0.0}}
    answers = offered.generate(model, prompts, seeds=(1, 2), **given)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt])
        expected = model.network.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
        assert list(answer.ids) == expected[0, len(prompt) : len(prompt) + len(answer.ids)].tolist()
        assert len(answer.ids) == 6 or answer.finish_reason == "stop"
    with pytest.raises(RequestError) as caught:
        offered.generate(model, prompts, seeds=(1, 2), decoder="llama-cpp", **given)
    assert str(caught.value) == (
        "decoder 'llama-cpp' drives models that run in llama-cpp; the one that trains runs in torch"
    )
    with pytest.raises(UnknownNameError, match="unknown decoder 'samplin'"):
        offered.generate(model, prompts, seeds=(1, 2), decoder="samplin", **given)
