"""Options of the objectives ``dpo``, ``iterative-dpo`` and ``kto``; names and defaults are those of TRL."""

from __future__ import annotations

from dataclasses import dataclass

from lmflow_core.api import option

PAIR_LOSSES = ("sigmoid", "hinge", "ipo", "robust", "simpo", "orpo")
# They compare the answers by the model alone.
WITHOUT_REFERENCE = ("simpo", "orpo")
PAIRINGS = ("max_random", "max_min", "max_max", "random")
_REFERENCE = "The model that answers are compared by; without one it is the model before training."
_REFERENCE_NAMES = ("reference_model_name_or_path", "ref_model")
_BETA_NAMES = ("beta", "dpo_beta", "kto_beta", "pref_beta")
_LONGEST_PROMPT = "Examples with a longer prompt, in tokens, are left out and counted."


@dataclass(frozen=True, kw_only=True)
class DpoOptions:
    """Which loss compares the two answers of a pair, and how sharply."""

    dpo_loss: str = option(
        "sigmoid",
        help="What a pair costs; sigmoid with --dpo-label-smoothing is conservative DPO.",
        choices=PAIR_LOSSES,
        aliases=("loss_type", "pref_loss"),
    )
    preference_beta: float = option(
        0.1,
        help="How strongly the model is kept near the reference; for simpo the scale, for orpo the weight.",
        above=0,
        aliases=_BETA_NAMES,
    )
    dpo_label_smoothing: float = option(
        0.0,
        help="Share of pairs that are the wrong way round, below 0.5; of sigmoid, robust and simpo.",
        minimum=0,
        aliases=("label_smoothing",),
    )
    simpo_gamma: float = option(
        0.5, help="By how much the chosen answer is to be better, in rewards; of simpo.", minimum=0
    )
    reference_model: str | None = option(None, help=_REFERENCE, aliases=_REFERENCE_NAMES)
    dpo_pairing: str = option(
        "max_random",
        help="Which two of several answers with scores make a pair: the best and another, the worst or the second; "
        "or any two.",
        choices=PAIRINGS,
        aliases=("sampling_paired_method",),
    )
    max_prompt_length: int | None = option(None, help=_LONGEST_PROMPT, minimum=1)

    def __post_init__(self) -> None:
        if self.dpo_label_smoothing >= 0.5:
            raise ValueError(f"--dpo-label-smoothing {self.dpo_label_smoothing} must be below 0.5, which tells nothing")
        if self.dpo_label_smoothing and self.dpo_loss not in ("sigmoid", "robust", "simpo"):
            raise ValueError(f"--dpo-label-smoothing: --dpo-loss {self.dpo_loss} has none; sigmoid, robust, simpo do")
        if self.reference_model is not None and self.dpo_loss in WITHOUT_REFERENCE:
            raise ValueError(f"--dpo-loss {self.dpo_loss} needs no --reference-model: leave it out")


@dataclass(frozen=True, kw_only=True)
class IterativeDpoOptions(DpoOptions):
    """Those of ``dpo``, what is sampled in a round, and what it is compared by."""

    iterative_samples: int = option(4, help="Answers to each prompt.", minimum=2, aliases=("num_output_sequences",))
    iterative_round_prompts: int | None = option(
        None,
        help="Prompts of a round, over all processes, answered with the same weights; those of an epoch when left out.",
        minimum=1,
    )
    iterative_rounds: int | None = option(None, help="End after so many rounds, in the place of --epochs.", minimum=1)
    iterative_temperature: float = option(1.0, help="Temperature of sampling.", above=0, aliases=("temperature",))
    iterative_max_new_tokens: int = option(128, help="Longest answer in tokens.", minimum=1)
    iterative_reference: str = option(
        "start",
        help="Without --reference-model, answers are compared by the weights before the run (start) or before the "
        "round (round).",
        choices=("start", "round"),
    )
    iterative_kl: bool = option(
        False,
        help="Tell in each round how far the model is from the reference: two passes over all answers.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterative_kl and self.dpo_loss in WITHOUT_REFERENCE:
            raise ValueError(f"--iterative-kl: --dpo-loss {self.dpo_loss} has no reference; leave it out")
        if self.iterative_reference == "round" and self.reference_model is not None:
            raise ValueError("--iterative-reference round is without --reference-model: leave one out")


@dataclass(frozen=True, kw_only=True)
class KtoOptions:
    """How much good and bad answers count, and how sharply they are told apart."""

    preference_beta: float = option(
        0.1, help="How strongly the model is kept near the reference.", above=0, aliases=_BETA_NAMES
    )
    kto_desirable_weight: float = option(
        1.0, help="Weight of good answers.", minimum=0, aliases=("desirable_weight", "kto_chosen_weight")
    )
    kto_undesirable_weight: float = option(
        1.0, help="Weight of bad answers.", minimum=0, aliases=("undesirable_weight", "kto_rejected_weight")
    )
    reference_model: str | None = option(None, help=_REFERENCE, aliases=_REFERENCE_NAMES)
    max_prompt_length: int | None = option(None, help=_LONGEST_PROMPT, minimum=1)
