"""Flags that the original LMFlow documents and that are spelt differently here.

Names that differ in nothing but spelling are ``aliases`` of the options themselves; flags without effect or place here
are in ``_lmflow_flags.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

Values = Mapping[str, object]
Translation = Callable[[str], Values]

TRUE = frozenset(("true", "yes", "on", "1"))
FALSE = frozenset(("false", "no", "off", "0"))

# Short options of the original's scripts.
SHORT = {
    "-m": "--model_name_or_path",
    "-d": "--dataset_path",
    "-o": "--output_dir",
    "-r": "--run_name",
}

# They take all values that follow, as one with commas.
LISTS = frozenset(("dataset_path_list",))

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
    "use_customized_optim": {},
    "train_on_prompt": {"train_on": "all"},
    "truncate_to_model_max_length": {"length_policy": "truncate"},
    "sanity_check": {"max_train_samples": 1000},
}


def _rope(scheme: str) -> Translation:
    """Return what a ratio of the original means: a scheme of ours with that factor, or nothing when it is 1."""
    return lambda given: {} if given in ("1", "1.0") else {"position_scaling": scheme, "position_scaling_factor": given}


def _named(name: str) -> Translation:
    return lambda given: {name: given}


def _one_of(meanings: Mapping[str, Values], otherwise: str) -> Translation:
    """Return what some values mean; any other is refused, telling what takes its place."""

    def translate(given: str) -> Values:
        if given.lower() not in meanings:
            raise ValueError(otherwise)
        return meanings[given.lower()]

    return translate


def _only(accepted: str, otherwise: str) -> Translation:
    """Return that some values, with spaces between, mean nothing here and any other is refused."""
    return _one_of({value: {} for value in accepted.split()}, otherwise)


def _truth(when_true: Values | str, when_false: Values | str) -> Translation:
    """Return what true and false mean; one with a text is refused, telling what takes its place."""

    def translate(given: str) -> Values:
        if given.lower() not in TRUE | FALSE:
            raise ValueError("is neither true nor false")
        meaning = when_true if given.lower() in TRUE else when_false
        if isinstance(meaning, str):
            raise ValueError(meaning)
        return meaning

    return translate


def _optimizer(given: str) -> Values:
    """Return the optimizer that is meant; that some pages its state to main memory changes no result."""
    adamw = ("adamw", "adamw_hf", "adamw_torch", "adamw_torch_fused", "paged_adamw_32bit")
    return {"optimizer": "adamw" if given in adamw else given}


_ROUNDS = "is not available: a round answers, scores and learns; lmflow generate and lmflow data score do that alone"
_ARCHITECTURES = "is not available yet; models that predict the next token or give a reward are trained"
_BENCHMARKS = "is not available: it belongs to the benchmark lmflow, of the plugin lmflow-benchmarks"
_BITS = _one_of({"4": {"tuner": "qlora"}, "8": {"tuner": "qlora", "qlora_type": "int8"}}, "is neither 4 nor 8")
_QUANTISED = _one_of({"nf4": {"qlora_type": "nf4"}, "fp4": {"qlora_type": "fp4"}}, "is neither nf4 nor fp4")
_TRUNCATED: Translation = lambda given: {"max_length": given, "length_policy": "truncate"}  # noqa: E731

# What options of ours mean besides, by command: the original has them without a flag that chooses its benchmark.
IMPLIED: dict[str, dict[str, Values]] = {
    "evaluate": {name: {"benchmark": "lmflow"} for name in ("metric", "answer_type", "dataset_name")}
}

TRANSLATED: dict[str, Translation] = {
    "model_name_or_path": _named("model"),
    "dataset_path": _named("dataset"),
    "train_dataset_path": _named("dataset"),
    "dataset_path_list": _named("dataset"),
    "eval_dataset_path": _named("eval_dataset"),
    "validation_file": _named("eval_dataset"),
    "block_size": _TRUNCATED,
    "model_max_length": _TRUNCATED,
    "truncation_side": _only("right none", "is not available: examples are cut at their end"),
    "arch_type": _one_of({"decoder_only": {}, "text_regression": {"objective": "reward"}}, _ARCHITECTURES),
    "rope_pi_ratio": _rope("linear"),
    "rope_ntk_ratio": _rope("ntk"),
    "resume_from_checkpoint": lambda given: {} if given.lower() in FALSE else {"resume": True},
    # Where the plugin is installed, the flag is an option of the engine.
    "deepspeed": lambda given: {"engine": "deepspeed"},
    "lisa_step_interval": _named("lisa_interval_steps"),
    "optim": _optimizer,
    "optimizer_type": _optimizer,
    "customized_optim": _optimizer,
    "quant_bit": _BITS,
    "bits": _BITS,
    "quant_type": _QUANTISED,
    "quantization_type": _QUANTISED,
    "double_quant": _truth({"qlora_double_quantization": True}, {"qlora_double_quantization": False}),
    "optim_beta1": _named("adam_beta1"),
    "optim_beta2": _named("adam_beta2"),
    "optim_beta3": _named("adam_beta3"),
    "optim_momentum": _named("sgd_momentum"),
    "optim_weight_decay": _named("weight_decay"),
    "logging_strategy": _only("steps", "is not available: give --logging-steps N"),
    "save_strategy": _only(
        "steps no", "is not available: give --save-steps N; the best are kept with --load-best-model"
    ),
    "evaluation_strategy": _only("steps epoch", "is not available: leave out --eval-dataset to measure nothing"),
    "eval_strategy": _only("steps epoch", "is not available: leave out --eval-dataset to measure nothing"),
    "length_penalty": _only("0 0.0", "is not available: no loss looks at lengths but those that count by the token"),
    "num_stages_per_epoch": _only("1", "is not available: one run trains on all data; leave it out"),
    "mixed_precision": _one_of({"bf16": {"dtype": "bfloat16"}, "fp16": {"dtype": "float16"}}, "is none of bf16, fp16"),
    # Options of the benchmark that IMPLIED chooses, where it is installed.
    "metric": _only("nll neg_log_likelihood ppl perplexity", f"{_BENCHMARKS}; the likelihood is measured without it"),
    "answer_type": _only("text text2text", f"{_BENCHMARKS}; the likelihood is measured without it"),
    "dataset_name": _only("customized", f"{_BENCHMARKS}; or give --dataset the set's folder"),
    "evaluate_block_size": _named("stride"),
    "output_dir": lambda given: {"output_file": f"{given}/evaluation.json"},
    "prompt_structure": _only(
        "{input} {input_text}", "is not available: give --template, or write the words around a prompt into the data"
    ),
    "random_seed": _named("seed"),
    "inference_batch_size": _named("batch_size"),
    "inference_batch_size_per_device": _named("batch_size"),
    "do_sample": _truth({}, {"temperature": 0}),
    "use_beam_search": _truth("is not available: answers are sampled, with --temperature 0 the likeliest token", {}),
    "num_output_sequences": _only("1", "is not available: ask again with another --seed; lmflow serve takes n"),
    "apply_chat_template": _truth({}, {"raw": True}),
    "enable_decode_inference_result": _truth({}, "is not available: answers are written as text"),
    "results_path": _named("output"),
    "inference_results_path": _named("output"),
    "enable_distributed_inference": _truth("is not available yet: one process answers", {}),
    "tensor_parallel_size": _only("1", "is not available yet: one process answers"),
    "distributed_inference_num_instances": _only("1", "is not available yet: one process answers"),
    "use_vllm": _truth("is not available yet: leave it out; lmflow serve and --prompts answer many at a time", {}),
    "inference_engine": _only("huggingface", "is not available yet: leave it out; --prompts answers many at a time"),
    # Behind finetune; the commands that answer have an option of this name.
    "max_new_tokens": _named("iterative_max_new_tokens"),
    "initial_iter_idx": _only("0", "is not available: a run that was cut off goes on with --resume"),
    "do_response_generation": _truth({}, _ROUNDS),
    "do_scoring": _truth({}, _ROUNDS),
    "do_dpo_align": _truth({}, _ROUNDS),
    "top_p": _only("1 1.0", "is not available: answers are sampled from all tokens"),
    "gamma": lambda given: {"decoder": "speculative", "draft_length": given},
    "gpu": lambda given: {"device": f"cuda:{given}"},
}
