"""Options of this plugin's components, for plugins that go on from them too.

No torch here: flags are read before anything heavy loads.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmflow_core.api import option

# Below it, quotients of logits may be no numbers.
_LOWEST_TEMPERATURE = 1e-4


@dataclass(frozen=True, kw_only=True)
class SftOptions:
    """Options of supervised fine-tuning."""

    loss_chunk: int = option(256, help="Labelled positions that pass through the output head at a time.", minimum=1)


@dataclass(frozen=True, kw_only=True)
class AdamWOptions:
    """Options of AdamW."""

    adam_beta1: float = option(0.9, help="AdamW's first decay.", minimum=0, maximum=1)
    adam_beta2: float = option(0.999, help="AdamW's second decay.", minimum=0, maximum=1)
    adam_epsilon: float = option(1e-8, help="AdamW's epsilon.", above=0)


@dataclass(frozen=True, kw_only=True)
class FsdpOptions:
    """How weights are spread in shards."""

    fsdp_reshard_after_forward: bool = option(
        True, help="Give up the weights of a layer behind its forward pass, and gather them again in backward."
    )
    fsdp_offload: str = option(
        "none", help="Where shards and optimizer state live: cpu keeps them off the GPU.", choices=("none", "cpu")
    )


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How the next token is sampled. Temperature 0 takes the likeliest."""

    temperature: float = option(0.0, help="Sharpness of the distribution; 0 is greedy.", minimum=0)
    top_k: int = option(0, help="Sample among this many likeliest tokens; 0 is all.", minimum=0)
    top_p: float = option(1.0, help="Sample among the likeliest tokens that hold this mass.", above=0, maximum=1)
    min_p: float = option(0.0, help="Leave out tokens below this share of the likeliest one.", minimum=0, maximum=1)
    repetition_penalty: float = option(
        1.0, help="Divides the logits of tokens that occurred; 1 is off.", minimum=0.01, maximum=100
    )
    logprobs: int | None = option(
        None, help="Give each token's log-probability and this many alternatives.", minimum=0, maximum=20
    )
    logit_bias: tuple[str, ...] = option(
        (), help="What is added to the logits of tokens, as ID:BIAS; -100 forbids one, 100 all others."
    )
    json_schema: str | None = option(
        None, help="JSON schema that the answer must follow, or the name of a file with it."
    )

    def __post_init__(self) -> None:
        biases(self.logit_bias)
        if 0 < self.temperature < _LOWEST_TEMPERATURE:
            raise ValueError(f"--temperature {self.temperature} is too low to divide by: take 0, the likeliest token")


def biases(texts: tuple[str, ...]) -> dict[int, float]:
    """Return what is added to the logits of tokens, by their ids.

    Raises:
        ValueError: a text is not of the form ID:BIAS, or the bias is not from -100 to 100.
    """
    read: dict[int, float] = {}
    for text in texts:
        token, _, bias = text.partition(":")
        try:
            read[int(token)] = float(bias)
        except ValueError:
            raise ValueError(f"--logit-bias {text!r} must be ID:BIAS, such as 42:-100") from None
        if int(token) < 0 or not -100 <= read[int(token)] <= 100:
            raise ValueError(f"--logit-bias {text!r}: a bias is from -100 to 100, of the id of a token")
    return read
