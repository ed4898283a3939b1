"""`jobhook diagnose`: why a signature does not verify, and which settings make it."""

import re
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from redis.exceptions import RedisError

from app.cli.output import console, fail, plain, precise, print_json
from app.config.keys import fingerprint
from app.config.settings import Settings
from app.config.sources import load_settings
from app.delivery.diagnosis import TYPED, Diagnosis, Key, RawRequest, UnreadableRequest, diagnose, named, parse_request
from app.errors import RejectedNotFound
from app.inbox.inbox import connect
from app.inbox.rejected import Rejected, RejectedDeliveries
from app.ops.keys import standings


def diagnose_(
    id: Annotated[
        str | None, typer.Argument(help="A rejected delivery, by its id in `jobhook rejected`; the newest by default.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="A whole HTTP/1.1 request as it was received: head, empty line, body. - is standard input."),
    ] = None,
    url: Annotated[str, typer.Option(help="The URL that is registered with JobsiteOn.")] = "",
    key_prompt: Annotated[bool, typer.Option("--key-prompt", help="Try a key, too, that is typed unseen.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find out how a request was signed, and which settings accept it; offline, without showing a key."""
    if url and not url.startswith(("https://", "http://")):
        fail(f"{url}: write the whole URL, such as https://hooks.example.com/webhooks/jobsiteon", 2)
    if id is not None and file is not None:
        raise typer.BadParameter("give a rejected delivery's id, or --file")
    settings = load_settings()
    if file is not None:
        request, received = _read(file), None
    else:
        kept = _kept(settings, id)
        request, received = kept.request, kept.received
        if not as_json:
            console.print(
                f"Rejected delivery {plain(kept.id)}, unverified, of {precise(kept.received)} from {plain(kept.peer)}"
            )
    keys = named(settings.signing_keys)
    about_typed: str | None = None
    if key_prompt:
        typed = typer.prompt("Key", hide_input=True, err=True).encode("utf-8", "surrogateescape")
        keys.append(Key(TYPED, typed))
        about_typed = _recognised(settings, typed)
    diagnosis = diagnose(request, keys, settings.signature_scheme, url, received)
    if as_json:
        print_json(asdict(diagnosis) | ({"typed_key": about_typed} if key_prompt else {}))
        return
    show(diagnosis)
    if about_typed:
        console.print(f"The key that was typed: {plain(about_typed)}.")


def _recognised(settings: Settings, typed: bytes) -> str | None:
    """What is remembered of a typed key, such as when it was retired; None if nothing is, or Redis is away."""
    with connect(settings) as redis, suppress(RedisError):
        return next((key.says for key in standings(settings, redis) if key.fingerprint == fingerprint(typed)), None)
    return None


def show(diagnosis: Diagnosis) -> None:
    """A diagnosis for people: the settings so that they can be pasted into `.env`."""
    for number, match in enumerate(diagnosis.matches):
        console.print(f"[green]{'It matches' if not number else 'Or'}[/] with the key: {plain(match.key)}")
        console.print(f"  {plain(match.says)}")
        for name, value in match.settings.items():
            console.print(f"  [bold]{name}={plain(_quoted(value))}[/]" if value else f"  Remove [bold]{name}[/].")
    for cause in diagnosis.causes:
        console.print(f"[red]{plain(cause.cause)}[/]")
        console.print(f"  {plain(cause.says)}")


def _quoted(value: str) -> str:
    """A value as an `.env` file takes it literally: in single quotes, unless it is plain."""
    if re.fullmatch(r"[^\s'\"#$\\]*", value):
        return value
    return "'" + value.replace("\\\\", "\\\\\\\\").replace("'", "\\'") + "'"


def _kept(settings: Settings, id: str | None) -> Rejected:
    """A rejected delivery by its id, or the newest."""
    with connect(settings) as redis:
        rejected = RejectedDeliveries(redis)
        found = rejected.get(id) if id is not None else next(rejected.newest(), None)
    if found is None:
        raise RejectedNotFound("No rejected delivery is kept. One that was saved elsewhere is read by --file.")
    return found


def _read(file: Path) -> RawRequest:
    try:
        return parse_request(sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes())
    except OSError as error:
        fail(f"{file}: {error.strerror}", 2)
    except UnreadableRequest as error:
        fail(f"{file}: {error}", 2)
