"""Looking for bad rows, and for images that cannot be read, before data is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lmflow_core.contracts.examples import ImagePart
from lmflow_core.contracts.settings import DataSettings, ModelSettings
from lmflow_core.contracts.spec import TORCH
from lmflow_core.data.examples import ExampleReader, Located
from lmflow_core.data.image_files import check_image
from lmflow_core.data.image_paths import image_sources
from lmflow_core.errors import DataError, RequestError, printable
from lmflow_core.models.opening import open_model
from lmflow_core.plugins.registry import Catalogue


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be trained on; ``row`` is None when the whole file cannot."""

    file: str
    row: int | None
    problem: str


@dataclass
class CheckReport:
    """Every bad row, the counts, and the form chosen for each file with its reason; ``images`` counts each once."""

    examples: int = 0
    images: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    bad_rows: list[BadRow] = field(default_factory=list)


def check_data(data: DataSettings, catalogue: Catalogue, model: ModelSettings | None = None) -> CheckReport:
    """Read everything, and look at every image, going on past bad rows.

    Args:
        data: which data, in which form, and where its images may lie.
        catalogue: the components there are.
        model: what opens the images; without one, they are looked at as files.

    Raises:
        DataError: a path does not exist or holds no data.
        RequestError: the model takes no images.
    """
    report = CheckReport()
    images = _Images(check_image if model is None else _opener(model, catalogue))

    def remember(error: DataError) -> None:
        report.bad_rows.append(BadRow(str(error.file), error.row, error.problem))

    reader = ExampleReader(catalogue, data.dataset_format, on_error=remember, image_folders=data.image_folder)
    for located in reader.read(data.dataset):
        report.examples += 1
        report.bad_rows += [BadRow(str(located.file), located.row, problem) for problem in images.problems(located)]
        report.kinds[located.example.kind] = report.kinds.get(located.example.kind, 0) + 1
    report.images = images.count
    report.files = {str(f): {"format": c.name, "reason": c.reason} for f, c in reader.formats.items()}
    return report


class _Images:
    """Looks at images, at each once, however many rows show it."""

    def __init__(self, check: Callable[[str], object]) -> None:
        """Look with ``check``, which raises ValueError for a bad image."""
        self._check = check
        self._seen: dict[str, str | None] = {}

    @property
    def count(self) -> int:
        """How many images there were."""
        return len(self._seen)

    def problems(self, located: Located) -> list[str]:
        """Return what is wrong with the images of an example."""
        found = [self._problem(source) for source in dict.fromkeys(image_sources(located.example))]
        return [problem for problem in found if problem is not None]

    def _problem(self, source: str) -> str | None:
        if source not in self._seen:
            try:
                self._check(source)
                self._seen[source] = None
            except ValueError as error:
                self._seen[source] = printable(str(error))
        return self._seen[source]


def _opener(settings: ModelSettings, catalogue: Catalogue) -> Callable[[str], object]:
    """Return what opens an image as a model does."""
    media = open_model(settings, catalogue, runtime=TORCH).model.media
    if media is None:
        raise RequestError(f"{settings.model} takes no images: leave --model out to look at them as files")
    return lambda source: media.tokenize(ImagePart(source))
