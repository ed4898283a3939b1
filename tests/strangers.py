"""What strangers cost the receiver, beside what good deliveries cost (P3): `python -m tests.strangers`.

Prints Markdown: CPU and memory for each kind of refused request, then what thousands of connections with
half-sent requests do to the receiver's memory and to good deliveries at the same time. About a minute.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from time import monotonic

import uvloop

from app.cli.embedded import DURABLE, EmbeddedServer
from app.delivery.signature import sign
from app.receiver.endpoint import PATH
from tests.benchmarks import load
from tests.benchmarks.processes import (
    KEY,
    PYTHON_M,
    ROOT,
    cpu_seconds,
    environment,
    pin_to_other_core,
    rss_bytes,
    serving,
)

REQUESTS = 2000
LARGE_REQUESTS = 200
WARM_UP = 300
CONNECTIONS = 10_000
OPENING_AT_ONCE = 200
SPARE_FILES = 500
GOOD_PER_SECOND = 50.0
GOOD_SECONDS = 10
LONGEST_SECONDS = 60.0
"""After which held connections are given up by this side: they should be ended by the other long before."""
SAMPLE_SECONDS = 0.05
LIMIT = 1024**2
"""The default of JOBHOOK_MAX_BODY_BYTES."""

FORWARDED = "X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\n"


@dataclass(frozen=True)
class Kind:
    """One way to be refused, or not."""

    name: str
    status: bytes
    request: bytes | None = None
    """None: a good delivery, each another."""
    number: int = REQUESTS
    reconnects: bool = False
    """A connection for each, though the receiver would keep it."""


def _request(*lines: str, body: bytes = b"", forwarded: str = FORWARDED) -> bytes:
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{forwarded}" + "".join(f"{line}\r\n" for line in lines)
    return f"{head}\r\n".encode() + body


_BODY = b'{"type":"job.created","data":{"note":"' + b"x" * 650 + b'"}}'
_FORGED = f"X-Signature: {sign(b'not the key, alas', _BODY)}"
_LENGTH = f"Content-Length: {len(_BODY)}"
_CHUNK = b"10000\r\n" + b"x" * 65536 + b"\r\n"
GOOD = "good delivery"
KINDS = (
    Kind(GOOD, b"200"),
    Kind("good delivery, on a new connection", b"200", reconnects=True),
    Kind("wrong signature", b"401", _request(_FORGED, _LENGTH, body=_BODY)),
    Kind("no signature", b"401", _request(_LENGTH, body=_BODY)),
    Kind("plain HTTP", b"403", _request(_FORGED, _LENGTH, body=_BODY, forwarded="")),
    Kind("not HTTP", b"400", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"),
    Kind("too large by its Content-Length", b"413", _request(_FORGED, f"Content-Length: {LIMIT + 1}")),
    Kind(
        "too large, 1 MiB streamed",
        b"413",
        _request(_FORGED, "Transfer-Encoding: chunked", body=_CHUNK * (LIMIT // 65536 + 1)),
        LARGE_REQUESTS,
    ),
)
HALVES = {
    "half a head": _request(_FORGED, _LENGTH)[:-2],
    "half a body": _request(_FORGED, _LENGTH, body=_BODY[: len(_BODY) // 2]),
}


def main() -> None:
    """Measures, and prints Markdown on standard output."""
    parser = argparse.ArgumentParser(prog="python -m tests.strangers", description=__doc__)
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="with half-sent requests")
    parser.add_argument("--hold", choices=tuple(HALVES), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.hold:
        sys.stdout.write(json.dumps(uvloop.run(_hold(options.port, HALVES[options.hold], options.connections))))
        return
    pin_to_other_core()
    number = min(options.connections, hard - SPARE_FILES)
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder), *DURABLE) as server:
        with serving((*PYTHON_M, "app", "serve"), environment(server.url)) as (pid, port):
            _print_costs(pid, port)
        _print_holding(server.url, number)


def _print_costs(pid: int, port: int) -> None:
    load.run(port, load.requests(WARM_UP, KEY.encode()))
    _say("| request | answer | CPU µs each | of a good one | RSS grown by, MiB |", "|---|---|---|---|---|")
    good = 0.0
    for kind in KINDS:
        before, memory = cpu_seconds(pid), rss_bytes(pid)
        uvloop.run(_send(port, kind))
        cost = (cpu_seconds(pid) - before) / kind.number * 1e6
        good = cost if kind.name == GOOD else good
        grown = (rss_bytes(pid) - memory) / 1024**2
        _say(f"| {kind.name} | {kind.status.decode()} | {cost:,.0f} | {cost / good:.2f} | {grown:.1f} |")


async def _send(port: int, kind: Kind) -> None:
    """All requests of a kind, one after the other; a new connection where the receiver has closed the last."""
    prepared = load.requests(kind.number, KEY.encode()) if kind.request is None else [kind.request] * kind.number
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    for request in prepared:
        if connection is None:
            connection = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = connection
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head[9:12] == kind.status, head
        lower = head.lower()
        await reader.readexactly(int(lower.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        if kind.reconnects or b"connection: close" in lower:
            writer.close()
            connection = None
    if connection:
        connection[1].close()


def _print_holding(redis_url: str, number: int) -> None:
    _say("", f"| {number:,} connections with | RSS grown by, KiB each | longest held, s | good answered | p99, ms |")
    _say("|---|---|---|---|---|")
    for kind in HALVES:
        with serving((*PYTHON_M, "app", "serve"), environment(redis_url)) as (pid, port):
            _print_held("none of them", 0.0, 0.0, _good(port))
            memory = rss_bytes(pid)
            with _holding(kind, port, number) as holding, _sampled(pid) as samples:
                good = _good(port)
                told, _ = holding.communicate(timeout=2 * LONGEST_SECONDS)
            _print_held(kind, (max(samples) - memory) / number / 1024, json.loads(told)["longest"], good)


def _holding(kind: str, port: int, number: int) -> "subprocess.Popen[bytes]":
    options = ["--hold", kind, "--port", str(port), "--connections", str(number)]
    return subprocess.Popen([sys.executable, "-m", "tests.strangers", *options], cwd=ROOT, stdout=subprocess.PIPE)


def _print_held(kind: str, grown: float, longest: float, good: load.Load) -> None:
    answered = good.statuses[b"200"] / (GOOD_PER_SECOND * GOOD_SECONDS)
    p99 = quantiles(good.latencies, n=100)[98] * 1000
    _say(f"| {kind} | {grown:.1f} | {longest:.1f} | {answered:.0%} | {p99:.0f} |")


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _good(port: int) -> load.Load:
    prepared = load.requests(int(GOOD_PER_SECOND * GOOD_SECONDS), KEY.encode())
    return load.run(port, prepared, connections=4, per_second=GOOD_PER_SECOND)


@contextmanager
def _sampled(pid: int) -> Iterator[list[int]]:
    """The resident memory of a process, over and over, in bytes."""
    samples, over = [rss_bytes(pid)], threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_SECONDS):
            samples.append(rss_bytes(pid))

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield samples
    finally:
        over.set()
        sampler.join()


class _Held(asyncio.Protocol):
    """A connection that sends half a request, and nothing more."""

    def __init__(self, half: bytes) -> None:
        self._half = half
        self.ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._begun = monotonic()
        transport.write(self._half)  # type: ignore[attr-defined]

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set_result(monotonic() - self._begun)


async def _hold(port: int, half: bytes, number: int) -> dict[str, float]:
    loop, places = asyncio.get_running_loop(), asyncio.Semaphore(OPENING_AT_ONCE)

    async def open_one() -> _Held:
        async with places:
            return (await loop.create_connection(lambda: _Held(half), "127.0.0.1", port))[1]

    async with asyncio.timeout(LONGEST_SECONDS):
        held = await asyncio.gather(*(open_one() for _ in range(number)))
        return {"longest": max(await asyncio.gather(*(one.ended for one in held)))}


if __name__ == "__main__":
    main()
