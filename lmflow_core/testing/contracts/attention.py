"""The contract of attention implementations: what eager attention computes, each packed sequence by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lmflow_core.contracts.decoder import DecoderSpec, DecodingRequest
from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.errors import LmflowError, RequestError
from lmflow_core.generation.second_models import Models
from lmflow_core.models.opening import open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.batches import ids_of
from lmflow_core.testing.contracts.base import ComponentContract
from lmflow_core.testing.likelihoods import behind

_EXAMPLES = ([5, 90, 17, 300, 42, 8, 250], [77], list(range(100, 130)), [3, 3, 3, 3])
_DEVICES = ("cuda:97", "no-such-device")
_SHAPE: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}


class AttentionContract(ComponentContract):
    """What an attention must do on a processor, tried on small models of transformers with groups of heads.

    Attributes:
        tolerance: by which logits and gradients may differ, absolutely and as a share.
    """

    kind: ClassVar[str] = "attention"
    tolerance: ClassVar[float] = 1e-4

    @pytest.fixture(scope="class")
    @classmethod
    def others(cls, peaked_model: Path) -> dict[str, Any]:
        """Return the implementations there are before this one, and the logits of those that transformers brings."""
        own = [_logits(_network(peaked_model), name, _EXAMPLES[2]) for name in ("eager", "sdpa")]
        known = {name: each for name, each in _registered().items() if _is_transformers(each)}
        return {"known": known, "logits": own}

    @pytest.fixture(scope="class")
    @classmethod
    def name_there(cls, target: Any, option_values: Any, others: dict[str, Any]) -> str:
        """Return the name under which the runtime knows it."""
        try:
            name: str = cls.made(target, option_values).implementation("cpu")
        except RequestError as error:
            pytest.skip(f"it does not run on a processor: {error}")
        return name

    def test_the_runtime_knows_it(self, name_there: str) -> None:
        """It gives the name of an attention that is registered with transformers."""
        assert name_there in ("eager", *_registered()), f"transformers knows no attention {name_there!r}"

    def test_logits_are_those_of_eager_attention(self, name_there: str, peaked_model: Path) -> None:
        """Logits are those of eager attention, which is written out."""
        network = _network(peaked_model)
        for ids in _EXAMPLES:
            self._near(
                _logits(network, name_there, ids), _logits(network, "eager", ids), f"logits of {len(ids)} tokens"
            )

    def _near(self, found: Any, wanted: Any, what: str) -> None:
        import torch

        far = float((found - wanted).abs().max()) if found.shape == wanted.shape else None
        assert far is not None, f"{what} have the form {tuple(found.shape)}, not {tuple(wanted.shape)}"
        near = torch.allclose(found, wanted, rtol=self.tolerance, atol=self.tolerance)
        assert near, f"{what} differ by {far:.2g} from those of eager attention"

    def test_gradients_are_those_of_eager_attention(self, name_there: str, peaked_model: Path) -> None:
        """Gradients of all weights are those of eager attention."""
        found, wanted = (_gradients(_network(peaked_model), name, _EXAMPLES[2]) for name in (name_there, "eager"))
        for weight, gradient in wanted.items():
            assert found[weight] is not None, f"no gradient reaches {weight}"
            self._near(found[weight], gradient, f"gradients of {weight}")

    def test_a_later_token_changes_no_earlier_one(self, name_there: str, peaked_model: Path) -> None:
        """A token changes nothing of those before it."""
        network, ids = _network(peaked_model), _EXAMPLES[2]
        place = len(ids) // 2
        first, second = (_logits(network, name_there, [*ids[:place], token, *ids[place + 1 :]]) for token in (9, 222))
        self._near(first[:place], second[:place], "logits before a token that changed")

    def test_packed_sequences_are_apart(self, name_there: str, peaked_model: Path) -> None:
        """Sequences that lie end to end have the logits that each has alone."""
        import torch

        network = _network(peaked_model)
        wanted = torch.cat([_logits(network, "eager", ids) for ids in _EXAMPLES])
        self._near(_packed_logits(network, name_there, _EXAMPLES), wanted, "logits of packed sequences")

    def test_packed_sequences_do_not_meet(self, name_there: str, peaked_model: Path) -> None:
        """Another first sequence changes no bit of those behind it."""
        import torch

        network, rest = _network(peaked_model), list(_EXAMPLES[1:])
        packs = [_packed_logits(network, name_there, [first, *rest]) for first in (_EXAMPLES[0], _EXAMPLES[0][::-1])]
        begun = len(_EXAMPLES[0])
        assert torch.equal(packs[0][begun:], packs[1][begun:]), "what is packed before a sequence changes its logits"

    def test_windows_and_caps_are_kept_or_refused(self, name_there: str) -> None:
        """Models with a sliding window or capped scores have eager attention's logits, or are refused."""
        from transformers import Gemma2Config, MistralConfig

        gemma = Gemma2Config(
            **_SHAPE, head_dim=8, sliding_window=4, query_pre_attn_scalar=8, attn_logit_softcapping=2.0
        )
        for config in (MistralConfig(**_SHAPE, sliding_window=4), gemma):
            network = _built(config)
            try:
                found = _logits(network, name_there, _EXAMPLES[2])
            except (LmflowError, ValueError):  # transformers refuses a model with the latter
                continue
            self._near(found, _logits(network, "eager", _EXAMPLES[2]), f"logits of a {config.model_type} model")

    def test_answers_are_the_likeliest_tokens(self, name_there: str, peaked_model: Path, catalogue: Catalogue) -> None:
        """Behind a cache, an answer is what the model finds likeliest without."""
        plain = open_model(ModelSettings(model=str(peaked_model), device="cpu"), catalogue)
        model = open_model(ModelSettings(model=str(peaked_model), device="cpu"), catalogue).model
        model.accept(replace(model.plan, attention=name_there))
        model.load()
        decoder = catalogue.of(DecoderSpec).load("sampling")(None)
        decoder.prepare(model, Models(catalogue))
        answer = ids_of(decoder.decode(model, DecodingRequest(_EXAMPLES[0], 16)))
        text = behind(_EXAMPLES[0], answer)
        (own,), (wanted,) = model.score([text]), plain.load().score([text])
        assert own.nll == pytest.approx(wanted.nll, rel=self.tolerance), (
            f"likelihood {own.nll}, and {wanted.nll} without"
        )
        assert wanted.correct == len(answer), f"{wanted.correct} of {len(answer)} tokens are the likeliest"

    def test_a_device_that_is_not_there_is_no_crash(self, component: Any) -> None:
        """A device that is not there is left to the model or refused with an error that says so."""
        for device in _DEVICES:
            try:
                name = component.implementation(device)
            except LmflowError:
                continue
            except Exception as error:
                pytest.fail(
                    f"for the device {device!r} it raises {type(error).__name__}: {error}; raise a RequestError"
                )
            assert isinstance(name, str), f"for the device {device!r} it gives {name!r}, no name"

    def test_it_may_be_asked_again(self, name_there: str, target: Any, option_values: Any, peaked_model: Path) -> None:
        """Asked again, it gives the same name, and what stands behind it is as before."""
        network = _network(peaked_model)
        before = _logits(network, name_there, _EXAMPLES[2])
        again = self.made(target, option_values).implementation("cpu")
        assert again == name_there, f"asked again, it gives {again!r}, and not {name_there!r}"
        self._near(_logits(network, again, _EXAMPLES[2]), before, "logits, after it was asked again,")

    def test_others_stay(self, name_there: str, others: dict[str, Any], peaked_model: Path) -> None:
        """It leaves the other implementations as they are."""
        import torch

        now = _registered()
        changed = [name for name, own in others["known"].items() if name != name_there and now.get(name) is not own]
        assert not changed, f"it replaced {', '.join(changed)}"
        for name, wanted in zip(("eager", "sdpa"), others["logits"], strict=True):
            found = _logits(_network(peaked_model), name, _EXAMPLES[2])
            assert torch.equal(found, wanted), f"the attention {name!r} gives other logits than before"


