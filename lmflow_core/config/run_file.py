"""Run files: YAML with option names as keys."""

from __future__ import annotations

from pathlib import Path

from lmflow_core.errors import RequestError


def read_run_file(path: Path) -> dict[str, object]:
    """Return the values of a run file: YAML with option names as keys. A ``run.json`` serves too.

    Raises:
        RequestError: the file cannot be read or does not hold a mapping.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"{path}: the run file cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: broken YAML: {' '.join(str(error).split())}") from error
    if isinstance(content, dict) and isinstance(content.get("options"), dict):
        content = content["options"]
    if not isinstance(content, dict):
        raise RequestError(f"{path}: a run file maps option names to values")
    return {str(key).replace("-", "_"): value for key, value in content.items()}
