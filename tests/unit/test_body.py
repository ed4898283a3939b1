"""P3: a body costs no more than its limit; P6: one that does not come is given up."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
from starlette.types import Message

from app.receiver.body import GRACE_SECONDS, BodyReader, Crowded, Disconnected
from app.receiver.refusals import BodyTooLarge, BodyTooSlow
from tests.support import wait_until


class Stream:
    """A request's `receive`: the given chunks, then silence."""

    def __init__(self, *chunks: bytes, complete: bool = True, disconnect: bool = False) -> None:
        self._messages = self._sequence(chunks, complete, disconnect)
        self.taken = 0

    async def __call__(self) -> Message:
        message = next(self._messages, None)
        if message is None:
            await asyncio.Event().wait()  # for ever
            raise AssertionError
        self.taken += 1
        return message

    @staticmethod
    def _sequence(chunks: tuple[bytes, ...], complete: bool, disconnect: bool) -> Iterator[Message]:
        for number, chunk in enumerate(chunks, 1):
            yield {"type": "http.request", "body": chunk, "more_body": number < len(chunks) or not complete}
        if disconnect:
            yield {"type": "http.disconnect"}


def read(stream: Stream, declared: bytes = b"", limit: int = 10) -> bytes:
    return asyncio.run(BodyReader(limit).read(stream, declared))


@pytest.mark.parametrize(
    "chunks",
    [(b"",), (b"0123456789",), (b"01234", b"56789"), (b"", b"0123456789", b"")],
    ids=["empty", "whole", "halves", "empty chunks"],
)
def test_reads_a_body_up_to_the_limit(chunks: tuple[bytes, ...]) -> None:
    assert read(Stream(*chunks)) == b"".join(chunks)


def test_reads_a_message_without_body() -> None:
    async def receive() -> Message:
        return {"type": "http.request"}

    assert asyncio.run(BodyReader(10).read(receive, b"")) == b""


@pytest.mark.parametrize(
    "declared",
    [b"11", b"9" * 5000, b"00000000000000000011"],
    ids=["one too many", "a number of 5,000 digits", "leading zeros"],
)
def test_refuses_a_declared_size_before_reading(declared: bytes) -> None:
    """P3."""
    stream = Stream(b"01234567890")
    with pytest.raises(BodyTooLarge):
        read(stream, declared)
    assert stream.taken == 0


@pytest.mark.parametrize("declared", [b"", b"5", b"-1", b"ten", b"1e1", b"5,5", "５".encode()], ids=repr)
def test_counts_what_arrives_whatever_is_declared(declared: bytes) -> None:
    """P3: and stops reading at the chunk that is too much."""
    stream = Stream(b"01234", b"56789", b"x", b"never", b"read")
    with pytest.raises(BodyTooLarge):
        read(stream, declared)
    assert stream.taken == 3


@pytest.mark.parametrize("declared", [b"0" * 40, b"0" * 40 + b"10", b"0010"], ids=["none", "40 zeros", "2 zeros"])
def test_zeros_in_front_of_a_declared_size_make_it_no_larger(declared: bytes) -> None:
    """P8."""
    assert read(Stream(b"0123456789"), declared) == b"0123456789"


def test_notices_that_the_client_went_away() -> None:
    with pytest.raises(Disconnected):
        read(Stream(b"0123", complete=False, disconnect=True))


@pytest.mark.parametrize("chunks", [(), (b"0123",)], ids=["from the start", "after a while"])
def test_gives_up_a_body_that_does_not_come(chunks: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """P6."""
    monkeypatch.setattr("app.receiver.body.BODY_SECONDS", 0.01)
    with pytest.raises(BodyTooSlow):
        read(Stream(*chunks, complete=False))


def test_gives_up_a_body_that_trickles(monkeypatch: pytest.MonkeyPatch) -> None:
    """P3, P6: the time counts for the whole, so a byte now and then does not prolong it."""
    monkeypatch.setattr("app.receiver.body.BODY_SECONDS", 0.01)

    async def trickle() -> Message:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"", "more_body": True}

    with pytest.raises(BodyTooSlow):
        asyncio.run(BodyReader(10).read(trickle, b""))


def test_a_body_that_came_while_the_receiver_stood_still_is_not_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """P6: never a 4xx for our own trouble."""
    monkeypatch.setattr("app.receiver.body.BODY_SECONDS", 0.01)
    near, far = socket.socketpair()
    far.setblocking(False)

    async def session() -> bytes:
        loop = asyncio.get_running_loop()

        async def receive() -> Message:
            return {"type": "http.request", "body": await loop.sock_recv(far, 10)}

        reading = asyncio.create_task(BodyReader(10).read(receive, b""))
        await asyncio.wait({reading}, timeout=0)
        near.send(b"0123456789")
        late_at = loop.time() + 0.01 + GRACE_SECONDS
        wait_until(lambda: loop.time() > late_at)  # and the loop stands still meanwhile
        return await reading

    with near, far:
        assert asyncio.run(session()) == b"0123456789"


def test_a_receiver_that_stood_still_gives_a_body_up_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """P3."""
    monkeypatch.setattr("app.receiver.body.BODY_SECONDS", 0.01)

    async def session() -> None:
        loop = asyncio.get_running_loop()
        reading = asyncio.create_task(BodyReader(10).read(Stream(b"0", complete=False), b""))
        await asyncio.wait({reading}, timeout=0)
        late_at = loop.time() + 0.01 + GRACE_SECONDS
        wait_until(lambda: loop.time() > late_at)
        with pytest.raises(BodyTooSlow):
            await reading

    asyncio.run(session())


def test_all_bodies_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """P3: and what was held for those that are gone may be held for others."""
    monkeypatch.setattr("app.receiver.body.MAX_HELD_BYTES", 12)
    monkeypatch.setattr("app.receiver.body.BODY_SECONDS", 0.01)

    async def session() -> list[bytes | BaseException]:
        reader = BodyReader(10)
        together = [reader.read(Stream(chunk, complete=False), b"") for chunk in (b"012345", b"678901", b"2")]
        answers: list[bytes | BaseException] = [*await asyncio.gather(*together, return_exceptions=True)]
        return [*answers, await reader.read(Stream(b"0123456789"), b"")]

    *together, after = asyncio.run(session())
    assert [type(answer) for answer in together] == [BodyTooSlow, BodyTooSlow, Crowded]
    assert after == b"0123456789"


def test_each_body_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """P6: one timer watches all of them; who comes later is late later, and who is done is left alone."""
    monkeypatch.setattr("app.receiver.body.BODY_SECONDS", 0.05)

    async def session() -> tuple[bytes | BaseException, ...]:
        reader, loop = BodyReader(10), asyncio.get_running_loop()
        begun = loop.time()
        late_after: list[float] = []

        async def read(stream: Stream) -> bytes:
            try:
                return await reader.read(stream, b"")
            except BodyTooSlow:
                late_after.append(loop.time() - begun)
                raise

        first = asyncio.create_task(read(Stream(b"0", complete=False)))
        whole = asyncio.create_task(read(Stream(b"whole")))
        await asyncio.wait({first}, timeout=0.03)
        second = asyncio.create_task(read(Stream(b"1", complete=False)))
        answers = await asyncio.gather(first, whole, second, return_exceptions=True)
        assert late_after == sorted(late_after)
        assert late_after[1] >= 0.08  # its own time, by the loop's own clock
        return answers

    first, whole, second = asyncio.run(session())
    assert (type(first), whole, type(second)) == (BodyTooSlow, b"whole", BodyTooSlow)
