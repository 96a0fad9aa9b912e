"""Pictures of coloured shapes, drawn from a seed, with questions that have one right answer each."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

KINDS = ("count", "colour", "shape", "place")
SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 205, 40),
    "purple": (150, 50, 180),
    "black": (25, 25, 25),
}
PLACES = ("top left", "top right", "bottom left", "bottom right")
_FINER = 3  # drawn at so many times the size, which makes edges smooth


@dataclass(frozen=True)
class Thing:
    """One shape of a picture; none of a picture's others has its shape, its colour or its place."""

    shape: str
    colour: str
    place: str


@dataclass(frozen=True)
class Question:
    """What is asked of a picture."""

    kind: str
    text: str
    answer: str


def things(source: random.Random) -> list[Thing]:
    """Return one to four shapes."""
    count = source.randint(1, 4)
    chosen = (source.sample(values, count) for values in (SHAPES, list(COLOURS), PLACES))
    return [Thing(*each) for each in zip(*chosen, strict=True)]


def draw(shown: list[Thing], size: int, source: random.Random) -> Image.Image:
    """Return a square picture, ``size`` pixels high: each shape in its quarter, with place and size of chance."""
    small, size = size, size * _FINER
    picture = Image.new("RGB", (size, size), tuple(source.randint(190, 255) for _ in range(3)))
    pencil = ImageDraw.Draw(picture)
    for each in shown:
        radius = source.uniform(0.24, 0.4) * size / 2
        room = size / 4 - radius
        row, column = divmod(PLACES.index(each.place), 2)
        x, y = ((2 * n + 1) * size / 4 + source.uniform(-room, room) for n in (column, row))
        _draw(pencil, each, x, y, radius)
    return picture.resize((small, small), Image.Resampling.BOX)


def _draw(pencil: ImageDraw.ImageDraw, thing: Thing, x: float, y: float, radius: float) -> None:
    colour = COLOURS[thing.colour]
    if thing.shape == "circle":
        pencil.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    elif thing.shape == "square":
        half = 0.85 * radius
        pencil.rectangle((x - half, y - half, x + half, y + half), fill=colour)
    elif thing.shape == "triangle":
        angles = (math.pi * (2 * n / 3 - 0.5) for n in range(3))
        pencil.polygon([(x + radius * math.cos(each), y + radius * math.sin(each)) for each in angles], fill=colour)
    else:
        thin = 0.3 * radius
        pencil.rectangle((x - radius, y - thin, x + radius, y + thin), fill=colour)
        pencil.rectangle((x - thin, y - radius, x + thin, y + radius), fill=colour)


def noise(size: int, source: random.Random) -> Image.Image:
    """Return a picture that shows nothing."""
    return Image.frombytes("RGB", (size, size), source.randbytes(3 * size * size))


def ask(kind: str, shown: list[Thing], thing: Thing) -> Question:
    """Return a question of a kind: of the whole picture, or of one of its shapes."""
    return {
        "count": Question(kind, "How many shapes?", str(len(shown))),
        "colour": Question(kind, f"What colour is the {thing.shape}?", thing.colour),
        "shape": Question(kind, f"Which shape is {thing.colour}?", thing.shape),
        "place": Question(kind, f"Where is the {thing.shape}?", thing.place),
    }[kind]


def enumerate_all(shown: list[Thing]) -> Question:
    """Return the question that is answered by all there is to see, in the order of reading."""
    ordered = sorted(shown, key=lambda each: PLACES.index(each.place))
    answer = ", ".join(f"{each.place}: {each.colour} {each.shape}" for each in ordered)
    return Question("description", "What is shown?", answer)


def describe(shown: list[Thing]) -> Question:
    """Return the question what there is to see; its answer has a sentence or more for each shape."""
    sentences = [f"The picture shows {len(shown)} shape{'s' if len(shown) > 1 else ''} on a light background."]
    for one in shown:
        sentences.append(f"In the {one.place} corner there is a {one.colour} {one.shape}.")
    for one, other in itertools.pairwise(shown):
        sentences.append(f"The {one.colour} {one.shape} is {_beside(one.place, other.place)} the {other.shape}.")
    return Question("description", "Describe the picture.", " ".join(sentences))


def _beside(place: str, other: str) -> str:
    (row, column), (other_row, other_column) = (divmod(PLACES.index(each), 2) for each in (place, other))
    words = ["above" if row < other_row else "below"] if row != other_row else []
    if column != other_column:
        words.append("to the left of" if column < other_column else "to the right of")
    return " and ".join(words)


def conversation(shown: list[Thing], source: random.Random) -> list[Question]:
    """Return what a conversation on a picture asks; no question gives away the answer of one behind it.

    A shape is asked for its place, and for its colour or by its colour, as the one tells the other. How many there are
    comes first in half of all conversations, before the others could be counted.
    """
    asked = [ask(kind, shown, each) for each in shown for kind in ("place", source.choice(("colour", "shape")))]
    source.shuffle(asked)
    return [ask("count", shown, shown[0]), *asked] if source.random() < 0.5 else asked
