"""The flaws: what is changed, which promise that breaks, and which test files have to notice."""

from dataclasses import dataclass

ACCEPT, COMMON, SWEEP, WORK = (f"app/inbox/scripts/{name}.lua" for name in ("accept", "common", "sweep", "work"))
STEP = "app/inbox/scripts/step.lua"
GUARDS, INTAKE, ENDPOINT = (f"app/receiver/{name}.py" for name in ("guards", "intake", "endpoint"))
SIGNATURE, CANONICAL, IDENTITY, SAID = (
    f"app/delivery/{name}.py" for name in ("signature", "canonical", "identity", "said")
)
REJECT = "app/inbox/scripts/reject.lua"
DIAGNOSE = "app/delivery/diagnosis/diagnose.py"
LINES = "app/store/lines.py"
FORMS, HTTP = "app/receiver/forms.py", "app/receiver/http.py"


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
    flaw("P1", "not waited for the disk", LINES, "plan(self._durability, ", 'plan("memory", ', "intake"),
    flaw(
        "P1",
        "what WAITAOF replies is ignored",
        INTAKE,
        "if not line.plan.confirmed(waited):",
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
            Edit(ENDPOINT, "signer = self._verifier.verify(", "signer = 0\n            _ = (lambda *_: None)("),
            Edit(
                ENDPOINT,
                "        return receipt, envelope, client, len(body)",
                "        self._verifier.verify(headers.all, body)\n        return receipt, envelope, client, len(body)",
            ),
        ),
        ("strangers",),
    ),
    flaw(
        "P3",
        "MACs compared with ==",
        SIGNATURE,
        "hmac.compare_digest(expected, mac) and",
        "expected == mac and",
        "signature",
    ),
    flaw(
        "P3",
        "one good signature of several will do",
        SIGNATURE,
        "        if len(values) != 1:\n            raise BadSignature(",
        "        if not values:\n            raise BadSignature(",
        "signature",
        "endpoint",
    ),
    flaw(
        "P3",
        "the current key only",
        SIGNATURE,
        "enumerate(self._keys)",
        "enumerate(self._keys[:1])",
        "signature",
        "scheme",
    ),
    flaw(
        "P3",
        "a signed timestamp of any age",
        SIGNATURE,
        "if self._signs_time and timestamp is not None:",
        "if False:",
        "scheme",
        "providers",
    ),
    flaw(
        "P3",
        "the clock told to strangers",
        SIGNATURE,
        "        signer = -1\n",
        "        if timestamp is not None:\n            self._check_time(timestamp, now)\n        signer = -1\n",
        "scheme",
    ),
    flaw(
        "P3",
        "a missing timestamp taken for an empty one",
        SIGNATURE,
        'raise BadSignature("no timestamp")',
        'timestamp = b""',
        "scheme",
        "providers",
    ),
    flaw(
        "P3",
        "an id that takes in what follows it",
        SIGNATURE,
        "if not _ID.fullmatch(id) or (self._after_id and self._after_id in id):",
        "if False:",
        "scheme",
    ),
    flaw(
        "P3",
        "a timestamp's digits moved into the body",
        SIGNATURE,
        "if self._unparted and _MORE_OF_A_VALUE.match(body):",
        "if False:",
        "scheme",
    ),
    flaw(
        "P3",
        "of two timestamps the last",
        "app/delivery/form.py",
        "elif named.keys() & beside.keys():",
        "elif False:",
        "scheme",
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
            Edit(
                ACCEPT,
                "redis.call('SET', P .. 'said:' .. id, digest, 'NX', 'GET', 'EX', window)",
                "redis.call('GET', P .. 'said:' .. id)",
            ),
            Edit(ACCEPT, "if not seen and not record[2] then", "if true then"),
            Edit(
                INTAKE,
                "        return [\n            Receipt(",
                "        for id, digest, *_ in (made.identity for made in deliveries):\n"
                "            await self._redis.set(f'jobhook:said:{id}', digest, ex=86400, nx=True)\n"
                "        for made in deliveries:\n"
                "            await line.pipe.send(('SET', f'jobhook:seen:{made.id}', made.digest, 'EX', 86400, 'NX'))\n"
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
        "P4",
        "a conflict taken for a duplicate",
        ACCEPT,
        "if known then return known == digest and 'same' or 'other' end",
        "if known then return 'same' end",
        "intake",
        "same",
    ),
    flaw("P4", "a dead event stays dead", ACCEPT, "if record[1] ~= 'dead' then return", "do return", "inbox"),
    flaw(
        "P4",
        "an unsigned header identifies the event",
        ENDPOINT,
        "envelope = self._reader.read(payload.value)",
        "envelope = self._reader.read(payload.value)\n"
        '        if name := headers.joined(b"idempotency-key").decode("latin-1"):\n'
        "            envelope = envelope._replace(event_id=name)",
        "endpoint",
    ),
    flaw(
        "P4",
        "a dead event's marker outlives its record",
        COMMON,
        "if state == 'dead' then expire_markers",
        "if false then expire_markers",
        "inbox",
    ),
    flaw("P4", "a retry written anew is a conflict", IDENTITY, "whole if canonical is None", "whole if True", "same"),
    flaw("P4", "the number of the attempt counts", SAID, "if _names_the_delivery(name):", "if False:", "identity"),
    flaw(
        "P4",
        "the number of the attempt counts where there is no event id",
        SAID,
        "if not counters or",
        "if True or",
        "identity",
        "same",
    ),
    flaw(
        "P4",
        "an update that has no event id taken for a retry",
        SAID,
        "if _names_a_counter(name) and _is_count(payload[name])",
        "if _names_the_delivery(name)",
        "identity",
    ),
    flaw("P4", "values that differ get one digest: numbers", CANONICAL, 'b"0" * 16', 'b"0" * 18', "canonical"),
    flaw(
        "P4",
        "values that differ get one digest: a key that comes twice",
        CANONICAL,
        "if len({name for name, _ in pairs}) < len(pairs):",
        "if False:",
        "canonical",
    ),
    flaw(
        "P4",
        "values that differ get one digest: what a parser loses",
        CANONICAL,
        "return written == body or _lost_nothing(body, written) or _is_exact(body)",
        "return True",
        "canonical",
        "identity",
    ),
    flaw("P4", "an id is trusted unasked", ACCEPT, "ARGV[4] == 'duplicate'", "true", "same", "intake"),
    flaw(
        "P4",
        "an event of a release before is forgotten",
        ACCEPT,
        "if seen == bytes or seen == digest or",
        "if",
        "same",
    ),
    flaw(
        "P4",
        "an event without an id of a release before is forgotten",
        ACCEPT,
        "  return seen == bytes or redis.call('HGET', event_key(id), 'body') == body\n",
        "  return false\n",
        "same",
    ),
    flaw(
        "P4",
        "a receiver of a release before makes a second event",
        ACCEPT,
        "redis.call('SET', P .. 'seen:' .. id, bytes, 'NX', 'GET', 'EX', retention)",
        "redis.call('GET', P .. 'seen:' .. id)",
        "same",
        "upgrade",
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
        "asyncio.timeout(self._settings.ack_budget)",
        "asyncio.timeout(None)",
        "lines",
    ),
    flaw(
        "P6",
        "a batch inherits the deadline of its oldest",
        INTAKE,
        "asyncio.timeout(self._settings.ack_budget)",
        "asyncio.timeout_at(batch[0].deadline)",
        "lines",
    ),
    flaw(
        "P6",
        "the oldest first, also when they have no time left",
        INTAKE,
        "self._waiting.pop if overloaded",
        "self._waiting.popleft if overloaded",
        "lines",
    ),
    Flaw(
        "what is too late is sent all the same",
        "P6",
        (
            Edit(INTAKE, "if waiting.deadline <= now:", "if False:"),
            Edit(INTAKE, "elif not waiting.receipt.done():", "else:"),
            Edit(INTAKE, "while self._waiting and self._waiting[0].receipt.done():", "while False:"),
        ),
        ("lines",),
    ),
    flaw(
        "P6",
        "connecting has to fit into a delivery's budget",
        LINES,
        "self._examine(line, OPENING_SECONDS)",
        "self._examine(line, self._budget / 2)",
        "lines",
    ),
    flaw(
        "P6",
        "an idle connection is trusted for ever",
        LINES,
        "if line.heard <= horizon]",
        "if False]",
        "lines",
    ),
    flaw(
        "P6",
        "a lost connection takes no other with it",
        LINES,
        "self._close(line, *(() if alone else self._idle))",
        "self._close(line)",
        "lines",
    ),
    flaw(
        "P2",
        "a server that evicts is good enough",
        "app/store/durability.py",
        "    if server.may_evict:\n",
        "    if False:\n",
        "durability",
        "lines",
    ),
    flaw(
        "P7",
        "a payload in the log",
        ENDPOINT,
        "    payload = read_payload(body)\n",
        "    payload = read_payload(body)\n    log.debug(body.decode('latin-1'))\n",
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
        "P7",
        "a key in the diagnosis",
        DIAGNOSE,
        "with the {key.name} key{', ' + key.twist if key.twist else ''}.",
        "with the key {key.value.decode()}.",
        "diagnosis",
    ),
    flaw(
        "P8",
        "refused because it is not JSON",
        ENDPOINT,
        "    payload = read_payload(body)\n",
        "    payload = read_payload(body)\n    orjson.loads(body)\n",
        "endpoint",
    ),
    flaw(
        "P10",
        "settings named that were not tried",
        DIAGNOSE,
        "if _fault(request, found.material.key, scheme, now) is None:",
        "if True:",
        "diagnosis",
    ),
    flaw(
        "P10",
        "a setting that is ignored",
        "app/config/settings.py",
        'if "signature_tolerance" in self.model_fields_set and not scheme.signs_time:',
        "if False:",
        "config",
    ),
    flaw(
        "P10",
        "a line that cannot be read is left out",
        "app/config/files.py",
        'problems.append(f"{place}: {problem}")',
        "pass",
        "config_files",
    ),
    flaw(
        "P10",
        "a named file that is missing is none",
        "app/config/sources.py",
        "return _named(ENV_FILE, lambda: read_env_file(Path(named), os.environ))",
        "return read_env_file(Path(named), os.environ) if Path(named).is_file() else []",
        "config_files",
    ),
    flaw(
        "P10",
        "a key is taken as it was pasted",
        "app/config/pasted.py",
        "if how := wrongly_pasted(key):",
        "if how := None:",
        "config",
    ),
    flaw(
        "P10",
        "a database that is no number is 0",
        "app/store/connections.py",
        "if db and not _DB.fullmatch(db):",
        "if False:",
        "redis_urls",
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
    flaw(
        "P9",
        "ready although a delivery on trial was refused",
        "app/ops/trial.py",
        "if isinstance(recorded, Exception):",
        "if False:",
        "readiness",
    ),
    flaw(
        "P9",
        "ready without having tried",
        "app/ops/health.py",
        "    if problem := try_one(settings, redis, plan(wanted, server, seconds), seconds, seen.slow_because):\n"
        "        return problem\n",
        "",
        "readiness",
    ),
    flaw(
        "P9",
        "whoever reads the logs can stop the process",
        "app/ops/streams.py",
        "                self._queue.put(taken)\n",
        "                os.write(self._target, taken)\n",
        "streams",
    ),
    flaw(
        "P9",
        "a receiver process outlives its parent",
        "app/ops/parent.py",
        "    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(LONGEST_STOP_SECONDS)\n    os._exit(1)\n",
        "",
        "processes",
    ),
    flaw(
        "P10",
        "a rejected delivery that does not verify is admitted",
        "app/receiver/admission.py",
        "            return Admitted(rejected, fault=bad.fault)\n",
        "            signer = 0\n",
        "rejected",
    ),
    flaw(
        "P10",
        "a signed time is compared with now, when it is admitted",
        "app/receiver/admission.py",
        ", now=rejected.received",
        "",
        "rejected",
    ),
    flaw("P3", "rejected deliveries exceed their budget", REJECT, "+ first[2][4] > budget do", "< 0 do", "rejected"),
    flaw(
        "P3", "kept although Redis is nearly full", REJECT, "if limit > 0 and", "if false and limit > 0 and", "rejected"
    ),
    flaw(
        "P3",
        "one peer takes all the room for rejected deliveries",
        "app/receiver/rejections.py",
        "return bucket.take(now) and self._all.take(now)",
        "return self._all.take(now)",
        "rejected",
    ),
)
