"""Longer contexts for models with rotary embeddings, as numbers in the model's configuration."""

__version__ = "0.1.0"
