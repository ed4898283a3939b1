"""docker-compose.yml and the Dockerfile, run as they are, where there is a Docker engine."""

import fcntl
import os
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pytest

from app.cli.embedded import free_port
from app.delivery.samples import sample
from app.delivery.signature import sign
from app.receiver.endpoint import PATH
from tests.support import wait_until
from tests.support.processes import clean_environment
from tests.support.senders import Background
from tests.support.stack import KEY, ROOT

DOMAIN = "hooks.localhost"
"""A name for which Caddy is its own authority."""
PATIENCE_SECONDS = 120.0
"""For containers to start, stop and heal."""
BUILD_SECONDS = 600
SOME = 20
"""Deliveries that are sent after each fault."""
PAUSE_SECONDS = 0.05
PARTS = ("app", "workers", "deploy", "Dockerfile", ".dockerignore", "docker-compose.yml", "requirements.txt")
SERVICES = ("redis", "receiver", "workers", "caddy")

pytestmark = pytest.mark.timeout(900)


def _docker(*command: str, seconds: float = PATIENCE_SECONDS) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["docker", *command], capture_output=True, text=True, check=False, timeout=seconds)


def why_not() -> str | None:
    """Why it cannot be run here, if it cannot."""
    if shutil.which("docker") is None or _docker("info").returncode:
        return "no Docker engine runs here"
    if compose_command() is None:
        return "no Docker Compose is installed"
    return None


def compose_command() -> list[str] | None:
    """Compose v2 if it is there, else the older one."""
    if named := os.environ.get("COMPOSE_COMMAND"):
        return named.split()
    if _docker("compose", "version").returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


