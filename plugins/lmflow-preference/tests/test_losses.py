"""Every loss and its metrics against TRL's own code on the same log-probabilities."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lmflow_preference.kto import kto_losses
from lmflow_preference.options import DpoOptions, KtoOptions
from lmflow_preference.pair_losses import PAIR_LOSSES, Answers, reward

_PAIRS, _LENGTH, _BETA = 5, 9, 0.3
_CPU = SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)


class Sample:
    """Log-probabilities of tokens of both answers of some pairs, the chosen ones first, as TRL has them."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        lengths = torch.randint(2, _LENGTH, (2 * _PAIRS,), generator=generator)
        self.mask = (torch.arange(_LENGTH + 1) >= 1) & (torch.arange(_LENGTH + 1) <= lengths[:, None])
        self.tokens = -torch.rand(2 * _PAIRS, _LENGTH, generator=generator) * 3 * self.mask[:, 1:]
        self.reference = self.tokens.sum(1) + torch.randn(2 * _PAIRS, generator=generator) * 4
        self.chosen, self.rejected = (
            Answers(*parts)
            for parts in zip(
                *(each.chunk(2) for each in (self.tokens.sum(1), lengths, self.reference)),
                strict=True,
            )
        )

    def outputs(self, tokens: torch.Tensor | None = None) -> Any:
        """Return what TRL's fused head gives; what only metrics of its own use is zero."""
        tokens = self.tokens if tokens is None else tokens
        nothing = torch.zeros_like(tokens)
        return SimpleNamespace(log_probs=tokens, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())


@pytest.fixture(scope="module")
def sample() -> Sample:
    pytest.importorskip("trl", reason="losses are compared with those of TRL")
    return Sample()


