"""What a round of samples came to, as numbers and in words."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from lmflow_transformers.training.sampled.samples import Sample, places_by_prompt


def figures_of(samples: Sequence[Sample]) -> dict[str, float]:
    """Return figures of a round by name; those that cannot be told are left out.

    ``sampled_reward`` and ``learned_reward`` are means over the answers that have a reward, ``learned`` is the share of
    answers that is trained on, ``distinct`` the mean share of a prompt's answers that are not alike.
    """
    if not samples:
        return {}
    learned = [sample for sample in samples if sample.learned]
    groups = places_by_prompt(samples)
    distinct = [len({tuple(samples[at].answer_ids) for at in group}) / len(group) for group in groups]
    figures = {"learned": len(learned) / len(samples), "distinct": fmean(distinct)}
    for name, those in (("sampled_reward", samples), ("learned_reward", learned)):
        if scored := [sample.reward for sample in those if sample.scored]:
            figures[name] = fmean(scored)
    return figures


def told(samples: Sequence[Sample], step: int, too_long: int) -> str:
    """Return a line about a round, with what could not be learned from and why."""
    figures = "".join(f", {name} {value:.3f}" for name, value in figures_of(samples).items())
    groups = [group for group in places_by_prompt(samples) if len(group) > 1]
    rewards = [{samples[at].reward for at in group if samples[at].scored} for group in groups]
    counts = {
        "prompts whose answers are all worth the same": sum(len(found) == 1 for found in rewards),
        "prompts longer than the context": too_long,
        "empty answers": sum(sample.empty for sample in samples),
        "answers without a reward": sum(not sample.scored for sample in samples),
    }
    passed = "".join(f"; {count} {what}" for what, count in counts.items() if count)
    return f"round at step {step}: {len(samples)} answers{figures}{passed}"
