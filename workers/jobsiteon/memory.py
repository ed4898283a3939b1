"""What the step that runs knows of a call's answer from before, and what it is told of it for later."""

import json
from typing import NoReturn

import httpx

from workers import steps
from workers.answered import Read
from workers.jobsiteon.answers import Answer, interpret
from workers.jobsiteon.calls import Call
from workers.jobsiteon.errors import RateLimited, TooMuch


class Memory:
    """The memory of one call, however often that is tried. Outside of a handler it is empty."""

    def __init__(self, call: Call) -> None:
        self._call = call
        step = steps.current()
        self._answered = step.answered if step else None
        if step and call.is_safe:
            self._key = step.numbered("GET", call.url or call.path, repr(sorted(call.params.items())))
        elif step:
            self._key = f"{call} {step.numbered(call.method, call.path, str(call.idempotency_key))}"

    def recall(self) -> Answer | None:
        """The answer, if there has been one that counts for this run."""
        if self._answered is None:
            return None
        if not self._call.is_safe:
            written = self._answered.written(self._key)
            return None if written is None else Answer(json.loads(written))
        read = self._answered.read(self._key)
        if read is None:
            return None
        return interpret(self._call, httpx.codes.OK, httpx.Headers([("link", link) for link in read.links]), read.body)

    def note(self, answer: Answer) -> None:
        """The call has been answered."""
        if self._answered is None:
            return
        if self._call.is_safe:
            self._answered.note_read(self._key, Read(answer.body, answer.links))
        else:
            self._answered.note_written(self._key, json.dumps(answer.data))

    def cut(self, error: RateLimited, limit: int) -> NoReturn:
        """The rate limit has refused the call.

        Raises:
            RateLimited: that is so.
            TooMuch: it would be so again and again.
        """
        if self._answered is not None:
            self._answered.was_cut = True
            if self._answered.is_too_much and self._answered.number >= limit:
                raise TooMuch(
                    f"{self._call}: in one run, this handler asks for more than the rate limit of {limit} requests "
                    "lets through, and its answers are too large to be kept until it goes on: ask for less at once."
                ) from None
        raise error
