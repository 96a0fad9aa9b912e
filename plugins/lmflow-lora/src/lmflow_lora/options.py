"""Options of the LoRA and QLoRA tuners; LMFlow's names and defaults."""

from __future__ import annotations

from dataclasses import dataclass

from lmflow_core.api import option


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """Shape and variant of the adapters."""

    lora_r: int = option(8, help="Rank of the adapters.", minimum=1)
    lora_alpha: float = option(32, help="Adapters are scaled by alpha / rank.", above=0)
    lora_dropout: float = option(0.1, help="Dropout before the adapters.", minimum=0, maximum=0.99)
    lora_target_modules: tuple[str, ...] = option(
        ("all-linear",), help="Modules that get an adapter; all linear layers but the head by default."
    )
    lora_dora: bool = option(False, help="DoRA: train the magnitude of the weights separately (arXiv:2402.09353).")
    lora_rslora: bool = option(False, help="rsLoRA: scale by alpha / sqrt(rank) (arXiv:2312.03732).")
    lora_pissa: bool = option(False, help="PiSSA: start from the principal components (arXiv:2404.02948).")
    lora_plus_ratio: float | None = option(
        None, help="LoRA+: learning rate of B as a multiple of A's (arXiv:2402.12354).", minimum=1
    )

    def __post_init__(self) -> None:
        if self.lora_pissa and (self.lora_dora or self.lora_rslora):
            raise ValueError("--lora-pissa cannot be combined with --lora-dora or --lora-rslora")


@dataclass(frozen=True, kw_only=True)
class QloraOptions(LoraOptions):
    """Those of LoRA, and how the weights beside the adapters are quantised."""

    qlora_type: str = option("nf4", help="Form of the quantised weights.", choices=("nf4", "fp4", "int8"))
    qlora_double_quantization: bool = option(
        True, help="Quantise the factors of the blocks of nf4 and fp4 too (arXiv:2305.14314)."
    )
    qlora_compute_dtype: str = option(
        "auto",
        help="Number format in which nf4 and fp4 are multiplied; auto is that of the other weights.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora_pissa:
            raise ValueError("--lora-pissa takes from the weights, which are quantised: use --tuner lora")
