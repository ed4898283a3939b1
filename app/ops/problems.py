"""Everything that `/readyz` and `jobhook doctor` can find, and the remedy for each.

deploy/TROUBLESHOOTING.md is made of the tables here; a test holds one against the other.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

from app.store.durability import IS_CLUSTER, NO_CLUSTER

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    level: Level
    finding: str
    remedy: str | None = None
    problem: "Problem | None" = field(default=None, compare=False, repr=False)
    """What it is a case of; None if all is well."""
    subject: str = field(default="", compare=False, repr=False)
    """Which case, where there may be several at a time."""

    def as_dict(self) -> dict[str, str | None]:
        """For JSON."""
        return {"check": self.name, "level": self.level, "finding": self.finding, "remedy": self.remedy}


@dataclass(frozen=True, slots=True)
class Problem:
    """A state in which something is not well. Texts may have {places} for what is only known when it is found."""

    check: str
    level: Level
    finding: str
    remedy: str
    patience: float | None = None
    """An alert is told of it if it lasts so many seconds; of what is a `fail`, after a minute unless this says another
    time; of other problems none is told."""
    subject: str = ""
    """The place that tells several cases of it apart."""

    def found(self, **values: object) -> Check:
        """The finding, with what is known now."""
        finding, remedy = self.finding.format(**values), self.remedy.format(**values)
        return Check(self.check, self.level, finding, remedy, self, str(values.get(self.subject, "")))


@dataclass(frozen=True, slots=True)
class Cause:
    """What Redis means by an error."""

    finding: str
    remedy: str


NO_ANSWER = Problem("redis", "fail", "does not answer ({error})", "start Redis, or set REDIS_URL")
TOO_SLOW = Problem(
    "redis",
    "fail",
    "has not answered within {seconds:g} s",
    "see that Redis is neither stopped nor overloaded, and that nothing between here and there swallows what is sent",
)
NO_PRIMARY = Problem(
    "redis",
    "fail",
    "has no primary that a sentinel names ({error})",
    "see that the sentinels in REDIS_URL are up, let us in, and know a primary of the service it names",
)
REFUSED = Problem("redis", "fail", "{finding} ({code}{command})", "{remedy}")
OLD_SERVER = Problem("version", "fail", "{server} is too old", "use Redis 7.0 or later, or Valkey")
OTHER_SCHEMA = Problem("schema", "fail", "{finding}", "{remedy}")

WRITE_REFUSED = Problem("writes", "fail", "{finding} ({code}{command})", "{remedy}")
NO_WRITE = Problem(
    "writes",
    "fail",
    "no write has been taken within {seconds:g} s{why}",
    "wait for the end of a failover or a pause (`CLIENT UNPAUSE` ends it), and see that the disk of Redis keeps up",
)
CLUSTER = Problem("cluster", "fail", IS_CLUSTER, NO_CLUSTER)
NOT_DURABLE = Problem("durability", "fail", "{wanted} is not possible", "{remedy}")
NO_REPLICA_CONFIRMS = Problem(
    "durability",
    "fail",
    "no replica has confirmed a write within {seconds:g} s",
    "see that a replica is up and follows closely, with `appendonly yes` and `appendfsync always`",
)
IN_MEMORY_ONLY = Problem(
    "durability",
    "warn",
    "memory: a crash of Redis may lose acknowledged events",
    "set JOBHOOK_DURABILITY=fsync to survive a crash of Redis",
)
BY_SERVICE = Problem(
    "durability",
    "warn",
    "service: each 200 relies on whoever runs {server}, because Jobhook cannot see whether a write is durable",
    "see in the service's documentation that it answers only when a write is durable; if it does not, or you run the "
    "server yourself, set JOBHOOK_DURABILITY=fsync",
)
REPLICA_IN_MEMORY = Problem(
    "durability",
    "warn",
    "on the disk of the primary, but only in a replica's memory: {server} has no WAITAOF",
    "use Redis 7.2 or Valkey: as it is, primary and replica crashing at once may lose acknowledged events",
)
SLOW_FSYNC = Problem(
    "durability",
    "warn",
    "{wanted}, waiting for `appendfsync {appendfsync}`",
    "set `appendfsync always`: acknowledgements then wait milliseconds, not up to a second",
)
FAILOVER_LOSES = Problem(
    "durability",
    "warn",
    "fsync: a failover may lose acknowledged events",
    "set JOBHOOK_DURABILITY=replica, and `min-replicas-to-write 1` on the servers",
)
EVICTS = Problem(
    "eviction", "fail", "`maxmemory-policy {policy}` may throw events away", "set `maxmemory-policy noeviction`"
)
POLICY_HIDDEN = Problem(
    "eviction", "warn", "the server does not tell its maxmemory-policy", "make sure it is noeviction"
)
NEARLY_FULL = Problem("memory", "warn", "{used}", "raise maxmemory, or shorten JOBHOOK_RETENTION", patience=60)
CLOCKS_DIFFER = Problem("clock", "warn", "Redis is {ahead:+.0f} s against this machine", "run NTP on both")
NO_WORKERS = Problem(
    "workers", "warn", "last seen {seen}: events are recorded but not processed", "run `jobhook work`", 60
)
UNSEEN = Problem("workers", "warn", "cannot be seen: Redis {finding} ({code}{command})", "{remedy}")
GONE_HANDLERS = Problem(
    "handlers",
    "warn",
    "open events have been begun by handlers that are not there any more: {names}",
    'bring them back, or keep the old name: @on(…, name="…"); under a new one, what they have finished runs again, '
    "and what they have not ends as dead",
)
NO_HANDLERS = Problem(
    "handlers",
    "warn",
    "there are none: events are recorded, and count as done",
    "put a module into workers/handlers/, or name yours in JOBHOOK_HANDLERS",
)
BROKEN_RECORDS = Problem(
    "records",
    "warn",
    "{number} set aside, because they are gone or cannot be read: {ids}",
    "look at `HGETALL jobhook:event:ID` in redis-cli; have the events delivered again to record them anew",
    patience=0,
)
SILENT = Problem(
    "supervisors",
    "warn",
    "{name} was last heard of {seconds:.0f} s ago",
    "see what became of that process (it is named by host and pid), and restart it if it hangs; "
    "one that is gone for good is forgotten after an hour",
    patience=60,
    subject="name",
)
SUSPENDED = Problem(
    "suspended", "warn", "`rq suspend` is on: events are recorded but not processed", "run `rq resume` when they may be"
)
PAUSED = Problem(
    "paused",
    "warn",
    "{what} since {since} by {by}, {until}: received and recorded, but not worked on",
    "run `jobhook resume {name}` when it may go on",
)
UNWRITTEN_LOGS = Problem(
    "logs",
    "warn",
    "{lines} lines could not be written",
    "see that what reads this process's output (journald, the container's log driver, a pipe) runs and has disk space",
)
WRONG_SETTING = Problem("settings", "fail", "{finding}", "set it in the environment or in .env")
IGNORED_SETTING = Problem(
    "settings", "warn", "{note}", "rename it or take it out; in Kubernetes, set `enableServiceLinks: false`"
)
WRONG_HANDLERS = Problem("handlers", "fail", "{finding}", "put it right: with it, `jobhook work` does not start")
PLAIN_HTTP = Problem(
    "https",
    "warn",
    "plain HTTP is accepted",
    "unset JOBHOOK_REQUIRE_HTTPS: payloads are to be encrypted in transit",
)
OLD_KEYS = Problem(
    "keys",
    "warn",
    "the key `{key}` is still accepted: {says}",
    "when it is safe, revoke it in JobsiteOn and take it out of JOBSITEON_PREVIOUS_API_KEYS",
)
UNUSED_KEY = Problem(
    "keys",
    "warn",
    "the key `{key}` is still accepted, and not used any more: {says}",
    "revoke it in JobsiteOn, and take it out of JOBSITEON_PREVIOUS_API_KEYS",
    patience=0,
    subject="key",
)
DUE_KEY = Problem(
    "keys",
    "warn",
    "the current key is {days} days old, and is to be replaced within {limit}",
    "make a new key in JobsiteOn, set it as JOBSITEON_API_KEY, and the old one as JOBSITEON_PREVIOUS_API_KEYS",
    patience=0,
)
OVERDUE_KEY = Problem(
    "keys",
    "warn",
    "OVERDUE: the current key is {days} days old, and JobsiteOn wants it replaced every {limit}",
    "rotate it now: make a new key in JobsiteOn, set it as JOBSITEON_API_KEY, and the old one as "
    "JOBSITEON_PREVIOUS_API_KEYS",
    patience=0,
)
KEYS_NOT_RELOADED = Problem(
    "keys",
    "warn",
    "what is configured by now cannot be used, and the keys from before stay in force: {problem}",
    "put it right: it is tried again by itself; a process that starts meanwhile fails",
)
OUTDATED_SETTINGS = Problem(
    "settings",
    "warn",
    "{names} changed since this process began, and only keys are taken over while it runs",
    "restart the receiver and the workers",
)
UNSENT_ALERTS = Problem(
    "alerts",
    "warn",
    "{destination} has taken none since {since}: {why}",
    "try it with `jobhook alerts --test`, and put JOBHOOK_ALERT_URLS right; what waits is sent for a day",
)
REJECTED = Problem(
    "rejected",
    "warn",
    "deliveries refused for their signature: {number}, the last one at {when}",
    "see which ones they were with `jobhook rejected`, and why with `jobhook diagnose`; if they were JobsiteOn's, "
    "`jobhook rejected --admit` records them once the settings are right",
)

PROBLEMS = tuple(value for value in tuple(globals().values()) if isinstance(value, Problem))

_OTHER_PASSWORD = Cause("does not let us in", "check the user and the password in REDIS_URL")
_OTHER_DATABASE = Cause("has no such database", "put a number into REDIS_URL that the server has, such as /0")
_ACL = "give the user in REDIS_URL the permissions that deploy/TROUBLESHOOTING.md lists"
_NAME_THE_PRIMARY = "name the primary in REDIS_URL, or the sentinels"
_NO_CLUSTER = f"{NO_CLUSTER}: a cluster is not supported yet"

CAUSES = {
    "OOM": Cause(
        "its memory is full", "raise maxmemory, shorten JOBHOOK_RETENTION, or remove what else is stored there"
    ),
    "NOPERM": Cause("does not permit what is needed", _ACL),
    "ERR ACL failure": Cause("does not permit what is needed", _ACL),
    "ERR The user executing the script": Cause("does not permit what is needed", _ACL),
    "ERR unknown command": Cause(
        "does not know a command that is needed", "see that none is renamed or switched off, scripting included"
    ),
    "NOAUTH": Cause("does not let us in", "put user and password into REDIS_URL"),
    "WRONGPASS": _OTHER_PASSWORD,
    "ERR invalid password": _OTHER_PASSWORD,
    "ERR AUTH": Cause("does not let us in", "it has no password: take it out of REDIS_URL"),
    "DENIED": Cause(
        "lets nobody in from here", "give it a password, or set `protected-mode no` where the network is safe"
    ),
    "MISCONF": Cause(
        "takes no writes, because it could not save",
        'see its log and its disk; after a failed snapshot, `BGSAVE` once there is space, or `save ""`',
    ),
    "READONLY": Cause("is a replica, and takes no writes", _NAME_THE_PRIMARY),
    "MASTERDOWN": Cause("is a replica that has lost its primary", _NAME_THE_PRIMARY),
    "UNBLOCKED": Cause("became a replica in the middle of a write", _NAME_THE_PRIMARY),
    "NOREPLICAS": Cause(
        "has fewer replicas than it wants for a write",
        "start them, or lower `min-replicas-to-write` (`min-replicas-max-lag` says how far one may be behind)",
    ),
    "LOADING": Cause("is loading its data", "wait; its log tells how far it is"),
    "BUSY": Cause("is busy with somebody's script", "`SCRIPT KILL` or `FUNCTION KILL` ends it; see who runs it"),
    "CLUSTERDOWN": Cause("is a cluster that is down", "see `CLUSTER INFO`: a node or a range of slots is missing"),
    "MOVED": Cause("is one node of a cluster", _NO_CLUSTER),
    "ASK": Cause("is one node of a cluster", _NO_CLUSTER),
    "TRYAGAIN": Cause("is a cluster that moves slots", "wait until it is done"),
    "CROSSSLOT": Cause("is one node of a cluster", _NO_CLUSTER),
    "EXECABORT": Cause("has refused a command of a transaction", "see its log"),
    "WRONGTYPE": Cause(
        "has something else under a key of ours", "let Jobhook have a database of its own, and delete that key"
    ),
    "ERR SELECT is not allowed in cluster mode": Cause("is a cluster", _NO_CLUSTER),
    "ERR max number of clients": Cause("has too many clients", "raise `maxclients`, and see who holds the connections"),
    "ERR DB index": _OTHER_DATABASE,
    "ERR invalid DB index": Cause(
        "has no such database", "put a number into REDIS_URL that the server has, such as /0"
    ),
}
"""By the word that the error begins with, or by so much of it as tells."""
UNKNOWN_CAUSE = Cause("refuses it", "see the log of Redis, and what it says of this error")
OUR_KEYS = "jobhook:* and rq:*"

_CODE = re.compile(r"[A-Z]{2,}(?= |$)")
_SPOILED = re.compile(r"WRONGTYPE (\S+ is a \w+, not a \w+)")
"""As our own scripts say it."""
_COMMAND = re.compile(r"'([\w|-]+)' command|unknown command '?([\w|-]+)")


def explain(problem: Problem, error: Exception, command: str = "") -> Check:
    """A finding about an error of Redis: its code word, what that means, and the command that was refused.

    `command` is the one that was sent; the error may name another, as when a script has called it.
    """
    said = _said(error)
    known = [words for words in CAUSES if said.startswith(words)]
    cause = CAUSES[max(known, key=len)] if known else UNKNOWN_CAUSE
    code = said.partition(" ")[0] if _CODE.match(said) else type(error).__name__
    if said.startswith(("ERR ACL failure", "ERR The user executing")):
        code = "NOPERM"
    named = _COMMAND.search(said)
    command = (named[1] or named[2] if named else command).replace("|", " ").upper()
    where = f" at {command}" if command else ""
    if code == "NOPERM" and " key" in said:
        where += f": it needs the keys {OUR_KEYS}"
    if spoiled := _SPOILED.match(said):
        where = f": {spoiled[1]}"
    return problem.found(finding=cause.finding, code=code, command=where, remedy=cause.remedy)


def _said(error: Exception) -> str:
    """The error as Redis sent it: redis-py takes the code words that it knows off."""
    code = getattr(error, "status_code", None)
    text = str(error)
    return f"{code} {text}" if code and not text.startswith(code) else text


def as_markdown() -> str:
    """The tables of deploy/TROUBLESHOOTING.md."""
    problems = [
        f"| {p.check} | {p.level} | {_shown(p.finding)} | {_shown(p.remedy)} |"
        for p in PROBLEMS
        if p not in {REFUSED, WRITE_REFUSED, UNSEEN}
    ]
    causes = [f"| `{words}` | {_shown(c.finding)} | {_shown(c.remedy)} |" for words, c in CAUSES.items()]
    return "\n".join(
        [
            "| check | level | finding | remedy |",
            "|---|---|---|---|",
            *problems,
            "",
            "| Redis says | it means | remedy |",
            "|---|---|---|",
            *causes,
        ]
    )


def _shown(text: str) -> str:
    return re.sub(r"\{(\w+)[^}]*\}", r"*\1*", text)
