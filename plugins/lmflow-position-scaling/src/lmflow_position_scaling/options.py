"""Options of the schemes that have any."""

from __future__ import annotations

from dataclasses import dataclass

from lmflow_core.api import option


@dataclass(frozen=True, kw_only=True)
class YarnOptions:
    """Which frequencies YaRN stretches; the paper's values for Llama."""

    yarn_beta_fast: float = option(
        32.0, help="Frequencies that turn more often within the trained length stay as they are.", above=0
    )
    yarn_beta_slow: float = option(
        1.0, help="Frequencies that turn less often within the trained length are stretched in full.", above=0
    )

    def __post_init__(self) -> None:
        if self.yarn_beta_fast <= self.yarn_beta_slow:
            raise ValueError("--yarn-beta-fast must be above --yarn-beta-slow")


@dataclass(frozen=True, kw_only=True)
class Llama3Options:
    """Which frequencies Llama 3.1 stretches."""

    llama3_low_freq_factor: float = option(
        1.0, help="Frequencies that turn less often within the trained length are stretched in full.", above=0
    )
    llama3_high_freq_factor: float = option(
        4.0, help="Frequencies that turn more often within the trained length stay as they are.", above=0
    )

    def __post_init__(self) -> None:
        if self.llama3_high_freq_factor <= self.llama3_low_freq_factor:
            raise ValueError("--llama3-high-freq-factor must be above --llama3-low-freq-factor")


@dataclass(frozen=True, kw_only=True)
class LongRopeOptions:
    """How far LongRoPE stretches each frequency, fastest first; found by a search that is not part of this plugin."""

    longrope_short_factor: tuple[float, ...] = option(
        (), help="Divisors up to the trained length; ones when left out.", above=0
    )
    longrope_long_factor: tuple[float, ...] = option(
        (), help="Divisors beyond the trained length; those of NTK when left out.", above=0
    )
