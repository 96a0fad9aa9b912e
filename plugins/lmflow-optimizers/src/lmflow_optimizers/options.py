"""What can be set of each family of optimizers. No torch here.

Optimizers of one family have the same options and other defaults: a field that is None stands for the optimizer's own.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmflow_core.api import option

_OWN = "the optimizer's own when left out."


def _below_one(**given: float | None) -> None:
    for name, value in given.items():
        if value is not None and value >= 1:
            raise ValueError(f"--{name.replace('_', '-')} must be below 1")


@dataclass(frozen=True, kw_only=True)
class BetaOptions:
    """Decays of an optimizer with moments."""

    adam_beta1: float | None = option(None, help=f"Decay of the mean of gradients; {_OWN}", minimum=0, maximum=1)
    adam_beta2: float | None = option(None, help=f"Decay of the second mean; {_OWN}", minimum=0, maximum=1)

    def __post_init__(self) -> None:
        _below_one(adam_beta1=self.adam_beta1, adam_beta2=self.adam_beta2)


@dataclass(frozen=True, kw_only=True)
class MomentOptions(BetaOptions):
    """Decays, and what keeps a quotient finite."""

    adam_epsilon: float | None = option(None, help=f"Added to the denominator; {_OWN}", above=0)


@dataclass(frozen=True, kw_only=True)
class AdanOptions(MomentOptions):
    """Options of Adan."""

    adam_beta3: float | None = option(None, help=f"Decay of the mean of squares; {_OWN}", minimum=0, maximum=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        _below_one(adam_beta3=self.adam_beta3)


@dataclass(frozen=True, kw_only=True)
class AdaBoundOptions(MomentOptions):
    """Options of AdaBound."""

    adabound_final_lr: float = option(0.1, help="Rate of the plain descent that it becomes.", above=0)
    adabound_gamma: float = option(1e-3, help="How fast it becomes plain descent.", above=0, maximum=1)


@dataclass(frozen=True, kw_only=True)
class AdamPOptions(MomentOptions):
    """Options of AdamP."""

    adamp_delta: float = option(0.1, help="Cosine below which a weight counts as scale-free.", minimum=0, maximum=1)
    adamp_decay_ratio: float = option(0.1, help="Share of the decay for scale-free weights.", minimum=0, maximum=1)


@dataclass(frozen=True, kw_only=True)
class NAdamOptions(MomentOptions):
    """Options of NAdam."""

    nadam_momentum_decay: float = option(4e-3, help="How fast its momentum grows to the first decay.", minimum=0)


@dataclass(frozen=True, kw_only=True)
class YogiOptions(MomentOptions):
    """Options of Yogi."""

    yogi_accumulator: float = option(1e-6, help="Where its means start.", minimum=0)


@dataclass(frozen=True, kw_only=True)
class SophiaOptions(BetaOptions):
    """Options of Sophia."""

    sophia_rho: float = option(0.04, help="Curvature counts this much; less clips more updates.", above=0)
    sophia_batch_tokens: int = option(5120, help="Labelled tokens of a step, about.", minimum=1)
    sophia_interval_steps: int = option(10, help="Steps between estimates of the curvature.", minimum=1)


@dataclass(frozen=True, kw_only=True)
class SgdOptions:
    """Options of descent with momentum."""

    sgd_momentum: float = option(0.9, help="Momentum.", minimum=0, maximum=1)

    def __post_init__(self) -> None:
        _below_one(sgd_momentum=self.sgd_momentum)


@dataclass(frozen=True, kw_only=True)
class ScheduleFreeSgdOptions(SgdOptions):
    """Options of schedule-free descent."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sgd_momentum:
            raise ValueError("--sgd-momentum must be above 0: gradients are taken between two sets of weights")


@dataclass(frozen=True, kw_only=True)
class ScheduleFreeOptions(MomentOptions):
    """Options of schedule-free AdamW."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adam_beta1 == 0:
            raise ValueError("--adam-beta1 must be above 0: gradients are taken between two sets of weights")


@dataclass(frozen=True, kw_only=True)
class LarsOptions(SgdOptions):
    """Options of LARS."""

    lars_trust: float = option(0.01, help="Step as a share of a weight's own norm.", above=0)


@dataclass(frozen=True, kw_only=True)
class SgdpOptions(SgdOptions):
    """Options of SGDP."""

    adamp_delta: float = option(0.1, help="Cosine below which a weight counts as scale-free.", minimum=0, maximum=1)
    adamp_decay_ratio: float = option(0.1, help="Share of the decay for scale-free weights.", minimum=0, maximum=1)


@dataclass(frozen=True, kw_only=True)
class AdadeltaOptions:
    """Options of Adadelta."""

    adadelta_rho: float = option(0.95, help="Decay of its means of squares.", minimum=0, maximum=1)


@dataclass(frozen=True, kw_only=True)
class AdagradOptions:
    """Options of Adagrad."""

    adagrad_accumulator: float = option(0.0, help="Where its sum of squares starts.", minimum=0)


@dataclass(frozen=True, kw_only=True)
class AdafactorOptions:
    """Options of Adafactor."""

    adafactor_decay: float = option(0.8, help="The mean of squares forgets as step^-DECAY.", above=0, maximum=1)
    adafactor_clip: float = option(1.0, help="Largest root mean square of an update.", above=0)


@dataclass(frozen=True, kw_only=True)
class RmspropOptions(SgdOptions):
    """Options of RMSprop."""

    rmsprop_alpha: float = option(0.99, help="Decay of the mean of squares.", minimum=0, maximum=1)


@dataclass(frozen=True, kw_only=True)
class MuonOptions(MomentOptions):
    """Options of Muon, and of the AdamW beside it."""

    muon_momentum: float = option(0.95, help="Momentum of hidden weights.", minimum=0, maximum=1)
    muon_nesterov: bool = option(True, help="Look ahead by Nesterov's rule.")
    muon_iterations: int = option(5, help="Newton-Schulz iterations.", minimum=1, maximum=20)
    muon_scaling: str = option(
        "rms",
        help="rms: updates as large as AdamW's, for its rates; shape: sqrt(rows/columns), for rates near 0.02.",
        choices=("rms", "shape"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _below_one(muon_momentum=self.muon_momentum)


@dataclass(frozen=True, kw_only=True)
class GaloreOptions(MomentOptions):
    """Options of GaLore."""

    galore_rank: int = option(128, help="Rank of the projected gradients.", minimum=1)
    galore_interval_steps: int = option(200, help="Steps between projections.", minimum=1)
    galore_scale: float = option(0.25, help="Projected updates count this much.", above=0)


@dataclass(frozen=True, kw_only=True)
class ApolloOptions(MomentOptions):
    """Options of APOLLO."""

    apollo_rank: int = option(128, help="Rank of the space in which gradients are scaled; 1 is APOLLO-Mini.", minimum=1)
    apollo_interval_steps: int = option(200, help="Steps between projections.", minimum=1)
    apollo_scale: float = option(1.0, help="Scaled updates count by its root; 128 for APOLLO-Mini.", above=0)
    apollo_scaled: str = option("channel", help="What has a scale of its own.", choices=("channel", "tensor"))
