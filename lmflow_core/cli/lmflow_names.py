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
}

TRANSLATED: dict[str, Translation] = {
    "model_name_or_path": lambda given: {"model": given},
    "dataset_path": lambda given: {"dataset": given},
    "block_size": lambda given: {"max_length": given, "length_policy": "truncate"},
    "resume_from_checkpoint": lambda given: {} if given.lower() in FALSE else {"resume": True},
}

IGNORED: dict[str, str] = {
    "do_train": "finetune always trains",
    "do_eval": "give held-out data with --eval-dataset",
    "arch_type": "the model tells its architecture",
    "disable_group_texts": "examples are laid end to end and never see each other",
    "group_texts_batch_size": "examples are laid end to end and never see each other",
    "preprocessing_num_workers": "data is prepared in one pass",
    "dataloader_num_workers": "data is in memory before training starts",
    "overwrite_cache": "prepared data is never stale",
    "validation_split_percentage": "give held-out data with --eval-dataset",
    "ddp_timeout": "the launcher decides",
    "use_ram_optimized_load": "weights are always mapped, not copied",
    "use_fast_tokenizer": "fast tokenizers are always used",
    "save_aggregated_lora": "use lmflow merge",
}
