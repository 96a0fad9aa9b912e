"""What a pair of answers costs, by how likely the model, and a reference, find each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from lmflow_preference.options import WITHOUT_REFERENCE, DpoOptions


@dataclass(frozen=True)
class Answers:
    """One answer of each pair.

    Attributes:
        logprobs: (pairs,), float32: log-probabilities of its tokens, summed.
        tokens: (pairs,): how many these are.
        reference: (pairs,): the same sums by the reference; zeros for losses without one.
    """

    logprobs: torch.Tensor
    tokens: torch.Tensor
    reference: torch.Tensor

    @property
    def gain(self) -> torch.Tensor:
        """(pairs,): how much likelier it is than it was to the reference."""
        return self.logprobs - self.reference

    @property
    def mean(self) -> torch.Tensor:
        """(pairs,): log-probability of a token."""
        return self.logprobs / self.tokens


def _sigmoid(chosen: Answers, rejected: Answers, options: DpoOptions) -> torch.Tensor:
    """DPO (Rafailov et al., arXiv:2305.18290), with smoothed labels cDPO (Mitchell, 2023)."""
    return _smoothed(options.preference_beta * (chosen.gain - rejected.gain), options.dpo_label_smoothing)


def _hinge(chosen: Answers, rejected: Answers, options: DpoOptions) -> torch.Tensor:
    """SLiC's hinge on DPO's rewards (arXiv:2305.10425, arXiv:2309.06657)."""
    return (1 - options.preference_beta * (chosen.gain - rejected.gain)).relu()


def _ipo(chosen: Answers, rejected: Answers, options: DpoOptions) -> torch.Tensor:
    """IPO (Azar et al., arXiv:2310.12036), by the token: in sums the goal would depend on the length of the answers."""
    gains = chosen.gain / chosen.tokens - rejected.gain / rejected.tokens
    return (gains - 1 / (2 * options.preference_beta)).square()


def _robust(chosen: Answers, rejected: Answers, options: DpoOptions) -> torch.Tensor:
    """Robust DPO (Chowdhury et al., arXiv:2403.00409): unbiased where so many pairs are the wrong way round."""
    margins, flipped = options.preference_beta * (chosen.gain - rejected.gain), options.dpo_label_smoothing
    return (flipped * logsigmoid(-margins) - (1 - flipped) * logsigmoid(margins)) / (1 - 2 * flipped)


def _simpo(chosen: Answers, rejected: Answers, options: DpoOptions) -> torch.Tensor:
    """SimPO (Meng et al., arXiv:2405.14734)."""
    margins = options.preference_beta * (chosen.mean - rejected.mean) - options.simpo_gamma
    return _smoothed(margins, options.dpo_label_smoothing)


def _orpo(chosen: Answers, rejected: Answers, options: DpoOptions) -> torch.Tensor:
    """ORPO (Hong et al., arXiv:2403.07691): the chosen answer is learned, and its odds raised over the other's."""
    odds = (answers.mean - _log_of_rest(answers.mean) for answers in (chosen, rejected))
    return -chosen.mean - options.preference_beta * logsigmoid(next(odds) - next(odds))


PAIR_LOSSES: Mapping[str, Callable[[Answers, Answers, DpoOptions], torch.Tensor]] = {
    "sigmoid": _sigmoid,
    "hinge": _hinge,
    "ipo": _ipo,
    "robust": _robust,
    "simpo": _simpo,
    "orpo": _orpo,
}


def reward(answers: Answers, options: DpoOptions) -> torch.Tensor:
    """Return what the loss takes an answer to be worth, (pairs,), as TRL tells it."""
    return options.preference_beta * (answers.mean if options.dpo_loss in WITHOUT_REFERENCE else answers.gain)


def _smoothed(margins: torch.Tensor, flipped: float) -> torch.Tensor:
    return -(1 - flipped) * logsigmoid(margins) - flipped * logsigmoid(-margins)


def _log_of_rest(logprobs: torch.Tensor) -> torch.Tensor:
    """Return log(1 - p) of log p, exact near both ends; a p of 1 is taken to be the number below."""
    logprobs = logprobs.clamp(max=-torch.finfo(torch.float32).eps)
    near_one = logprobs > -0.6931472
    # The branch that is not taken must not make its gradient infinite.
    close = torch.log(-torch.expm1(torch.where(near_one, logprobs, -0.5)))
    far = torch.log1p(-torch.exp(torch.where(near_one, -1.0, logprobs)))
    return torch.where(near_one, close, far)
