"""The flaws: what is changed, which promise that breaks, and which test files have to notice."""

from dataclasses import dataclass

ACCEPT, COMMON, SWEEP, WORK = (f"app/inbox/scripts/{name}.lua" for name in ("accept", "common", "sweep", "work"))
STEP = "app/inbox/scripts/step.lua"
GUARDS, INTAKE, ENDPOINT = (f"app/receiver/{name}.py" for name in ("guards", "intake", "endpoint"))
SIGNATURE = "app/delivery/signature.py"
PROGRESS, SIGNATURES = "workers/progress.py", "workers/signature.py"


@dataclass(frozen=True)
class Edit:
    """A text that is in a file exactly once, and what takes its place."""

    file: str
    before: str
    after: str


@dataclass(frozen=True)
class Flaw:
    """One deliberate flaw."""

    name: str
    promise: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    """Names of test files without `test_`."""


def flaw(promise: str, name: str, file: str, before: str, after: str, *tests: str) -> Flaw:
    """A flaw in one place."""
    return Flaw(name, promise, (Edit(file, before, after),), tests)


FLAWS = (
    flaw(
        "P1",
        "answered before it is recorded",
        INTAKE,
        "return await waiting.receipt",
        'return Receipt("accepted", delivery.id)',
        "intake",
    ),
    flaw("P1", "not waited for the disk", INTAKE, "plan(self._settings.durability, ", 'plan("memory", ', "intake"),
    flaw(
        "P1",
        "what WAITAOF replies is ignored",
        INTAKE,
        "if not made.confirmed(waited):",
        "if False:",
        "intake",
    ),
    flaw(
        "P1",
        "a replica that does not have it is good enough",
        "app/store/durability.py",
        "local >= LOCAL and replicas >= self.replicas",
        "local >= LOCAL",
        "durability",
    ),
    flaw(
        "P2",
        "recorded, but not put in line",
        ACCEPT,
        "  redis.call('ZADD', P .. 'open', NOW, id)\n  enqueue(id)",
        "  redis.call('ZADD', P .. 'open', NOW, id)",
        "inbox",
        "model",
    ),
    flaw("P2", "the sweep forgets retries", SWEEP, "local due = until_('retrying', NOW)", "local due = {}", "inbox"),
    flaw(
        "P2", "the sweep forgets lost jobs", SWEEP, "local lost = until_('queued', horizon)", "local lost = {}", "inbox"
    ),
    flaw(
        "P2", "the sweep forgets leases", SWEEP, "local expired = until_('running', NOW)", "local expired = {}", "inbox"
    ),
    flaw(
        "P2",
        "a dead worker's event waits for its lease",
        "workers/supervisor.py",
        "            self._inbox.release(name, reason)\n",
        "",
        "end_to_end",
    ),
    flaw("P2", "a revived event expires at work", COMMON, "  redis.call('PERSIST', key)\n", "", "inbox", "model"),
    flaw(
        "P2",
        "a handler can swallow its time-out",
        "workers/timelimit.py",
        "class HandlerTimeout(BaseException)",
        "class HandlerTimeout(Exception)",
        "processor",
        "end_to_end",
    ),
    flaw(
        "P2",
        "the attempts of one handler are those of all",
        PROGRESS,
        "verdict = judge(failure.error, tries.used, limits.max_attempts)",
        "verdict = judge(failure.error, max(t.used for t in left.values()), limits.max_attempts)",
        "retries",
    ),
    flaw(
        "P2",
        "whoever is due, all handlers run",
        PROGRESS,
        "if handler.name in self._left and self._is_due(handler.name)]",
        "if handler.name in self._left]",
        "retries",
    ),
    flaw(
        "P2",
        "a wait has no end",
        PROGRESS,
        "if delay is not None and now - since >= limits.retry_for:",
        "if False:",
        "retries",
    ),
    flaw("P2", "what is put back to work is as old as before", COMMON, "'since', 'crashes')", "'crashes')", "retries"),
    flaw(
        "P2",
        "an exception group is one error",
        "workers/retry.py",
        "for leaf in leaves(error) if not",
        "for leaf in [error] if not",
        "retry",
    ),
    flaw(
        "P2",
        "an event supersedes what is later than it was received",
        "app/inbox/record.py",
        "min(self.occurred_at, self.received)",
        "self.occurred_at",
        "order",
    ),
    flaw(
        "P2",
        "what another handler has finished supersedes",
        "app/inbox/inbox.py",
        'pipeline.zscore(f"{PREFIX}handled:{resource}", handler)',
        'pipeline.zscore(f"{PREFIX}handled:{resource}", '
        '(self.redis.zrange(f"{PREFIX}handled:{resource}", -1, -1) or [handler])[0])',
        "order",
    ),
    flaw(
        "P2",
        "an event whose handler has vanished is done",
        PROGRESS,
        "names += sorted(begun",
        "sorted(begun",
        "retries",
    ),
    flaw("P5", "steps of one name in a loop", "workers/event.py", "if step in self._names:", "if False:", "steps"),
    flaw(
        "P2",
        "a generator is a handler that has run",
        SIGNATURES,
        "if inspect.isgeneratorfunction(",
        "if False and (",
        "registry",
    ),
    flaw(
        "P2",
        "what a handler returns instead of running it is not looked at",
        "workers/processor.py",
        "if result is not None and (what := not_run(result)):",
        "if (what := '') and result:",
        "processor",
    ),
    flaw(
        "P2",
        "what is left behind by an async handler is cut short",
        "workers/coroutines.py",
        "            in_time = await _wait_for_rest(this, deadline)",
        "            pass",
        "coroutines",
    ),
    Flaw(
        "identified before it is verified",
        "P3",
        (
            Edit(ENDPOINT, "signer = self._verifier.verify(headers.all(signature.HEADER), body)", "signer = 0"),
            Edit(
                ENDPOINT,
                "        return receipt, envelope, client, len(body)",
                "        self._verifier.verify(headers.all(signature.HEADER), body)\n"
                "        return receipt, envelope, client, len(body)",
            ),
        ),
        ("strangers",),
    ),
    flaw(
        "P3",
        "MACs compared with ==",
        SIGNATURE,
        "hmac.compare_digest(hmac.digest(key, body, self.algorithm), mac)",
        "hmac.digest(key, body, self.algorithm) == mac",
        "signature",
    ),
    flaw(
        "P3",
        "one good signature of several will do",
        SIGNATURE,
        "if len(values) != 1:",
        "if not values:",
        "signature",
        "endpoint",
    ),
    flaw(
        "P3",
        "the body's limit is what it says of itself",
        "app/receiver/body.py",
        "if size > self._limit:",
        "if False:",
        "body",
        "endpoint",
    ),
    flaw("P3", "X-Forwarded-For believed of anybody", GUARDS, "if not self._is_proxy(peer):", "if False:", "guards"),
    flaw("P3", "trailers taken for headers", "app/receiver/http.py", "self.headers = []", "pass", "http"),
    flaw(
        "P3",
        "heads without bounds",
        "app/receiver/http.py",
        "if self._unfinished > MAX_HEAD_BYTES and",
        "if False and",
        "http",
    ),
    flaw(
        "P3",
        "no end to the wait for a head",
        "app/receiver/http.py",
        "self._timer = self._timer or self.loop.call_later(HEAD_SECONDS, self._give_up)",
        "pass",
        "http",
    ),
    Flaw(
        "looked up first, marked later",
        "P4",
        (
            Edit(ACCEPT, "local known = mark(id, digest)", "local known = redis.call('GET', P .. 'seen:' .. id)"),
            Edit(ACCEPT, "    if not kept then\n", "    if true then\n"),
            Edit(
                INTAKE,
                "        return [\n            Receipt(",
                "        for made in deliveries:\n"
                "            await self._redis.set(f'jobhook:seen:{made.id}', made.digest, ex=86400, nx=True)\n"
                "        return [\n            Receipt(",
            ),
        ),
        ("intake", "end_to_end"),
    ),
    flaw(
        "P4",
        "a marker that the next one overwrites",
        ACCEPT,
        "'NX', 'GET', 'EX', window",
        "'GET', 'EX', window",
        "model",
    ),
    flaw(
        "P4", "a conflict taken for a duplicate", ACCEPT, "if known == digest then", "if true then", "intake", "inbox"
    ),
    flaw("P4", "a dead event stays dead", ACCEPT, "if state ~= 'dead' then return", "do return", "inbox"),
    flaw(
        "P4",
        "an unsigned header identifies the event",
        ENDPOINT,
        "identify(body, envelope.event_id)",
        'identify(body, headers.joined(b"idempotency-key").decode("latin-1") or envelope.event_id)',
        "endpoint",
    ),
    flaw(
        "P4",
        "a dead event's marker outlives its record",
        COMMON,
        "if state == 'dead' then redis.call('EXPIRE'",
        "if false then redis.call('EXPIRE'",
        "inbox",
    ),
    flaw("P5", "a late end overwrites", WORK, "if record[1] ~= ended.token then return 0 end", "", "inbox", "model"),
    flaw("P5", "a late step is recorded", STEP, "record[1] ~= ARGV[2] or ", "", "inbox", "model"),
    flaw(
        "P5",
        "a dead event forgets its steps",
        COMMON,
        "(state == 'done' and string.sub(field, 1, 5) == 'step:')",
        "string.sub(field, 1, 5) == 'step:'",
        "inbox",
    ),
    flaw(
        "P5",
        "a finished step runs again",
        "workers/event.py",
        "            if step in self._finished:\n"
        "                return self._finished[step]  # type: ignore[no-any-return]\n"
        "            with running(Step(self.id, step)) as current:\n"
        "                result = function(current.key)\n"
        "            if inspect",
        "            with running(Step(self.id, step)) as current:\n"
        "                result = function(current.key)\n"
        "            if inspect",
        "steps",
    ),
    flaw(
        "P6",
        "our own trouble is the sender's fault",
        "app/receiver/refusals.py",
        'status, slug, title = 503, "unavailable"',
        'status, slug, title = 400, "unavailable"',
        "errors",
    ),
    flaw(
        "P6",
        "a flaw of ours ends without an answer of ours",
        ENDPOINT,
        'log.critical("unexpected error", **describe(error))',
        "raise",
        "endpoint",
    ),
    flaw(
        "P6",
        "no deadline for a batch",
        INTAKE,
        "asyncio.timeout_at(batch[0].deadline)",
        "asyncio.timeout(None)",
        "intake",
    ),
    flaw(
        "P7",
        "a payload in the log",
        ENDPOINT,
        "        envelope = read_envelope(body)\n",
        "        envelope = read_envelope(body)\n        log.debug(body.decode('latin-1'))\n",
        "secrets",
    ),
    flaw(
        "P7",
        "what an error says in the log",
        "app/errors.py",
        'described = {"error": f"{type(error).__module__}.{type(error).__qualname__}"}',
        'described = {"error": repr(error)}',
        "errors",
        "secrets",
    ),
    flaw(
        "P8",
        "refused because it is not JSON",
        ENDPOINT,
        "        envelope = read_envelope(body)\n",
        "        envelope = read_envelope(body)\n        orjson.loads(body)\n",
        "endpoint",
    ),
)