def _registered() -> dict[str, Any]:
    """Return the attentions that transformers knows, by name."""
    import transformers

    interface: Any = transformers.AttentionInterface
    return dict(interface().items())


def _is_transformers(function: Any) -> bool:
    return str(getattr(function, "__module__", "")).startswith("transformers.")


def _network(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return network.eval()


def _built(config: Any) -> Any:
    import torch
    import transformers

    factory: Any = transformers.AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return factory.from_config(config, attn_implementation="eager").eval()


def _logits(network: Any, name: str, ids: Sequence[int]) -> Any:
    """Return the logits (tokens, vocabulary) of one sequence by an attention."""
    import torch

    network.set_attn_implementation(name)
    with torch.no_grad():
        return network(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]


def _packed_logits(network: Any, name: str, examples: Sequence[Sequence[int]]) -> Any:
    """Return the logits of sequences that lie end to end, as a runtime passes them."""
    import torch

    network.set_attn_implementation(name)
    ends = torch.tensor([0, *(len(ids) for ids in examples)]).cumsum(0)
    with torch.no_grad():
        return network(
            input_ids=torch.tensor([[token for ids in examples for token in ids]]),
            position_ids=torch.cat([torch.arange(len(ids)) for ids in examples])[None],
            cu_seq_lens_q=ends.to(torch.int32),
            use_cache=False,
        ).logits[0]


def _gradients(network: Any, name: str, ids: Sequence[int]) -> dict[str, Any]:
    """Return the gradients of all weights for the likelihood of a sequence, by name; None where there is none."""
    import torch

    network.set_attn_implementation(name)
    logits = network(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0, :-1]
    loss: Any = torch.nn.functional.cross_entropy(logits, torch.tensor(list(ids[1:])))
    loss.backward()
    return {weight: parameter.grad for weight, parameter in network.named_parameters()}
