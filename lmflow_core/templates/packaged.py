"""The template of a plugin, from a YAML file in its package."""

from __future__ import annotations

from lmflow_core.errors import RequestError
from lmflow_core.templates.chat import ChatTemplate


def packaged_template(package: str, file: str) -> ChatTemplate:
    """Return the template of a YAML file that comes with a package, for a plugin whose template is data alone.

    Args:
        package: the import name, as in ``packaged_template("lmflow_pirate", "pirate.yaml")``.
        file: beside the package's modules; its keys are the fields of :class:`ChatTemplate`.

    Raises:
        RequestError: there is no such package or file, or it cannot be read.
        OptionError: it does not describe a template.
    """
    # The public interface shows this function, and no command but those that use such a template is to pay for these.
    from importlib import resources

    from lmflow_core.templates.files import described

    try:
        text = (resources.files(package) / file).read_text(encoding="utf-8")
    except (ImportError, OSError, UnicodeDecodeError) as error:
        raise RequestError(f"the template {file} of {package} cannot be read: {error}") from error
    return described(text, f"{package}: {file}")
