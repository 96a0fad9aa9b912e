"""The settings every run shares, whichever components it chooses. Components add options of their own.

They stand in one file, as a run file and ``--help`` show them side by side.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lmflow_core.contracts.examples import TRAIN_ON
from lmflow_core.options import option

LENGTH_POLICIES = ("error", "drop", "truncate", "split")
# Where a prompt structure has the prompt; the original LMFlow has two names for it.
PROMPT_PLACE = re.compile(r"\{input(?:_text)?\}")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which model, and how it is opened."""

    model: str = option(help="Model: a registered name, a folder, a hub name or a GGUF file.")
    adapter: Path | None = option(
        None, help="Folder (or GGUF file) of an adapter to put on the model.", aliases=("lora_model_path",)
    )
    dtype: str = option(
        "auto",
        help="Number format of the weights; auto is float32 on a CPU, bfloat16 on a GPU.",
        choices=("auto", "float32", "bfloat16", "float16"),
        aliases=("torch_dtype",),
    )
    device: str = option("auto", help="Where to run: auto, cpu, cuda or cuda:N.")
    revision: str | None = option(None, help="Revision of a hub model.", aliases=("model_revision",))
    trust_remote_code: bool = option(False, help="Run Python code that comes with a model. Off unless you ask.")
    fetch_images: bool = option(False, help="Fetch images from http and https addresses. Off unless you ask.")
    position_scaling: str | None = option(None, help="Way to extend rotary positions beyond the trained length.")
    position_scaling_factor: float | None = option(
        None, help="How many times as far positions are to reach.", minimum=1
    )
    target_length: int | None = option(
        None, help="Length in tokens that scaled positions are to reach; the factor follows.", minimum=1
    )

    def __post_init__(self) -> None:
        reach = [given for given in (self.position_scaling_factor, self.target_length) if given is not None]
        if self.position_scaling is None and reach:
            raise ValueError("--position-scaling-factor and --target-length need --position-scaling NAME")
        if self.position_scaling is not None and len(reach) != 1:
            raise ValueError("--position-scaling needs one of --position-scaling-factor and --target-length")


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which data, and how rows become tokens."""

    dataset: tuple[Path, ...] = option(help="Data file, folder or hub name; several with commas.")
    dataset_format: str | None = option(None, help="Form of the rows; recognised from them when left out.")
    template: str | None = option(
        None,
        help="Conversation template; the model decides when left out.",
        aliases=("conversation_template",),
    )
    image_folder: tuple[Path, ...] = option(
        (), help="Folders that images of the data may be read from, besides that of the data file."
    )
    max_length: int | None = option(
        None, help="Longest example in tokens; the model's context when left out.", minimum=2
    )
    length_policy: str = option(
        "error", help="What happens to longer examples; always counted.", choices=LENGTH_POLICIES
    )
    max_train_samples: int | None = option(None, help="Read only this many rows.", minimum=1)
    dataset_weights: tuple[float, ...] = option(
        (), help="How often the rows of each --dataset count: 2 is twice, 0.5 a random half.", above=0
    )
    eval_share: float = option(
        0.0,
        help="Share of the rows, sampled by the seed, that the loss is measured on instead of training.",
        minimum=0,
        maximum=0.9,
    )
    train_on: str = option(
        "assistant",
        help="Turns of a conversation that are trained on: the assistant's, its last, or all.",
        choices=TRAIN_ON,
    )
    cache: bool = option(True, help="Keep the encoded rows for the next run on the same data.")

    def __post_init__(self) -> None:
        if self.dataset_weights and len(self.dataset_weights) != len(self.dataset):
            found, wanted = len(self.dataset_weights), len(self.dataset)
            raise ValueError(f"--dataset-weights has {found} numbers for {wanted} entries of --dataset")


@dataclass(frozen=True, kw_only=True)
class EvaluationDataSettings(DataSettings):
    """Which data; a benchmark may bring its own."""

    dataset: tuple[Path, ...] = option((), help="Data file or folder; several with commas. Benchmarks bring their own.")
    prompt_structure: str | None = option(
        None, help="Text with {input} in the place of the prompt, for rows of a plain prompt and its answer."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt_structure is not None and len(PROMPT_PLACE.split(self.prompt_structure)) != 2:
            raise ValueError(
                f"--prompt-structure {self.prompt_structure!r} must hold {{input}} once: the prompt's place"
            )


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a training run goes. Names in ``aliases`` are those of transformers' ``TrainingArguments``."""

    epochs: float = option(1.0, help="Passes over the data.", above=0, aliases=("num_train_epochs",))
    max_steps: int | None = option(None, help="Stop after this many optimizer steps.", minimum=1)
    batch_size: int = option(
        8, help="Examples per step and process.", minimum=1, aliases=("per_device_train_batch_size",)
    )
    pack_length: int | None = option(
        None, help="Pack examples into rows of this many tokens; --batch-size then counts packs.", minimum=2
    )
    micro_batch_tokens: int | None = option(
        None,
        help="Tokens of a batch that go through the model at a time, in whole examples; 1024 on a CPU, else all, "
        "when left out.",
        minimum=1,
        aliases=("pass_tokens",),
    )
    train_parts: tuple[str, ...] = option(
        (), help="Parts of a model that sees which train: projector, language, vision."
    )
    gradient_accumulation_steps: int = option(1, help="Batches per optimizer step.", minimum=1)
    lr: float | None = option(
        None,
        help="Peak learning rate; the optimizer's or the tuner's own when left out.",
        above=0,
        aliases=("learning_rate",),
    )
    lr_scheduler_type: str = option(
        "cosine",
        help="Course of the learning rate.",
        choices=("cosine", "linear", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"),
    )
    warmup_ratio: float = option(0.03, help="Share of the steps spent warming up.", minimum=0, maximum=1)
    warmup_steps: int | None = option(None, help="Steps spent warming up, in the place of --warmup-ratio.", minimum=0)
    weight_decay: float = option(0.0, help="Weight decay.", minimum=0)
    max_grad_norm: float = option(1.0, help="Gradients are clipped to this norm; 0 turns clipping off.", minimum=0)
    gradient_checkpointing: bool = option(False, help="Recompute activations to save memory.")
    activation_offload: bool = option(False, help="Keep activations in main memory, not on the GPU.")
    logging_steps: int = option(10, help="Steps between points of the loss curve.", minimum=1)
    save_steps: int | None = option(None, help="Steps between checkpoints; none are kept when left out.", minimum=1)
    save_total_limit: int = option(2, help="Checkpoints kept.", minimum=1)
    eval_dataset: tuple[Path, ...] = option((), help="Validation data to measure during training.")
    eval_steps: int | None = option(None, help="Steps between measurements; once per epoch when left out.", minimum=1)
    load_best_model: bool = option(
        False, help="Keep the weights with the lowest validation loss.", aliases=("load_best_model_at_end",)
    )
    early_stopping_patience: int | None = option(
        None, help="Stop after this many measurements without a lower validation loss.", minimum=1
    )
    report_to: tuple[str, ...] = option((), help="Trackers: tensorboard, wandb, mlflow, …")
    run_name: str | None = option(None, help="Name of the run in trackers.")
    seed: int = option(42, help="Seed of every random choice.", minimum=0, maximum=2**32 - 1)


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """Where a result goes."""

    output: Path = option(
        help="Folder for the result, or the file where the result is one.",
        aliases=("output_dir", "output_model_path", "output_lora_path"),
    )
    overwrite: bool = option(False, help="Replace a result that is already there.", aliases=("overwrite_output_dir",))


@dataclass(frozen=True, kw_only=True)
class ResumeSettings:
    """Going on with a run."""

    resume: bool = option(False, help="Go on from the newest whole checkpoint in the output folder.")
    resume_anyway: bool = option(
        False, help="Go on even where data, options, plugins or libraries differ from the checkpoint's; they are told."
    )

    @property
    def resumes(self) -> bool:
        """Whether the run goes on from a checkpoint."""
        return self.resume or self.resume_anyway


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(GB|GiB|MB|MiB)?", re.IGNORECASE)
_UNITS = {"gb": 10**9, "gib": 2**30, "mb": 10**6, "mib": 2**20}


@dataclass(frozen=True, kw_only=True)
class PlannedDataSettings(DataSettings):
    """Data that is not read."""

    dataset: tuple[Path, ...] = option((), help="Data; it is not read.")


@dataclass(frozen=True, kw_only=True)
class PlannedOutputSettings(OutputSettings):
    """A result that is not written."""

    output: Path | None = option(None, help="Folder for the result; it is not written.")  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """The machine that a training run is planned for."""

    gpus: int | None = option(None, help="GPUs of the job, a process on each; without, one processor.", minimum=1)
    memory: str | None = option(
        None, help="Memory of each device, such as 24 or 24GB (10^9 bytes) or 24GiB (2^30); gives a verdict."
    )
    main_memory: str | None = option(None, help="Main memory beside the GPUs, in the same form, for all processes.")

    def __post_init__(self) -> None:
        for flag, value in (("--memory", self.memory), ("--main-memory", self.main_memory)):
            if value is not None and _bytes(value) <= 0:
                raise ValueError(f"{flag} {value!r} must be a size above 0, such as 24, 24GB or 24GiB")

    def device_bytes(self) -> int:
        """Return the bytes of each device; 0 where they were not told."""
        return _bytes(self.memory or "")

    def main_bytes(self) -> int:
        """Return the bytes of main memory; 0 where they were not told."""
        return _bytes(self.main_memory or "")


def _bytes(text: str) -> int:
    """Return a size in bytes; 0 for what is none. A number without a unit is of 10^9 bytes."""
    found = _SIZE.fullmatch(text.strip())
    return int(float(found[1]) * _UNITS[(found[2] or "GB").lower()]) if found else 0


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How a model is measured."""

    output_file: Path | None = option(None, help="Write the result to this JSON file; a picture goes beside it.")
    benchmark: str | None = option(None, help="What is measured; the likelihood of the data when left out.")
    samples_file: Path | None = option(
        None, help="Write a row for each question of a benchmark that tells them to this JSONL file."
    )
    context: int | None = option(
        None, help="Score long documents with a sliding window of this many tokens.", minimum=2
    )
    stride: int | None = option(
        None,
        help="Tokens between windows, of the model's context without --context; half a window when left out.",
        minimum=1,
    )

    def __post_init__(self) -> None:
        if self.context is not None and self.stride is not None and self.stride >= self.context:
            raise ValueError("--stride must be smaller than --context, so that each token has something before it")


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings:
    """Which runs are compared."""

    compare: tuple[Path, ...] = option(
        help="Files that --samples-file wrote, of runs that were asked the same; each is compared with the first."
    )
    output_file: Path | None = option(None, help="Write the result to this JSON file; a picture goes beside it.")


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """Which answers are scored, and where the scores go."""

    dataset: tuple[Path, ...] = option(help="Data file or folder with answers; several with commas.")
    dataset_format: str | None = option(None, help="Form of the rows; recognised from them when left out.")
    output: Path | None = option(None, help="JSONL file for the rows with their scores.")
    overwrite: bool = option(False, help="Replace an output that is already there.")


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """What is shown to a model that sees."""

    image: tuple[Path, ...] = option((), help="Images that are shown with what is asked first; several with commas.")


@dataclass(frozen=True, kw_only=True)
class PromptSettings(ImageSettings):
    """What is asked."""

    prompt: str | None = option(None, help="The prompt; '-' reads it from standard input.")
    prompts: Path | None = option(
        None, help="File of prompts: JSONL rows with 'prompt' or 'messages', or plain text, one a line."
    )
    output: Path | None = option(None, help="JSONL file for the answers to --prompts.")
    batch_size: int = option(32, help="Prompts of a file that are answered together, at most.", minimum=1)
    resume: bool = option(False, help="Go on behind the last whole row of the output.")
    overwrite: bool = option(False, help="Replace an output that is already there.")
    raw: bool = option(False, help="Use the prompt as it is, without a conversation template.")

    def __post_init__(self) -> None:
        if (self.prompt is None) == (self.prompts is None):
            raise ValueError("either --prompt or --prompts is required: a prompt, or a file of them")
        if (self.prompts is None) != (self.output is None):
            raise ValueError("--prompts and --output go together: the prompts, and the file for their answers")
        if self.image and self.prompts is not None:
            raise ValueError("--image goes with --prompt; the rows of --prompts name their own images")
        if self.resume and self.overwrite:
            raise ValueError("--resume goes on with an output and --overwrite replaces it: leave one out")


@dataclass(frozen=True, kw_only=True)
class DecodingSettings:
    """What every decoder is asked."""

    max_new_tokens: int = option(256, help="Longest answer in tokens.", minimum=1)
    stop: tuple[str, ...] = option((), help="Texts that end the answer; several with commas.", aliases=("end_string",))
    seed: int = option(42, help="Seed of every random choice.", minimum=0, maximum=2**32 - 1)
    system: str | None = option(None, help="System prompt.", aliases=("system_prompt",))
    template: str | None = option(
        None,
        help="Conversation template; the model decides when left out.",
        aliases=("conversation_template",),
    )
