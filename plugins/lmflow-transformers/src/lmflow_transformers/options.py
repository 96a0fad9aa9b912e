"""Options of this plugin's components, for plugins that go on from them too.

No torch here: flags are read before anything heavy loads.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

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


# What the spec of an engine with these options names as its launcher.
LAUNCHER = "lmflow_transformers.launching.launcher:ProcessLauncher"


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """How the processes of a job are started and joined, for every engine whose processes make one process group.

    Names are those of torchrun, aliases those of the launchers ``deepspeed`` and ``accelerate``. No result depends on
    them.
    """

    nproc: str | None = option(
        None,
        help="Processes to start on this machine; auto or gpu is one for each GPU.",
        aliases=("nproc_per_node", "num_gpus"),
        affects_result=False,
    )
    hostfile: Path | None = option(
        None,
        help="File with a line 'HOST slots=N' for each machine of the job; start the same command on each.",
        affects_result=False,
    )
    nnodes: int | None = option(
        None, help="Machines of the job, without --hostfile.", minimum=1, aliases=("num_nodes",), affects_result=False
    )
    node_rank: int | None = option(
        None,
        help="Place of this machine among those of the job, from 0; found by its own addresses in --hostfile.",
        minimum=0,
        aliases=("machine_rank",),
        affects_result=False,
    )
    master_addr: str | None = option(
        None,
        help="Address of the first machine; its name in --hostfile when left out.",
        aliases=("main_process_ip",),
        affects_result=False,
    )
    master_port: int | None = option(
        None,
        help="Port at which machines meet; 29500 when left out. A machine alone finds a free one.",
        minimum=1,
        maximum=65535,
        aliases=("main_process_port",),
        affects_result=False,
    )
    max_restarts: int | None = option(
        None,
        help="How often the job goes on from its last checkpoint when a process or machine is lost; 0 when left out.",
        minimum=0,
        affects_result=False,
    )
    host_timeout: float = option(
        30.0, help="Seconds of silence after which a machine counts as lost.", minimum=1, affects_result=False
    )
    join_timeout: float = option(
        600.0,
        help="Seconds that machines wait for each other, at the start and when one is to come back.",
        minimum=1,
        affects_result=False,
    )
    process_timeout: int = option(
        1800, help="Seconds that processes wait for each other within a step.", minimum=1, affects_result=False
    )

    def __post_init__(self) -> None:
        if self.nproc not in (None, "auto", "gpu") and not (str(self.nproc).isdecimal() and int(str(self.nproc)) > 0):
            raise ValueError(f"--nproc {self.nproc!r} must be a number of processes, auto or gpu")
        if self.hostfile is not None and self.nnodes is not None:
            raise ValueError("--nnodes is for jobs without --hostfile, which lists the machines: leave it out")

    @property
    def given(self) -> list[str]:
        """The options given that ask for processes to be started."""
        return [name for name in STARTING if getattr(self, name) is not None]


@dataclass(frozen=True, kw_only=True)
class FsdpOptions(LaunchOptions):
    """Those of starting processes, and how weights are spread in shards."""

    fsdp_reshard_after_forward: bool = option(
        True, help="Give up the weights of a layer behind its forward pass, and gather them again in backward."
    )
    fsdp_offload: str = option(
        "none", help="Where shards and optimizer state live: cpu keeps them off the GPU.", choices=("none", "cpu")
    )


# Any of these asks for processes to be started.
STARTING = tuple(field.name for field in fields(LaunchOptions) if field.default is None)


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
