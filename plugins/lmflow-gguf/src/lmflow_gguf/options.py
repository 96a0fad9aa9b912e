"""Options of this plugin's components. Nothing heavy here: flags are read before anything loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmflow_core.api import option
from lmflow_transformers.options import biases

PLAIN = ("F32", "F16", "BF16", "Q8_0")
QUANTISED = (
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1"),
    *("Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K"),
    *("IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0"),
)
NEED_CALIBRATION = ("Q2_K_S", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS")
TYPES = (*PLAIN, *QUANTISED, *NEED_CALIBRATION)


@dataclass(frozen=True, kw_only=True)
class ConversionOptions:
    """How a model becomes GGUF."""

    pre_tokenizer: str | None = option(
        None, help="Pre-tokenizer of a vocabulary that llama.cpp does not know, such as gpt-2, llama-bpe or qwen2."
    )
    calibration: Path | None = option(None, help="Text whose activations tell which weights matter, for quantising.")
    verify: bool = option(False, help="Load the file with llama.cpp and compare tokens and logits with the source.")


@dataclass(frozen=True, kw_only=True)
class GgufOptions(ConversionOptions):
    """How a model becomes GGUF files."""

    type: tuple[str, ...] = option(
        ("F16",), help="Number format: F32, F16, BF16, Q8_0 or one of llama.cpp's such as Q4_K_M; several with commas."
    )
    mmproj_type: str | None = option(
        None, help="Number format of the eyes of a model that sees: F32, F16, BF16 or Q8_0; that of --type, or F16."
    )
    report: bool = option(False, help="Measure each file with llama.cpp: NLL and its change, speed, load time.")
    report_text: Path | None = option(None, help="Text that the report is measured on; a page of ours when left out.")

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", tuple(map(known_type, self.type)))
        _check_calibration(self.type, self.calibration)
        if self.mmproj_type is not None:
            object.__setattr__(self, "mmproj_type", _plain_type(self.mmproj_type, "--mmproj-type"))
        if self.report_text is not None and not self.report:
            raise ValueError("--report-text is for a report: add --report")


@dataclass(frozen=True, kw_only=True)
class OllamaOptions(ConversionOptions):
    """A model for Ollama."""

    type: str = option("Q4_K_M", help="Number format: F16, Q8_0 or one of llama.cpp's such as Q4_K_M.")
    ollama_system: str | None = option(None, help="System prompt that the model starts with.")
    ollama_temperature: float | None = option(None, help="Temperature when none is asked for.", minimum=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", known_type(self.type))
        _check_calibration((self.type,), self.calibration)


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """A LoRA adapter as a GGUF file."""

    type: str = option("F32", help="Number format: F32, F16, BF16 or Q8_0.")

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", _plain_type(self.type, "--type of an adapter"))


@dataclass(frozen=True, kw_only=True)
class LlamaCppOptions:
    """How llama.cpp samples tokens."""

    temperature: float = option(0.0, help="Sharpness of the distribution; 0 is greedy.", minimum=0)
    top_k: int = option(0, help="Sample among this many likeliest tokens; 0 is all.", minimum=0)
    top_p: float = option(1.0, help="Sample among the likeliest tokens that hold this mass.", above=0, maximum=1)
    min_p: float = option(0.0, help="Sample among tokens at least this likely, next to the likeliest.", minimum=0)
    repetition_penalty: float = option(1.0, help="Divides the logits of tokens that occurred; 1 is off.", above=0)
    grammar: Path | None = option(None, help="File with a GBNF grammar that the answer must follow.")
    json_schema: str | None = option(
        None, help="JSON schema that the answer must follow, or the name of a file with it."
    )
    logit_bias: tuple[str, ...] = option(
        (), help="What is added to the logits of tokens, as ID:BIAS; -100 forbids one, 100 all others."
    )
    prompt_lookup: int = option(0, help="Draft this many tokens from the text so far, checked in one pass.", minimum=0)
    prompt_cache: Path | None = option(None, help="Folder that keeps evaluated prompts from one run to the next.")
    threads: int | None = option(None, help="Threads; every processor when left out.", minimum=1)

    def __post_init__(self) -> None:
        if self.grammar is not None and self.json_schema is not None:
            raise ValueError("--grammar and --json-schema cannot be combined")
        biases(self.logit_bias)


def known_type(name: str) -> str:
    """Return a number format as GGUF writes it.

    Raises:
        ValueError: there is none of that name.
    """
    if name.upper() not in TYPES:
        raise ValueError(f"--type: {name!r} is none of {', '.join(TYPES)}")
    return name.upper()


def _plain_type(name: str, told: str) -> str:
    if name.upper() not in PLAIN:
        raise ValueError(f"{told} must be one of {', '.join(PLAIN)}, not {name}")
    return name.upper()


def _check_calibration(types: tuple[str, ...], calibration: Path | None) -> None:
    needy = [name for name in types if name in NEED_CALIBRATION]
    if needy and calibration is None:
        raise ValueError(f"{', '.join(needy)} needs to know which weights matter: add --calibration TEXT")
