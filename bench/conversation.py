"""A Tailrace whose language model is ``bench.stand_in``, and what both are asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.service_under_test import Bench, serve
from bench.stand_in import StandIn, stand_in
from bench.tokens import Question, asked

MESSAGES = [{"role": "user", "content": "Tell the time, again and again."}]
CONFIG = """
[llm.default]
kind = "openai"
base_url = "{base}"
model = "stand-in"
max_generations = 1000
"""
DIRECT = "the stand-in itself"


@dataclass(frozen=True, slots=True)
class Conversation:
    """``base`` and ``pid`` are those of Tailrace."""

    base: str
    pid: int
    model: StandIn

    def ours(self, count: int, accept: str = "text/event-stream") -> Question:
        """For so many tokens through Tailrace."""
        body = {"messages": MESSAGES, "max_tokens": count}
        return Question(f"{self.base}/v1/chat/stream", json.dumps(body), count, accept)

    def direct(self, count: int) -> Question:
        """For the same from the stand-in."""
        body = {"model": "stand-in", "stream": True, "messages": MESSAGES, "max_tokens": count}
        return Question(self.model.url, json.dumps(body), count)


@contextmanager
def conversation(bench: Bench, database_url: str, rate: float) -> Iterator[Conversation]:
    """The model sends ``rate`` tokens a second in each answer; both have given one already."""
    with stand_in(rate) as model:
        config = CONFIG.format(base=model.base)
        folder = bench.folder / "conversation"
        with serve(folder, database_url, config, "--no-worker") as served:
            made = Conversation(served.base, served.process.pid, model)
            for question in (made.ours(1), made.direct(1)):
                asked(question)
            yield made
