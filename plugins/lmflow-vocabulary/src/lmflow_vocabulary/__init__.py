"""Vocabularies for LMFlow: trained anew, extended by the tokens of a language, and measured."""

__version__ = "0.1.0"
