"""LoRA adapters for LMFlow, trained and merged with peft."""

__version__ = "0.1.0"
