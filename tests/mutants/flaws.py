"""The flaws: what is changed, which promise that breaks, and which test files have to notice."""

from dataclasses import dataclass

ACCEPT, COMMON, SWEEP, WORK = (f"app/inbox/scripts/{name}.lua" for name in ("accept", "common", "sweep", "work"))
STEP = "app/inbox/scripts/step.lua"
GUARDS, INTAKE, ENDPOINT = (f"app/receiver/{name}.py" for name in ("guards", "intake", "endpoint"))
FORMS, HTTP = "app/receiver/forms.py", "app/receiver/http.py"
SIGNATURE = "app/delivery/signature.py"


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
    flaw("P3", "X-Forwarded-For believed of anybody", GUARDS, "if not trusted:", "if False:", "guards"),
    flaw(
        "P3",
        "a peer without an address taken for the proxy",
        GUARDS,
        "return server is not None and server[1] is None",
        "return True",
        "peers",
    ),
    flaw(
        "P3",
        "the protocol that the sender claims",
        GUARDS,
        "protocols[-hops:][:1] if len(protocols) >= hops else protocols",
        "protocols[:1]",
        "guards",
    ),
    flaw(
        "P3",
        "the protocol of the last hop, not the sender's",
        GUARDS,
        "max(hops, 1)",
        "1",
        "guards",
    ),
    flaw(
        "P3",
        "what is nowhere is said to everybody",
        ENDPOINT,
        "            self._admit(scope, RequestHeaders(scope))\n        except Refusal as earlier:",
        "            pass\n        except Refusal as earlier:",
        "paths",
    ),
    flaw("P3", "who sends on after its answer is listened to", HTTP, "> MAX_DROPPED_BYTES", "> 10**12", "protocol"),
    flaw("P3", "trailers taken for headers", HTTP, "self.headers = []", "pass", "http"),
    flaw(
        "P3",
        "heads without bounds",
        HTTP,
        "if self._unfinished > MAX_HEAD_BYTES and",
        "if False and",
        "http",
    ),
    flaw(
        "P3",
        "no end to the wait for a head",
        HTTP,
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
    flaw("P5", "a late end overwrites", WORK, "if record[1] ~= token then return 0 end", "", "inbox", "model"),
    flaw("P5", "a late step is recorded", STEP, "record[1] ~= ARGV[2] or ", "", "inbox", "model"),
    flaw(
        "P5",
        "a dead event forgets its steps",
        COMMON,
        "if state == 'done' then\n    for",
        "if true then\n    for",
        "inbox",
    ),
    flaw(
        "P5",
        "a finished step runs again",
        "workers/event.py",
        "        if (step := self._step(name)) in self._finished:\n"
        "            return self._finished[step]  # type: ignore[no-any-return]\n"
        "        with running(Step(self.id, step)) as current:\n"
        "            return self._finish(step, function(current.key))",
        "        step = self._step(name)\n"
        "        with running(Step(self.id, step)) as current:\n"
        "            return self._finish(step, function(current.key))",
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
    flaw(
        "P8",
        "an Upgrade swallows the body",
        FORMS,
        'return self.parser.get_method() != b"CONNECT"',
        "return False",
        "forms",
    ),
    flaw("P8", "a request behind an Upgrade is lost", FORMS, '[*head, b"", rest]', '[*head, b"", b""]', "forms"),
    flaw("P8", "tabs around a value belong to it", FORMS, "(name, value.strip())", "(name, value)", "forms"),
    flaw("P8", "HTTP/1.0 is told to go on", FORMS, 'if version == "1.0":', "if False:", "forms"),
    flaw("P8", "a trailing slash leads nowhere", ENDPOINT, '{PATH, PATH + "/"}', "{PATH}", "paths"),
    flaw("P8", "the client is cut off behind its answer", HTTP, "if not answered or", "if True or", "protocol"),
)
