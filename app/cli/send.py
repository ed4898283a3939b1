"""`jobhook send`: delivers an event as JobsiteOn would."""

from pathlib import Path
from time import perf_counter
from typing import Annotated

import httpx
import typer

from app.cli.output import console, fail, print_json
from app.config import Settings, load_settings
from app.receiver import PATH
from app.samples import DEFAULT_TYPE, sample
from app.signature import HEADER, sign

SENDER_TIMEOUT_SECONDS = 5.0
"""How long JobsiteOn waits for its 200."""


def send(
    type: Annotated[str, typer.Argument(help="Type of the sample event, such as job.created.")] = DEFAULT_TYPE,
    file: Annotated[Path | None, typer.Option(help="Send this file as the body instead of a sample.")] = None,
    url: Annotated[str | None, typer.Option(help="Where to; the local receiver by default.")] = None,
    repeat: Annotated[int, typer.Option(min=1, max=1000, help="Deliver the same bytes so many times.")] = 1,
    bad_signature: Annotated[bool, typer.Option("--bad-signature", help="Sign with a wrong key.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Sign an event as JobsiteOn does, and deliver it."""
    settings = load_settings()
    body = _read(file) if file else sample(type)
    target = url or f"http://{settings.host}:{settings.port}{PATH}"
    answers = [deliver(target, body, settings, bad_signature=bad_signature) for _ in range(repeat)]
    if as_json:
        print_json([{"status": a.status_code, "ms": ms, "answer": _json(a)} for a, ms in answers])
    else:
        for answer, ms in answers:
            style = "green" if answer.is_success else "red"
            console.print(f"[{style}]{answer.status_code}[/] in {ms} ms  ", end="")
            console.print(answer.text, markup=False)
    if not all(answer.is_success for answer, _ in answers):
        raise typer.Exit(1)


def deliver(url: str, body: bytes, settings: Settings, *, bad_signature: bool = False) -> tuple[httpx.Response, float]:
    """The answer to one delivery, and the milliseconds it took."""
    key = b"not the key of anybody" if bad_signature else settings.signing_keys[0]
    signature = sign(key, body, settings.signature_algorithm, settings.signature_encoding)
    headers = {HEADER.decode(): signature, "content-type": "application/json", "user-agent": "jobhook-send"}
    begun = perf_counter()
    try:
        answer = httpx.post(url, content=body, headers=headers, timeout=SENDER_TIMEOUT_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        fail(f"{url} does not answer ({type(error).__name__}). Is `jobhook serve` or `jobhook dev` running?", 1)
    return answer, round((perf_counter() - begun) * 1000, 1)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        fail(f"{file}: {error.strerror}", 2)


def _json(answer: httpx.Response) -> object:
    try:
        return answer.json()
    except ValueError:
        return answer.text
