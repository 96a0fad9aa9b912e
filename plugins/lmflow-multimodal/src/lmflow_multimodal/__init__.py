"""Models that see: language models that take images beside text."""

__version__ = "0.1.0"
