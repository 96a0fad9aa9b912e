"""Decoding with drafts for LMFlow: several tokens per pass of the model, sampled from the same distribution."""

__version__ = "0.1.0"
