"""What a process takes beside the tensors of a step: fitted to runs on a processor, assumed on a GPU.

On a processor the peak is that of the resident set. It holds the interpreter, torch, transformers, the tokenizer and
the prepared data (590 MB in a run on Linux, before weights are read). The heap is not compacted: a buffer that does not
fit a gap is put behind the last one, so that the most of each part adds up, though not all are there at one time, and
what is kept for backward takes about half as much again. That form and both numbers were fitted to 19 runs of
SmolLM2-135M on Linux, which it meets within a tenth (docs/how-to/plan-memory.md).

On a GPU it is what the driver shows: CUDA's context with its kernels and the workspaces of cuBLAS, taken as half a GB,
and what PyTorch's allocator keeps in blocks that no tensor fills, taken as a twentieth of what comes and goes. Neither
was measured here.
"""

from __future__ import annotations

from collections.abc import Iterator

from lmflow_core.api import MemoryPart

PROCESS = 590 * 10**6
CONTEXT = 500 * 10**6
HEAP, BLOCKS = 0.5, 0.05


def parts(gpu: bool, activations: int, step: int) -> Iterator[MemoryPart]:
    """Yield what a process takes beside tensors.

    Args:
        gpu: whether the tensors are on one.
        activations: bytes kept for backward.
        step: bytes of all that comes and goes in a step.
    """
    if gpu:
        yield MemoryPart("gaps of the allocator", int(BLOCKS * step), 0, f"{BLOCKS:.0%} of what comes and goes")
        yield MemoryPart("framework", CONTEXT, PROCESS, "CUDA's context; the process in main memory")
    else:
        yield MemoryPart("gaps of the heap", int(HEAP * activations), 0, f"{HEAP:.0%} of the activations")
        yield MemoryPart("framework", PROCESS, 0, "the process: Python, torch, transformers, data")
