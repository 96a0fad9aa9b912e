"""What DeepSpeed and accelerate keep in a process, and find there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def surroundings() -> Iterator[None]:
    """For the time of the context, let DeepSpeed find the device; then forget what libraries keep of the processes."""
    kept = dict(os.environ)
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        yield
    finally:
        _leave()
        for name in os.environ.keys() - kept.keys():
            del os.environ[name]
        os.environ.update(kept)


def tell_accelerate() -> None:
    """Let accelerate know the processes: without a GPU it would take each for the only one."""
    from accelerate.state import AcceleratorState, PartialState

    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    PartialState(backend="nccl" if torch.cuda.is_available() else "gloo")


def compile_nothing() -> None:
    """Let processors talk over gloo alone: DeepSpeed would compile a kernel of its own at the first start."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _leave() -> None:
    """Forget what libraries keep of the group for the life of a process."""
    from accelerate.state import AcceleratorState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    AcceleratorState._reset_state(reset_partial_state=True)
    unset_hf_deepspeed_config()
    try:
        from deepspeed.comm import comm
    except ImportError:
        return
    comm.cdb = None
