"""``lmflow distill-draft``: the choices of ``lmflow finetune`` that make a draft model."""

from __future__ import annotations

DISTILL_DRAFT = {"objective": "distillation", "tuner": "draft"}
