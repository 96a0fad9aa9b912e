"""Flags that the original LMFlow documents and that are spelt differently here.

Names that differ in nothing but spelling are ``aliases`` of the options themselves.
"""

from __future__ import annotations

from collections.abc import Callable

Translation = Callable[[str], dict[str, object]]

FALSE = frozenset(("false", "no", "off", "0"))

# What a truth value means when it is true; nothing when it is false. The value may be left out.
SWITCHES: dict[str, dict[str, object]] = {
    "use_lora": {"tuner": "lora"},
    "use_qlora": {"tuner": "qlora"},
    "use_dora": {"tuner": "lora", "lora_dora": True},
    "use_lisa": {"tuner": "lisa"},
    "use_flash_attention": {"attention": "flash"},
    "bf16": {"dtype": "bfloat16"},
    "fp16": {"dtype": "float16"},
    "do_rope_scaling": {},
}


def _rope(scheme: str) -> Translation:
    """Return what a ratio of the original means: a scheme of ours with that factor, or nothing when it is 1."""
    return lambda given: {} if given in ("1", "1.0") else {"position_scaling": scheme, "position_scaling_factor": given}


TRANSLATED: dict[str, Translation] = {
    "model_name_or_path": lambda given: {"model": given},
    "dataset_path": lambda given: {"dataset": given},
    "block_size": lambda given: {"max_length": given, "length_policy": "truncate"},
    "rope_pi_ratio": _rope("linear"),
    "rope_ntk_ratio": _rope("ntk"),
    "resume_from_checkpoint": lambda given: {} if given.lower() in FALSE else {"resume": True},
}

IGNORED: dict[str, str] = {
    "do_train": "finetune always trains",
    "do_eval": "give validation data with --eval-dataset",
    "arch_type": "the model tells its architecture",
    "disable_group_texts": "examples are packed and isolated from each other",
    "group_texts_batch_size": "examples are packed and isolated from each other",
    "preprocessing_num_workers": "data is prepared in one pass",
    "dataloader_num_workers": "data is in memory before training starts",
    "overwrite_cache": "prepared data is never stale",
    "validation_split_percentage": "give validation data with --eval-dataset",
    "ddp_timeout": "the launcher decides",
    "use_ram_optimized_load": "weights are always mapped, not copied",
    "use_fast_tokenizer": "fast tokenizers are always used",
    "save_aggregated_lora": "use lmflow merge",
}