class Compose:
    """A copy of the project in a folder of its own, with its `.env`, and what runs of it."""

    def __init__(self, folder: Path, profiles: str, **settings: str) -> None:
        self._folder = folder
        self.https_port = free_port()
        self._environment = clean_environment() | {
            "COMPOSE_PROJECT_NAME": f"jobhook-test-{os.getpid()}",
            "COMPOSE_PROFILES": profiles,
            "CADDY_DOMAIN": DOMAIN,
            "CADDY_HTTP_PORT": str(free_port()),
            "CADDY_HTTPS_PORT": str(self.https_port),
            "JOBHOOK_PORT": str(free_port()),
        }
        for name in PARTS:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
        example = (ROOT / ".env.example").read_text("utf-8")
        lines = example.replace("change-me-to-your-jobsiteon-api-key", KEY).splitlines()
        (folder / ".env").write_text("\n".join([*lines, *(f"{name}={text}" for name, text in settings.items()), ""]))

    def build(self) -> None:
        """The image, with the requirements of handlers, on the host's network, since there may be no other."""
        (self._folder / "requirements-handlers.txt").write_text("python-slugify==8.0.4\n", "utf-8")
        command = ["build", "--network", "host", "-t", "jobhook", str(self._folder)]
        built = _docker(*command, seconds=BUILD_SECONDS)
        assert built.returncode == 0, built.stdout + built.stderr

    def run(self, *command: str) -> str:
        """What a command of Compose prints; it has to succeed."""
        compose = compose_command()
        assert compose
        ended = subprocess.run(
            [*compose, *command],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def up(self) -> None:
        """Starts everything and waits until it is healthy."""
        self.run("up", "-d")
        for service in SERVICES:
            self.wait_until_well(service)

    def wait_until_well(self, service: str) -> None:
        """If it does not become so, the error has its log."""
        try:
            wait_until(lambda: self.is_well(service), service, PATIENCE_SECONDS)
        except AssertionError:
            raise AssertionError(self.run("ps") + self.run("logs", "--tail", "30")) from None

    def is_well(self, service: str) -> bool:
        """Whether it runs, and is healthy if it has a check."""
        state = self._inspect(service, "{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}")
        return state in {"running", "running healthy"}

    def restarts(self, service: str) -> int:
        """How often the engine has started its container anew."""
        return int(self._inspect(service, "{{.RestartCount}}"))

    def kill(self, service: str) -> None:
        """`kill -9` of all processes in its container; the engine has to notice by itself."""
        container = self.run("ps", "-q", service).strip()
        _docker("exec", container, "sh", "-c", "kill -9 -1")

    def events(self) -> dict[str, str]:
        """The state of each event, by its id."""
        printed = self.run("exec", "-T", "workers", "jobhook", "events", "--json", "--limit", "10000")
        return {event["id"]: event["state"] for event in map(orjson.loads, printed.splitlines())}

    def client(self) -> httpx.Client:
        """One that believes Caddy's own authority."""
        name = "/data/caddy/pki/authorities/local/root.crt"
        trusts = ssl.create_default_context(cadata=self.run("exec", "-T", "caddy", "cat", name))
        return httpx.Client(verify=trusts, timeout=5, trust_env=False)

    def deliver(self, client: httpx.Client, body: bytes) -> httpx.Response:
        """A signed delivery over HTTPS."""
        return client.post(
            f"https://127.0.0.1:{self.https_port}{PATH}",
            content=body,
            headers={"Host": DOMAIN, "X-Signature": sign(KEY.encode(), body)},
            extensions={"sni_hostname": DOMAIN},
        )

    def _inspect(self, service: str, format: str) -> str:
        container = self.run("ps", "-q", service).strip()
        return _docker("inspect", "-f", format, container).stdout.strip() if container else ""


@pytest.fixture
def compose(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Compose]:
    if reason := why_not():
        pytest.skip(reason)
    profiles, settings = request.param
    compose = Compose(tmp_path, profiles, **settings)
    with (Path(tempfile.gettempdir()) / "jobhook-test-compose.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the network's addresses are fixed
        compose.build()
        try:
            compose.up()
            yield compose
        finally:
            compose.run("down", "-v", "--remove-orphans")


class Sender(Background):
    """Delivers whatever the answers are."""

    some = SOME
    patience = PATIENCE_SECONDS

    def __init__(self, compose: Compose) -> None:
        super().__init__()
        self._compose = compose

    def _run(self) -> None:
        with self._compose.client() as client:
            while not self._stop.wait(PAUSE_SECONDS):
                try:
                    answer = self._compose.deliver(client, sample("test.ok"))
                except httpx.HTTPError:
                    continue
                if answer.status_code == 200:
                    self.ids.add(answer.json()["id"])


def wait_until_done(compose: Compose, ids: set[str]) -> None:
    def open_() -> set[str]:
        states = compose.events()
        return {id for id in ids if states.get(id) != "done"}

    wait_until(lambda: not open_(), "all to be done", PATIENCE_SECONDS)


@pytest.mark.parametrize("compose", [("https", {})], ids=["https"], indirect=True)
def test_all_of_it(compose: Compose) -> None:
    """P1, P2: a delivery over HTTPS is done; each container heals; nothing is lost when all of them go and come."""
    with Sender(compose) as sender:
        for service in SERVICES:
            before = compose.restarts(service)
            compose.kill(service)
            wait_until(lambda: compose.restarts(service) > before, "a restart", PATIENCE_SECONDS)  # noqa: B023
            compose.wait_until_well(service)
            sender.wait_for_some()
    wait_until_done(compose, sender.ids)

    compose.run("stop", "workers")
    with compose.client() as client:
        waiting = {compose.deliver(client, sample("test.ok")).json()["id"] for _ in range(SOME)}
    compose.run("down")
    compose.up()
    wait_until_done(compose, sender.ids | waiting)
    # There may be more: a receiver that was killed may have recorded what it could not answer any more.
    assert set(compose.events()) >= sender.ids | waiting

    installed = compose.run("exec", "-T", "workers", "python", "-c", "import slugify; print(slugify.slugify('A b'))")
    assert installed.strip() == "a-b"
    said = orjson.loads(compose.run("exec", "-T", "workers", "jobhook", "doctor", "--json"))
    assert not [finding for finding in said if finding["level"] == "fail"]


@pytest.mark.parametrize("compose", [("https,ha", {"JOBHOOK_DURABILITY": "replica"})], ids=["ha"], indirect=True)
def test_another_redis_takes_over(compose: Compose) -> None:
    """P1, P2: with the profile `ha`, what was acknowledged is on the new primary; also after all have gone and come."""
    with Sender(compose) as sender:
        compose.run("stop", "redis")
        sender.wait_for_some()
    wait_until_done(compose, sender.ids)
    compose.run("down")  # the former primary, whose data are old, is started together with the others
    compose.up()
    with Sender(compose) as again:
        pass
    wait_until_done(compose, sender.ids | again.ids)
