"""Flash attention for LMFlow: memory that grows linearly with length, on GPU and CPU."""

__version__ = "0.1.0"
