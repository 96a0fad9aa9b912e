"""What each process of a job holds, by DeepSpeed's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmflow_core.api import LoadPlan, Placement

_BUCKET = 5 * 10**8  # elements, DeepSpeed's own reduce_bucket_size
_COPY = 4  # bytes of a float32


def placed(zero: Mapping[str, Any], plan: LoadPlan, processes: int) -> Placement:
    """Return what is spread among the processes, and what waits in main memory.

    Stage 1 spreads the state, 2 the gradients, 3 the weights (arXiv:1910.02054). The optimizer updates float32 copies
    of what trains, its share from stage 1 on; without ZeRO only weights of half precision have such copies. Gradients
    are collected in a bucket before they are shared, of the size that the configuration says.
    """
    stage = int(zero["stage"])
    bucket = zero.get("reduce_bucket_size", _BUCKET)
    width = _COPY if plan.dtype == "float32" else 2
    return Placement(
        plan,
        weights=processes if stage == 3 else 1,
        gradients=processes if stage >= 2 else 1,
        state=processes if stage >= 1 else 1,
        gathered=stage == 3,
        weights_in_main="offload_param" in zero,
        state_in_main="offload_optimizer" in zero,
        copies=_COPY if plan.sharded_state else 0,
        buffers=bucket * width if stage and isinstance(bucket, int) else 0,
    )
