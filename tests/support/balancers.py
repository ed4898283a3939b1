"""The load balancers whose configurations are in deploy/, as they are there, on ports of the loopback interface."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import trustme

from app.cli.embedded import free_port
from app.delivery.signature import sign
from app.receiver.endpoint import PATH
from tests.support import wait_until
from tests.support.processes import clean_environment
from tests.support.stack import KEY, ROOT

NAME = "hooks.example.com"
"""As the configurations call it."""
PATIENCE_SECONDS = 5.0
"""How long JobsiteOn waits for an answer."""
STOP_SECONDS = 10.0
OLDEST_CADDY = (2, 8)
_PLACES = (str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")

_NGINX = """daemon off;
user root;
pid {folder}/nginx.pid;
error_log {folder}/nginx.error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    include {folder}/jobhook.conf;
}}
"""


@dataclass(frozen=True)
class Balancer:
    """A load balancer that runs."""

    port: int
    plain_port: int
    trusts: ssl.SSLContext

    def client(self) -> httpx.Client:
        """A sender that believes its certificate."""
        return httpx.Client(verify=self.trusts, timeout=PATIENCE_SECONDS, trust_env=False)

    def deliver(self, client: httpx.Client, body: bytes, **headers: str) -> httpx.Response:
        """A signed delivery to its name."""
        return self.post(client, PATH, body, **{"X-Signature": sign(KEY.encode(), body)}, **headers)

    def post(self, client: httpx.Client, path: str, body: bytes, **headers: str) -> httpx.Response:
        """A request to its name."""
        return client.post(
            f"https://127.0.0.1:{self.port}{path}",
            content=body,
            headers={"Host": NAME, **headers},
            extensions={"sni_hostname": NAME},
        )


@contextmanager
def balancing(kind: str, folder: Path, receivers: Sequence[int]) -> Iterator[Balancer]:
    """Runs nginx, haproxy or caddy before receivers on these ports."""
    authority = trustme.CA()
    issued = authority.issue_cert(NAME)
    pem = folder / "certificate.pem"
    pem.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
    trusts = ssl.create_default_context()
    authority.configure_trust(trusts)
    balancer = Balancer(free_port(), free_port(), trusts)
    command = _PREPARE[kind](folder, balancer, pem, receivers)
    environment = clean_environment() | {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / f"{kind}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        wait_until(lambda: _listens(process, balancer, folder / f"{kind}.log"), kind)
        yield balancer
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def _listens(process: "subprocess.Popen[bytes]", balancer: Balancer, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    for port in (balancer.port, balancer.plain_port):
        with socket.socket() as peer:
            if peer.connect_ex(("127.0.0.1", port)):
                return False
    return True


def _nginx(folder: Path, balancer: Balancer, pem: Path, receivers: Sequence[int]) -> list[str]:
    text = _changed(
        "nginx.conf",
        (r" *listen \[::\]:\d+( ssl)?;\n", ""),
        (r"listen 443 ssl;", f"listen 127.0.0.1:{balancer.port} ssl;"),
        (r"listen 80;", f"listen 127.0.0.1:{balancer.plain_port};"),
        (r"/etc/letsencrypt/live/[\w.]+/\w+\.pem", str(pem)),
        (r"server 127\.0\.0\.1:8000(.*?);", "\n    ".join(rf"server 127.0.0.1:{port}\1;" for port in receivers)),
    )
    (folder / "jobhook.conf").write_text(text, "utf-8")
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder), "utf-8")
    return [_program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]


def _haproxy(folder: Path, balancer: Balancer, pem: Path, receivers: Sequence[int]) -> list[str]:
    text = _changed(
        "haproxy.cfg",
        (r"bind :443 ssl crt \S+", f"bind 127.0.0.1:{balancer.port} ssl crt {pem}"),
        (r"bind :80", f"bind 127.0.0.1:{balancer.plain_port}"),
        (
            r"server receiver1 127\.0\.0\.1:8000",
            "\n    ".join(f"server receiver{port} 127.0.0.1:{port}" for port in receivers),
        ),
    )
    (folder / "haproxy.cfg").write_text(text, "utf-8")
    return [_program("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]


def _caddy(folder: Path, balancer: Balancer, pem: Path, receivers: Sequence[int]) -> list[str]:
    name = rf"\{{\$CADDY_DOMAIN:{re.escape(NAME)}\}}"
    text = _changed(
        "Caddyfile",
        (r"\n\{\n", "\n{\n\tadmin off\n\tauto_https off\n"),
        (rf"http://{name} \{{", f"http://:{balancer.plain_port} {{"),
        (rf"\n{name} \{{", f"\nhttps://{NAME}:{balancer.port} {{\n\ttls {pem} {pem}"),
        (
            r"reverse_proxy \{\$CADDY_RECEIVERS:127\.0\.0\.1:8000\}",
            "reverse_proxy " + " ".join(f"127.0.0.1:{port}" for port in receivers),
        ),
    )
    (folder / "Caddyfile").write_text(text, "utf-8")
    return [_program("caddy"), "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


_PREPARE: dict[str, Callable[[Path, Balancer, Path, Sequence[int]], list[str]]] = {
    "nginx": _nginx,
    "haproxy": _haproxy,
    "caddy": _caddy,
}
KINDS = tuple(_PREPARE)


def why_not(kind: str) -> str | None:
    """Why it cannot be run here, if it cannot."""
    found = _which(kind)
    if found is None:
        return f"no {kind} is installed"
    if kind == "caddy":
        version = subprocess.run([found, "version"], capture_output=True, text=True, check=True).stdout.lstrip("v")
        if tuple(map(int, version.split(".")[:2])) < OLDEST_CADDY:  # repeats a request without its body
            return f"the Caddy installed is too old: {version}"
    return None


def _program(kind: str) -> str:
    found = _which(kind)
    assert found, f"{kind} is not installed"
    return found


def _which(kind: str) -> str | None:
    return shutil.which(kind, path=os.pathsep.join(_PLACES))


def _changed(name: str, *changes: tuple[str, str]) -> str:
    """A file of deploy/ with some changes. Each has to meet something: what runs here is to be what is in the file."""
    text = (ROOT / "deploy" / name).read_text("utf-8")
    for pattern, new in changes:
        text, times = re.subn(pattern, new, text)
        assert times, f"nothing is {pattern} in the configuration"
    return text
