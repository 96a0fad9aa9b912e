"""What a command of a plugin opens models with."""

from __future__ import annotations

from lmflow_core.contracts.model import ModelServices


def model_services(catalogue: object) -> ModelServices:
    """Return services that open any model that ``--model`` could name.

    Args:
        catalogue: what click gives a command that is decorated with ``click.pass_obj``.
    """
    from lmflow_core.generation.second_models import Models
    from lmflow_core.plugins.registry import Catalogue

    assert isinstance(catalogue, Catalogue), "model_services is given what click.pass_obj gives a command"
    return Models(catalogue)
