"""What a run fills into a configuration of DeepSpeed, and where a configuration contradicts the run."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from lmflow_core.api import RequestError
from lmflow_transformers.training.job import TorchJob

_AUTO = "auto"


def filled(config: Mapping[str, Any], job: TorchJob) -> dict[str, Any]:
    """Return a configuration with the values of a run.

    Raises:
        RequestError: it says another value than the run; the message names both.
    """
    settings = job.settings
    together = settings.batch_size * settings.gradient_accumulation_steps * job.world.size
    of_the_run = {
        "train_micro_batch_size_per_gpu": (settings.batch_size, "--batch-size"),
        "gradient_accumulation_steps": (settings.gradient_accumulation_steps, "--gradient-accumulation-steps"),
        "train_batch_size": (together, "--batch-size times accumulation and processes"),
        "gradient_clipping": (settings.max_grad_norm, "--max-grad-norm"),
    }
    result = copy.deepcopy(dict(config))
    for key, (value, flag) in of_the_run.items():
        if result.get(key, _AUTO) not in (_AUTO, value):
            raise RequestError(
                f"--deepspeed: {key} is {result[key]} in the file, and {flag} is {value}: make them alike, or write "
                "'auto' in the file"
            )
        result[key] = value
    # It follows from the others and the number of processes, which the trainer does not know at this point.
    del result["train_batch_size"]
    _fill_sizes(result.get("zero_optimization", {}), job)
    return result


def _fill_sizes(zero: dict[str, Any], job: TorchJob) -> None:
    """Fill in what depends on the size of the network, as its documentation proposes."""
    width = job.model.config.get_text_config().hidden_size
    sizes = {
        "reduce_bucket_size": width * width,
        "stage3_prefetch_bucket_size": int(0.9 * width * width),
        "stage3_param_persistence_threshold": 10 * width,
    }
    for key, size in sizes.items():
        if zero.get(key) == _AUTO:
            zero[key] = size
