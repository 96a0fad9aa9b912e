"""The distribution that tokens are sampled from, and the rule by which a drafted one is kept.

The rule is that of Leviathan, Kalman and Matias, "Fast Inference from Transformers via Speculative Decoding" (ICML
2023): what it gives is distributed as if the model had sampled it itself, whatever the draft.
"""

from __future__ import annotations

import torch
from transformers import LogitsProcessorList


class SamplingRule:
    """Samples the tokens of one answer, and decides which drafted ones stay.

    Args:
        processors: make of the model's logits what tokens are sampled from.
        greedy: whether the likeliest is taken.
        generator: of the random choices.
    """

    def __init__(self, processors: LogitsProcessorList, greedy: bool, generator: torch.Generator) -> None:
        self._processors = processors
        self._greedy = greedy
        self._generator = generator

    def distribution(self, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return the probabilities (vocabulary,), float32, of the token behind some ids.

        Args:
            ids: (length,), all that precedes the token: what a repetition penalty counts.
            logits: (vocabulary,), the model's own.
        """
        scores = self._processors(ids[None], logits.float()[None])[0]
        if self._greedy:
            return torch.zeros_like(scores).index_fill_(0, scores.argmax(), 1.0)
        return scores.softmax(-1)

    def sample(self, probabilities: torch.Tensor) -> int:
        """Sample a token; the probabilities need not add up to one."""
        if self._greedy:
            return int(probabilities.argmax())
        return int(torch.multinomial(probabilities, 1, generator=self._generator))

    def keeps(self, token: int, target: torch.Tensor, draft: torch.Tensor) -> bool:
        """Whether a drafted token is kept: with the probability min(1, target / draft).

        Args:
            token: the drafted token.
            target: (vocabulary,), the model's probabilities.
            draft: (vocabulary,), the probabilities it was sampled from.
        """
        wanted, offered = float(target[token]), float(draft[token])
        if wanted >= offered:
            return True
        if wanted == 0:
            return False
        chance = torch.rand((), generator=self._generator, device=target.device)
        return float(chance) * offered < wanted

    def resample(self, target: torch.Tensor, draft: torch.Tensor) -> int:
        """Sample what takes the place of a refused token: from what the model has more of than the draft."""
        rest = (target - draft).clamp(min=0)
        # Nothing is left only where rounding made two equal distributions differ.
        return self.sample(rest if float(rest.sum()) > 0 else target)
