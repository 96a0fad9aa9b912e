"""Fine-tuning of the normalisation weights alone, kept as a small adapter."""

__version__ = "0.1.0"
