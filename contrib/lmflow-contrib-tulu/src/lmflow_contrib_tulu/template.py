"""The template, whose texts are in the YAML file beside this module."""

from __future__ import annotations

from lmflow_core.api import packaged_template

TULU3 = packaged_template("lmflow_contrib_tulu", "tulu3.yaml")
