"""`jobhook send`: delivers an event as JobsiteOn would."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Annotated

import httpx
import typer

from app.cli.output import SHORT_ID_LENGTH, console, fail, plain, print_json, program
from app.config.settings import Settings
from app.config.sources import load_settings
from app.delivery.samples import DEFAULT_TYPE, sample
from app.delivery.signature import Signer
from app.receiver.endpoint import PATH

SENDER_TIMEOUT_SECONDS = 5.0
"""How long JobsiteOn waits for its 200."""
_WRONG_KEY = b"not the key of anybody"
_SHOWN_LENGTH = 200
"""Characters shown of an answer that is not Jobhook's."""


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
    target = url or local_url(settings) + PATH
    answers = []
    for answer, ms in deliver(target, body, settings, repeat=repeat, bad_signature=bad_signature):
        answers.append((answer, ms))
        if not as_json:
            console.print(summary(answer, ms))
    if as_json:
        print_json([{"status": a.status_code, "ms": ms, "answer": _content(a)} for a, ms in answers])
    elif id := _receipt(answer).get("id"):
        console.print(f"[dim]Follow it: {program()} event {str(id)[:SHORT_ID_LENGTH]}[/]")
    if not all(answer.is_success for answer, _ in answers):
        raise typer.Exit(1)


def deliver(
    url: str, body: bytes, settings: Settings, *, repeat: int = 1, bad_signature: bool = False
) -> Iterator[tuple[httpx.Response, float]]:
    """The answer to each delivery, and the milliseconds it took."""
    scheme = settings.signature_scheme
    signer = Signer(settings.signing_keys[0], scheme)
    if bad_signature:
        signer = Signer(_WRONG_KEY, replace(scheme, key_form="text"))
    headers = {"content-type": "application/json", "user-agent": "jobhook-send"}
    with httpx.Client(headers=headers, timeout=SENDER_TIMEOUT_SECONDS) as client:
        for _ in range(repeat):
            begun = perf_counter()
            try:
                request = client.build_request("POST", url, content=body)
                path, _, query = request.url.raw_path.partition(b"?")
                request.headers.update(signer.headers(body, request.method, path, query))
                answer = client.send(request)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                fail(f"{url} does not answer ({type(error).__name__}). Is `jobhook serve` or `jobhook dev` running?", 1)
            yield answer, round((perf_counter() - begun) * 1000, 1)


def summary(answer: httpx.Response, ms: float) -> str:
    """An answer in a line, with rich's markup."""
    receipt = _receipt(answer)
    if receipt.keys() >= {"status", "id"}:
        said = f"{receipt['status']:<9}  {receipt['id']}"
    else:
        said = str(receipt.get("title") or answer.text[:_SHOWN_LENGTH])
    style = "green" if answer.is_success else "red"
    return f"[{style}]{answer.status_code}[/]  {plain(said)}  [dim]{ms} ms[/]"


def local_url(settings: Settings) -> str:
    """Where the receiver with these settings is reached from this machine."""
    host = settings.host.strip("[]")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - "everywhere"
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        fail(f"{file}: {error.strerror}", 2)


def _content(answer: httpx.Response) -> object:
    try:
        return answer.json()
    except ValueError:
        return answer.text


def _receipt(answer: httpx.Response) -> dict[str, object]:
    content = _content(answer)
    return content if isinstance(content, dict) else {}
