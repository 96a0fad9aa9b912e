"""Drives a batch that samples several answers at once, in order or at random."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from lmflow_core.contracts.decoder import BatchStep, Decoder, DecodeStep, DecodingRequest, RunningBatch

Asked = Sequence[tuple[DecodingRequest, Decoder]]


def ids_of(steps: Iterable[DecodeStep]) -> list[int]:
    """Return the tokens of some steps."""
    return [token for step in steps for token in step.ids]


def run_batch(batch: RunningBatch, asked: Asked) -> list[list[DecodeStep]]:
    """Add all requests at once; return the steps of each.

    Raises:
        Exception: what the decoder of an answer failed with.
    """
    steps: dict[int, list[DecodeStep]] = {batch.add(request, decoder): [] for request, decoder in asked}
    left = set(steps)
    while left:
        for news in batch.step():
            if not _ends(news):
                steps[news.ticket].append(news.step or DecodeStep(()))
            else:
                left.remove(news.ticket)  # an end that is told twice is an error here
    return list(steps.values())


def run_at_random(batch: RunningBatch, asked: Asked, source: random.Random) -> tuple[list[list[int]], set[int]]:
    """Let requests join at random steps and take some away again.

    Returns:
        The tokens of each request, and the places of those that were taken away before they ended.

    Raises:
        Exception: what the decoder of an answer failed with.
    """
    tickets: dict[int, int] = {}
    tokens: list[list[int]] = [[] for _ in asked]
    removed: set[int] = set()
    ended: set[int] = set()
    while len(ended) + len(removed) < len(asked):
        while len(tickets) < len(asked) and source.random() < 0.4:
            place = len(tickets)
            tickets[batch.add(*asked[place])] = place
        unfinished = [ticket for ticket, place in tickets.items() if place not in ended | removed]
        if unfinished and source.random() < 0.03:
            ticket = source.choice(unfinished)
            batch.remove(ticket)
            removed.add(tickets[ticket])
        for news in batch.step():
            place = tickets[news.ticket]
            assert place not in ended | removed, "news of an answer that is over"
            if _ends(news):
                ended.add(place)
            else:
                tokens[place] += ids_of([news.step] if news.step else [])
    return tokens, removed


def _ends(news: BatchStep) -> bool:
    if news.error is not None:
        raise news.error
    return news.step is None
