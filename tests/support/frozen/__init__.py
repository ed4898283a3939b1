"""Records as earlier versions of Jobhook have written them, to be put into an empty server.

`before_schema.json` was dumped from 52fbcdb, the last version that stored no schema version: events in every
state, a redelivered one, a conflict, one that waits for its turn, one whose step has finished.
`code_before_schema.zip` is the code of that version (`app`, `workers` and the handlers of its tests), to be run
beside that of today. It kept JobsiteOn's answers with `hishel`, which is no requirement any more: what it imports of
that library is put beside it, empty, since no event of the tests asks JobsiteOn for anything.
"""

import json
import time
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from redis import Redis

_HISHEL = {
    "__init__.py": "class AsyncRedisStorage: ...\nclass RedisStorage: ...\nclass BaseStorage: ...\n"
    "class AsyncBaseStorage: ...\ndef CacheOptions(**options): ...\n",
    "httpx.py": "class AsyncCacheTransport: ...\nclass CacheTransport: ...\n",
}
_TIME_FIELDS = ("received", "started", "redelivered_last")


def thaw(redis: "Redis", name: str = "before_schema") -> dict[str, str]:
    """Writes the dump as if it had been taken just now; the ids of its events by what they are."""
    dump = json.loads(Path(__file__).with_name(f"{name}.json").read_text("utf-8"))
    passed_ms = int((time.time() - dump["taken_at"]) * 1000)
    for key, entry in dump["keys"].items():
        _write(redis, key, entry["type"], entry["value"], passed_ms)
        if entry["ttl"] > 0:
            redis.expire(key, entry["ttl"])
    ids: dict[str, str] = dump["ids"]
    return ids


def _write(redis: "Redis", key: str, kind: str, value: Any, passed_ms: int) -> None:
    if kind == "hash":
        shifted = {name: str(int(text) + passed_ms) for name, text in value.items() if name in _TIME_FIELDS}
        redis.hset(
            key, mapping={name.encode("latin-1"): text.encode("latin-1") for name, text in (value | shifted).items()}
        )
    elif kind == "zset":
        redis.zadd(key, {member.encode("latin-1"): score + passed_ms for member, score in value})
    elif kind == "list":
        redis.rpush(key, *(member.encode("latin-1") for member in value))
    elif kind == "set":
        redis.sadd(key, *(member.encode("latin-1") for member in value))
    else:
        redis.set(key, str(int(value) + passed_ms) if key == "jobhook:swept" else value.encode("latin-1"))


def unpack(folder: Path, name: str = "code_before_schema") -> Path:
    """The folder in which the code of an earlier version now is."""
    with ZipFile(Path(__file__).with_name(f"{name}.zip")) as archive:
        archive.extractall(folder / name)
    package = folder / name / "hishel"
    package.mkdir(exist_ok=True)
    for file, code in _HISHEL.items():
        (package / file).write_text(code, "utf-8")
    return folder / name
