"""The conversation template of Tulu 3 and OLMo 2, as a YAML file."""

__version__ = "0.1.0"