def _trainer(**values: Any) -> Any:
    common = {
        "model": SimpleNamespace(training=True),
        "accelerator": _CPU,
        "aux_loss_enabled": False,
        "precompute_ref_logps": True,
        "beta": _BETA,
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    return SimpleNamespace(**{**common, **values})


def _ours(sample: Sample, **options: Any) -> torch.Tensor:
    chosen = DpoOptions(preference_beta=_BETA, **options)
    return PAIR_LOSSES[chosen.dpo_loss](sample.chosen, sample.rejected, chosen)


@pytest.mark.parametrize(
    ("loss", "smoothing"), [("sigmoid", 0.0), ("hinge", 0.0), ("ipo", 0.0), ("robust", 0.0), ("robust", 0.2)]
)
def test_losses_with_a_reference_and_their_metrics_are_trls(sample: Sample, loss: str, smoothing: float) -> None:
    from trl import DPOTrainer

    trainer = _trainer(
        loss_types=[loss],
        loss_weights=[1.0],
        label_smoothing=smoothing,
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        use_weighting=False,
    )
    reference = dict(zip(("ref_chosen_logps", "ref_rejected_logps"), sample.reference.chunk(2), strict=True))
    ids = torch.ones(2 * _PAIRS, _LENGTH + 1, dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": ids, "completion_mask": sample.mask.long(), **reference}
    wanted = DPOTrainer._compute_loss(trainer, lambda **_: sample.outputs(), inputs, False)
    torch.testing.assert_close(
        _ours(sample, dpo_loss=loss, dpo_label_smoothing=smoothing).mean(), wanted, atol=1e-6, rtol=1e-6
    )
    told, options = trainer._metrics["train"], DpoOptions(preference_beta=_BETA, dpo_loss=loss)
    rewards = reward(sample.chosen, options), reward(sample.rejected, options)
    assert told["rewards/chosen"] == pytest.approx([float(rewards[0].mean())], rel=1e-6)
    assert told["rewards/rejected"] == pytest.approx([float(rewards[1].mean())], rel=1e-6)
    assert told["logps/chosen"] == pytest.approx([float(sample.chosen.logprobs.mean())], rel=1e-6)


def test_smoothed_labels_are_those_of_conservative_dpo(sample: Sample) -> None:
    from trl.experimental.cpo import CPOTrainer

    trainer = _trainer(alpha=0.0, loss_type="sigmoid", label_smoothing=0.1)
    wanted, *_ = CPOTrainer.cpo_loss(trainer, sample.chosen.gain, sample.rejected.gain)
    torch.testing.assert_close(_ours(sample, dpo_label_smoothing=0.1), wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_simpo_is_trls(sample: Sample, smoothing: float) -> None:
    from trl.experimental.cpo import CPOTrainer

    trainer = _trainer(alpha=0.0, loss_type="simpo", label_smoothing=smoothing, simpo_gamma=0.7)
    wanted, chosen, _ = CPOTrainer.cpo_loss(trainer, sample.chosen.mean, sample.rejected.mean)
    options = DpoOptions(preference_beta=_BETA, dpo_loss="simpo", dpo_label_smoothing=smoothing, simpo_gamma=0.7)
    ours = PAIR_LOSSES["simpo"](sample.chosen, sample.rejected, options)
    torch.testing.assert_close(ours, wanted, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(reward(sample.chosen, options), chosen)


def test_orpo_is_the_likelihood_and_trls_odds(sample: Sample) -> None:
    from trl.experimental.orpo import ORPOTrainer

    odds, chosen, *_ = ORPOTrainer.odds_ratio_loss(_trainer(), sample.chosen.mean, sample.rejected.mean)
    torch.testing.assert_close(_ours(sample, dpo_loss="orpo"), -sample.chosen.mean - odds, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(reward(sample.chosen, DpoOptions(preference_beta=_BETA, dpo_loss="orpo")), chosen)


def test_orpo_of_a_certain_answer_is_finite_and_so_is_its_gradient() -> None:
    logprobs = torch.tensor([0.0, -1e-9, -40.0], requires_grad=True)
    one, zero = torch.ones(3), torch.zeros(3)
    loss = PAIR_LOSSES["orpo"](
        Answers(logprobs, one, zero), Answers(logprobs.detach() - 1, one, zero), DpoOptions(dpo_loss="orpo")
    )
    loss.sum().backward()
    assert logprobs.grad is not None
    assert bool(loss.isfinite().all() and logprobs.grad.isfinite().all())


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_kto_is_trls(sample: Sample, shift: float) -> None:
    from trl import KTOTrainer

    trainer = _trainer(calculate_KL=True, loss_type="kto", desirable_weight=1.5, undesirable_weight=0.5)
    labels = torch.tensor([True, False] * _PAIRS)
    others = sample.tokens - shift * sample.mask[:, 1:] * 0.1
    trainer._compute_kl_logps = lambda model, batch: others.sum(1) + shift * 2
    ids = torch.ones(2 * _PAIRS, _LENGTH + 1, dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": ids, "completion_mask": sample.mask.long(), "label": labels}
    inputs |= {"ref_logps": sample.reference, "ref_KL_logps": others.sum(1)}
    wanted = KTOTrainer._compute_loss(trainer, lambda **_: sample.outputs(), inputs, False)
    options = KtoOptions(preference_beta=_BETA, kto_desirable_weight=1.5, kto_undesirable_weight=0.5)
    ours = kto_losses(sample.tokens.sum(1) - sample.reference, labels, torch.tensor(shift * 2), options)
    torch.testing.assert_close(ours.mean(), wanted, atol=1e-6, rtol=1e-6)
    assert trainer._metrics["train"]["kl"] == pytest.approx([shift * 2])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"dpo_label_smoothing": 0.5}, "below 0.5"),
        ({"dpo_label_smoothing": 0.1, "dpo_loss": "ipo"}, "ipo has none"),
        ({"dpo_loss": "simpo", "reference_model": "x"}, "needs no --reference-model"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        DpoOptions(**options)
