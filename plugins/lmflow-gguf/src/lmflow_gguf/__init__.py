"""GGUF for LMFlow: export, quantise and run models with llama.cpp."""

__version__ = "0.1.0"
