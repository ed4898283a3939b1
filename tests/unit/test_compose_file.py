"""docker-compose.yml and the Dockerfile, held against the code and the files they name; tests/system runs them."""

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from app.cli.run import SHUTDOWN_SECONDS
from app.config.names import SECRETS_DIR, complaint
from app.config.settings import Settings
from app.config.table import settings_rows
from app.inbox.inbox import LEASE_MARGIN_SECONDS
from app.ops.health import ANSWER_SECONDS
from app.units import parse_duration
from tests.support.stack import KEY, ROOT

TEXT = (ROOT / "docker-compose.yml").read_text("utf-8")
FILE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
SETTINGS = Settings(api_key=KEY)
NAMES = {name for name, *_ in settings_rows(SETTINGS)} | {SECRETS_DIR}
TAKEN_BY_COMPOSE = {"COMPOSE_PROFILES", "CADDY_DOMAIN", "CADDY_HTTP_PORT", "CADDY_HTTPS_PORT"}


def test_there_is_time_to_stop() -> None:
    """P6: for requests in hand and for handlers at work."""
    assert parse_duration(SERVICES["receiver"]["stop_grace_period"]) > SHUTDOWN_SECONDS
    workers = parse_duration(SERVICES["workers"]["stop_grace_period"])
    assert workers > SETTINGS.handler_timeout + LEASE_MARGIN_SECONDS


def test_ports_and_checks_are_those_of_the_code() -> None:
    """P9."""
    receiver = SERVICES["receiver"]
    assert receiver["environment"]["JOBHOOK_PORT"] == str(SETTINGS.port)
    assert receiver["ports"] == [
        f"${{JOBHOOK_HOST:-{SETTINGS.host}}}:${{JOBHOOK_PORT:-{SETTINGS.port}}}:{SETTINGS.port}"
    ]
    check = receiver["healthcheck"]
    assert f'"127.0.0.1", {SETTINGS.port}' in check["test"][-1]
    assert '"/readyz"' in check["test"][-1]
    assert parse_duration(check["timeout"]) > ANSWER_SECONDS
    assert SERVICES["caddy"]["environment"]["CADDY_RECEIVERS"] == f"receiver:{SETTINGS.port}"
    assert SERVICES["workers"]["healthcheck"]["test"] == ["CMD", "jobhook", "alive"]
    assert f"EXPOSE {SETTINGS.port}" in (ROOT / "Dockerfile").read_text("utf-8")


@pytest.mark.parametrize("name", ["receiver", "workers"])
def test_what_is_set_is_a_setting(name: str) -> None:
    """P10."""
    assert set(SERVICES[name]["environment"]) <= NAMES


def test_what_is_read_from_the_env_file_stops_no_container() -> None:
    """P10: the whole file reaches the containers, and an unknown setting would stop them."""
    read = set(re.findall(r"(?<!\$)\$\{(\w+)", TEXT))
    assert read <= NAMES | TAKEN_BY_COMPOSE
    assert not [name for name in read if complaint(name)]


def test_there_is_no_secret_in_it() -> None:
    """P7: Redis's password is made on the machine, and read from a file by all who need it."""
    for name, service in SERVICES.items():
        for key, value in dict(service.get("environment", {})).items():
            assert not re.search("PASS|SECRET$|TOKEN", key), (name, key, value)
    assert "od -An -N24 -tx1 /dev/urandom" in TEXT
    for name in ("redis", "redis-2", "redis-3", "receiver", "workers", "sentinel-1"):
        assert "password:/run/jobhook:ro" in SERVICES[name]["volumes"]
    assert SERVICES["receiver"]["environment"][SECRETS_DIR].endswith(":-/run/jobhook}")
    assert not [line for line in (ROOT / "deploy/redis.conf").read_text("utf-8").splitlines() if "requirepass" in line]


def test_nothing_is_published_but_the_webhook() -> None:
    """P3: to all the world only Caddy, which lets nothing else through."""
    open_to_all = {
        name
        for name, service in SERVICES.items()
        for port in service.get("ports", ())
        if not port.startswith(("127.", "${JOBHOOK_HOST:-127."))
    }
    assert open_to_all == {"caddy"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_no_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "caddy" else [])


def test_addresses_are_those_that_are_believed_and_named() -> None:
    """P3: nobody gets by chance the address that is trusted."""
    (config,) = FILE["networks"]["default"]["ipam"]["config"]
    network, given_out = ip_network(config["subnet"]), ip_network(config["ip_range"])
    fixed = {
        name: ip_address(service["networks"]["default"]["ipv4_address"])
        for name, service in SERVICES.items()
        if "networks" in service
    }
    assert len(set(fixed.values())) == len(fixed)
    assert all(address in network and address not in given_out for address in fixed.values())
    trusted = SERVICES["receiver"]["environment"]["JOBHOOK_TRUSTED_PROXIES"]
    assert trusted == f"${{JOBHOOK_TRUSTED_PROXIES:-{config['gateway']},{fixed['caddy']}}}"
    script = SERVICES["password"]["command"][0]
    sentinels = ",".join(str(fixed[f"sentinel-{n}"]) for n in (1, 2, 3))
    assert f"redis+sentinel://:$$password@{sentinels}/jobhook" in script
    assert f"redis://:$$password@{fixed['redis']}:6379/0" in script
    for name in ("redis-2", "redis-3"):
        assert SERVICES[name]["environment"]["REPLICA_OF"] == f"{fixed['redis']} 6379"
    said = (ROOT / "deploy/sentinel.conf").read_text("utf-8")
    assert "sentinel monitor jobhook 10.0.0.11 6379 2" in said
    assert rf"s/10\.0\.0\.11/{fixed['redis']}/" in SERVICES["sentinel-1"]["command"][0]


def test_volumes_and_files_are_there() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert Path(ROOT, source).exists() if source.startswith("./") else source in FILE["volumes"], (name, volume)


def test_what_is_optional_has_a_profile() -> None:
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}
    assert [name for name, found in profiles.items() if not found] == ["password", "redis", "receiver", "workers"]
    assert {profile for found in profiles.values() for profile in found} == {"https", "ha"}


def test_redis_loses_nothing() -> None:
    """P1."""
    lines = (ROOT / "deploy/redis.conf").read_text("utf-8").splitlines()
    assert {"appendonly yes", "appendfsync always", "maxmemory-policy noeviction"} <= set(lines)
