"""Options of the objective ``raft``."""

from __future__ import annotations

from dataclasses import dataclass

from lmflow_core.api import option


@dataclass(frozen=True, kw_only=True)
class RaftOptions:
    """What is sampled in a round, and what of it is learned."""

    raft_method: str = option(
        "raft",
        help="How answers are learned: by cross-entropy (raft), or by clipped ratios: the best (raft++), right against "
        "wrong (reinforce-rej), all by how much they are better than the others (grpo).",
        choices=("raft", "raft++", "reinforce-rej", "grpo"),
    )
    raft_samples: int = option(4, help="Answers to each prompt.", minimum=1)
    raft_round_prompts: int | None = option(
        None,
        help="Prompts of a round, over all processes, answered with the same weights; those of an epoch when left out.",
        minimum=1,
        aliases=("raft_batch_size",),
    )
    raft_rounds: int | None = option(
        None, help="End after so many rounds, in the place of --epochs.", minimum=1, aliases=("num_raft_iteration",)
    )
    raft_selection: str = option(
        "local",
        help="What is learned: the best answer to each prompt (local), or the best of the round (top).",
        choices=("local", "top"),
        aliases=("collection_strategy",),
    )
    raft_top_share: float = option(
        0.2,
        help="With top: the share of a round's answers that is learned.",
        above=0,
        maximum=1,
        aliases=("top_reward_percentage",),
    )
    raft_threshold: float | None = option(None, help="Learn no answer whose reward is below this.")
    raft_right_reward: float = option(1.0, help="With reinforce-rej: an answer is right from this reward on.")
    raft_clip_low: float = option(
        0.2, help="By how much the ratio of a token counts below 1; of all methods but raft.", above=0, maximum=1
    )
    raft_clip_high: float = option(
        0.2, help="By how much the ratio of a token counts above 1; of all methods but raft.", above=0
    )
    raft_temperature: float = option(
        1.0, help="Temperature of sampling. Ratios are of probabilities at temperature 1.", above=0
    )
    raft_max_new_tokens: int = option(128, help="Longest answer in tokens.", minimum=1, aliases=("output_max_length",))

    def __post_init__(self) -> None:
        selects = self.raft_method in ("raft", "raft++")
        if self.raft_threshold is not None and not selects:
            raise ValueError(f"--raft-threshold belongs to raft and raft++: --raft-method {self.raft_method} takes all")
        if self.raft_samples < 2 and not selects:
            raise ValueError(f"--raft-samples must be at least 2 for --raft-method {self.raft_method}")
        if self.raft_samples < 2 and self.raft_selection == "local":
            raise ValueError("--raft-samples must be at least 2 for --raft-selection local, the best of them")
