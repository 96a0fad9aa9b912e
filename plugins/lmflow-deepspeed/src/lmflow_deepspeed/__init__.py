"""DeepSpeed for LMFlow: ZeRO spreads optimizer state, gradients and weights over the processes of a job."""

__version__ = "0.1.0"
