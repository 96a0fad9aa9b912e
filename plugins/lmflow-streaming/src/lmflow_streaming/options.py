"""Options of the decoder. No torch here: flags are read before anything heavy loads."""

from __future__ import annotations

from dataclasses import dataclass

from lmflow_core.api import option


@dataclass(frozen=True, kw_only=True)
class StreamingOptions:
    """What a token sees, and how the next one is drawn, as by the decoder ``sampling``."""

    attention_window: int | None = option(
        None, help="Tokens that each token sees, itself among them; the model's context when left out.", minimum=1
    )
    attention_sinks: int = option(4, help="How many of them are the first tokens of the text.", minimum=0)
    temperature: float = option(0.0, help="Sharpness of the distribution; 0 is greedy.", minimum=0)
    top_k: int = option(0, help="Draw among this many likeliest tokens; 0 is all.", minimum=0)
    top_p: float = option(1.0, help="Draw among the likeliest tokens that hold this mass.", above=0, maximum=1)
    min_p: float = option(0.0, help="Leave out tokens below this share of the likeliest one.", minimum=0, maximum=1)
    repetition_penalty: float = option(1.0, help="Divides the logits of tokens that occurred; 1 is off.", above=0)
    logprobs: int | None = option(
        None, help="Give each token's log-probability and this many alternatives.", minimum=0, maximum=20
    )

    def __post_init__(self) -> None:
        if self.attention_window is not None and self.attention_sinks >= self.attention_window:
            raise ValueError(
                f"--attention-sinks {self.attention_sinks} must be smaller than --attention-window "
                f"{self.attention_window}, so that a token sees itself"
            )
