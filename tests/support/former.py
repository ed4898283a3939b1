"""What receivers of the last release that went by the bytes do with a delivery: their own script and their own code."""

from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from zipfile import ZipFile

from redis import Redis

from app.config.settings import Settings
from app.inbox import jobs
from app.receiver.intake import Receipt
from tests.support import frozen

_ARCHIVE = ZipFile(Path(frozen.__file__).with_name("code_before_schema.zip"))


def _read(path: str) -> str:
    return _ARCHIVE.read(path).decode()


def _module(path: str) -> ModuleType:
    spec = spec_from_loader("former_envelope", loader=None)
    assert spec
    module = module_from_spec(spec)
    exec(compile(_read(path), f"<former {path}>", "exec"), module.__dict__)  # noqa: S102 - our own
    return module


def _script(name: str) -> str:
    shebang, _, body = _read(f"app/scripts/{name}.lua").partition("\n")
    common = _read("app/scripts/common.lua").replace("$RQ_PREFIX", "rq").replace("$QUEUE", "jobhook")
    return f"{shebang}\n{common}\n{body}"


_ENVELOPE = _module("app/event.py")
_ACCEPT = _script("accept")


def accept(redis: "Redis", settings: Settings, body: bytes) -> Receipt:
    """Records a delivery as they did."""
    envelope = _ENVELOPE.read_envelope(body)
    identity = _ENVELOPE.identify(body, envelope.event_id)
    arguments = (
        jobs.job(settings.handler_timeout),
        int(settings.dedupe_window),
        *identity,
        b'{"type":"test.ok"}',
        body,
    )
    status, id = redis.eval(_ACCEPT, 0, *arguments)
    return Receipt(status.decode(), id.decode())
