"""Flags that the original LMFlow documents and that are spelt differently here.

Names that differ in nothing but spelling are ``aliases`` of the options themselves.
"""

from __future__ import annotations

from collections.abc import Callable

Translation = Callable[[str], dict[str, object]]

_FALSE = ("0", "false", "no", "off")


def _switch(**values: object) -> Translation:
    """Return a translation of a truth value: some options when it is true, nothing when it is false."""
    return lambda given: {} if given.lower() in _FALSE else dict(values)


TRANSLATED: dict[str, Translation] = {
    "model_name_or_path": lambda given: {"model": given},
    "dataset_path": lambda given: {"dataset": given},
    "use_lora": _switch(tuner="lora"),
    "use_qlora": _switch(tuner="qlora"),
    "use_dora": _switch(tuner="lora", lora_dora=True),
    "use_lisa": _switch(tuner="lisa"),
    "use_flash_attention": _switch(attention="flash"),
    "block_size": lambda given: {"max_length": given, "length_policy": "truncate"},
    "bf16": _switch(dtype="bfloat16"),
    "fp16": _switch(dtype="float16"),
    "resume_from_checkpoint": _switch(resume=True),
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
