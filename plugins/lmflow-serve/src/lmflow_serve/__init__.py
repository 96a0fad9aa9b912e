"""An OpenAI-compatible server for LMFlow."""

__version__ = "0.1.0"
