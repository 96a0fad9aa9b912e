"""Options of the decoder. No torch here: flags are read before anything heavy loads."""

from __future__ import annotations

from dataclasses import dataclass

from lmflow_core.api import option
from lmflow_transformers.options import SamplingOptions


@dataclass(frozen=True, kw_only=True)
class StreamingOptions(SamplingOptions):
    """What a token sees, and how the next one is sampled, as by the decoder ``sampling``."""

    attention_window: int | None = option(
        None, help="Tokens that each token sees, itself among them; the model's context when left out.", minimum=1
    )
    attention_sinks: int = option(4, help="How many of them are the first tokens of the text.", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention_window is not None and self.attention_sinks >= self.attention_window:
            raise ValueError(
                f"--attention-sinks {self.attention_sinks} must be smaller than --attention-window "
                f"{self.attention_window}, so that a token sees itself"
            )
