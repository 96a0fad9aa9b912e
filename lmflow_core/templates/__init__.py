"""Conversation templates: from a description to segments and to Jinja."""

from lmflow_core.templates.chat import ChatTemplate
from lmflow_core.templates.description import Reasoning, Tools

__all__ = ["ChatTemplate", "Reasoning", "Tools"]
