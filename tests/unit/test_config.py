"""Settings: where they come from, what is refused at boot, and P7: that no message or dump shows a key."""

import re
import traceback
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.config.settings import Settings
from app.config.sources import load_settings, settings_rows, settings_table, variable
from app.delivery.scheme import Scheme
from app.errors import ConfigError

KEY = "jso_live_8f2c1d7e4b6a9035"
OLD_KEY = "jso_live_0a1b2c3d4e5f6071"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The current folder, with an empty folder `secrets`, and an environment that sets the key alone."""
    (tmp_path / "secrets").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOBHOOK_ENV_FILE", raising=False)
    monkeypatch.setenv("JOBHOOK_SECRETS_DIR", str(tmp_path / "secrets"))
    monkeypatch.setenv("JOBSITEON_API_KEY", KEY)
    return tmp_path


def problems(**environment: str) -> str:
    """What is said of an environment that cannot be used."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ConfigError) as raised:
            load_settings()
    return str(raised.value)


# Sources


def test_a_key_is_all_that_is_needed() -> None:
    settings = load_settings()
    assert settings.signing_keys == (KEY.encode(),)
    assert settings.require_https
    assert settings.durability == "fsync"


def in_secrets(folder: Path, value: str) -> None:
    (folder / "secrets" / "JOBHOOK_PORT").write_text(value + "\n")


def in_env_file(folder: Path, value: str) -> None:
    (folder / ".env").write_text(f"# settings\nJOBHOOK_PORT={value}\nUNRELATED=1\n")


def test_the_environment_wins_over_the_env_file_over_the_secrets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_secrets(folder, "3001")
    assert load_settings().port == 3001
    in_env_file(folder, "3002")
    assert load_settings().port == 3002
    monkeypatch.setenv("JOBHOOK_PORT", "3003")
    assert load_settings().port == 3003
    assert load_settings(port=3004).port == 3004


def test_reads_keys_from_secret_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBSITEON_API_KEY")
    (folder / "secrets" / "jobsiteon_api_key").write_text(KEY + "\n")
    (folder / "secrets" / "jobsiteon_previous_api_keys").write_text(f"{OLD_KEY}\n")
    assert load_settings().signing_keys == (KEY.encode(), OLD_KEY.encode())


def test_the_env_file_may_be_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_env_file(folder, "3001")
    (folder / "other.env").write_text("JOBHOOK_PORT=3002\n")
    monkeypatch.setenv("JOBHOOK_ENV_FILE", "other.env")
    assert load_settings().port == 3002


@pytest.mark.parametrize("separator", [",", ", ", " ", "\n"], ids=repr)
def test_several_previous_keys(separator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBSITEON_PREVIOUS_API_KEYS", separator.join([OLD_KEY, OLD_KEY[::-1]]))
    assert load_settings().signing_keys == (KEY.encode(), OLD_KEY.encode(), OLD_KEY[::-1].encode())


def test_a_key_is_the_bytes_that_were_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of the environment that are not UTF-8 arrive as surrogates."""
    monkeypatch.setenv("JOBSITEON_API_KEY", KEY + "\udcff")
    assert load_settings().signing_keys == (KEY.encode() + b"\xff",)


def test_what_is_set_empty_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Compose files do with `${JOBHOOK_ALLOWED_IPS:-}`."""
    for name in ("JOBSITEON_PREVIOUS_API_KEYS", "JOBHOOK_ALLOWED_IPS"):
        monkeypatch.setenv(name, "")
    settings = load_settings()
    assert (settings.previous_api_keys, settings.allowed_ips) == ((), ())


# Typing errors


def set_in_env_file(folder: Path, name: str) -> None:
    (folder / ".env").write_text(f"{name}=1\n")


def set_in_secrets(folder: Path, name: str) -> None:
    (folder / "secrets" / name).write_text("1")


@pytest.mark.parametrize("put", [set_in_env_file, set_in_secrets], ids=[".env", "secrets"])
@pytest.mark.parametrize("name", ["JOBHOOK_RETENTON", "jobhook_retenton"])
def test_an_unknown_name_in_a_file_is_an_error(put: Callable[[Path, str], None], name: str, folder: Path) -> None:
    put(folder, name)
    assert problems() == "JOBHOOK_RETENTON: no such setting. Did you mean JOBHOOK_RETENTION?"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("JOBHOOK_RETENTON", "JOBHOOK_RETENTION"),
        ("JOBHOOK_ALLOWED_IP", "JOBHOOK_ALLOWED_IPS"),
        ("JOBHOOK_API_KEY", "JOBSITEON_API_KEY"),
        ("JOBHOOK_ENVFILE", "JOBHOOK_ENV_FILE"),
    ],
)
def test_an_unknown_name_is_an_error_that_suggests_the_nearest(name: str, nearest: str) -> None:
    assert problems(**{name: "1"}) == f"{name}: no such setting. Did you mean {nearest}?"


def test_suggests_nothing_far_fetched() -> None:
    assert problems(JOBHOOK_QQQQQQQQQQQQQQ="1") == "JOBHOOK_QQQQQQQQQQQQQQ: no such setting."


def test_names_of_others_are_no_concern(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBSITE", "1")
    set_in_env_file(folder, "COMPOSE_PROJECT_NAME")
    set_in_secrets(folder, "database_password")
    load_settings()


# Keys

BAD_KEYS = {
    "": "is empty",
    " \t": "is empty",
    "changeme": "is a placeholder: put a real API key there",
    "change-me-before-you-start": "is a placeholder: put a real API key there",
    "your_jobsiteon_api_key": "is a placeholder: put a real API key there",
    "<paste the API key here>": "is a placeholder: put a real API key there",
    "${JOBSITEON_API_KEY}": "is a placeholder: put a real API key there",
    "xxxxxxxxxxxxxxxxxxxxxxxx": "is a placeholder: put a real API key there",
    "8f2c1d7e4b6a903": "is too short: a key has at least 16 characters",
    f"{KEY} ": "begins or ends with white space",
}


@pytest.mark.parametrize(("key", "problem"), BAD_KEYS.items(), ids=map(repr, BAD_KEYS))
def test_refuses_to_start_with_an_unusable_key(key: str, problem: str) -> None:
    """P3: one clear line, and P7: without the key."""
    assert problems(JOBSITEON_API_KEY=key) == f"JOBSITEON_API_KEY: {problem}"


def test_refuses_to_start_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBSITEON_API_KEY")
    assert re.fullmatch(r"JOBSITEON_API_KEY: is not set\. .+", problems())


def test_refuses_to_start_with_an_unusable_previous_key() -> None:
    assert problems(JOBSITEON_PREVIOUS_API_KEYS=f"{OLD_KEY},short") == (
        "JOBSITEON_PREVIOUS_API_KEYS: is too short: a key has at least 16 characters"
    )


def test_no_error_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: not in its message, nor in the traceback that a crash at boot prints."""
    secrets = {
        "JOBSITEON_API_KEY": "canary-key",
        "JOBSITEON_PREVIOUS_API_KEYS": "canary-old",
        "REDIS_URL": "http://:canary-redis@redis",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as raised:
        load_settings()
    assert sorted(line.partition(":")[0] for line in str(raised.value).splitlines()) == sorted(secrets)
    assert "canary" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:{}@redis.example.test:6379/0",
        "redis+sentinel://user:{0}@redis.example.test:6379/0?sentinel_password={0}",
    ],
)
@pytest.mark.parametrize("password", ["canary", "c@nary", "%40canary"])
def test_no_dump_shows_a_secret(url: str, password: str) -> None:
    """P7."""
    settings = load_settings(api_key=KEY, previous_api_keys=(OLD_KEY,), redis_url=url.format(password))
    for dump in (repr(settings), str(settings), settings.model_dump_json(exclude={"redis_url"}), _table(settings)):
        assert KEY not in dump
        assert OLD_KEY not in dump
        assert "nary" not in dump
    assert "redis.example.test:6379/0" in _table(settings)


def _table(settings: Settings) -> str:
    return "\n".join(" ".join(row) for row in settings_rows(settings))


# Values


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("203.0.113.7", ["203.0.113.7/32"]),
        ("10.0.0.0/8, 192.168.0.0/16", ["10.0.0.0/8", "192.168.0.0/16"]),
        ("2001:db8::/32 ::1", ["2001:db8::/32", "::1/128"]),
    ],
)
def test_reads_lists_of_networks(text: str, networks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBHOOK_ALLOWED_IPS", text)
    monkeypatch.setenv("JOBHOOK_TRUSTED_PROXIES", text)
    settings = load_settings()
    assert settings.allowed_ips == settings.trusted_proxies == tuple(map(ip_network, networks))


SCHEME = "must begin with redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://"
SERVICE = "must name the service after the sentinels: redis+sentinel://host1,host2,host3/mymaster"
NODES = (
    "cannot be read: a password with / or @ in it has to be percent-encoded; "
    "sentinels are written host:port, separated by commas"
)
OPTION = "has an option that is not known here; those for Sentinel are sentinel_username, sentinel_password"

BAD_VALUES = {
    ("JOBHOOK_ALLOWED_IPS", "10.0.0.0/99"): "write addresses or CIDRs such as 10.0.0.0/8, separated by commas",
    ("JOBHOOK_ALLOWED_IPS", "10.1.2.3/8"): "write addresses or CIDRs such as 10.0.0.0/8, separated by commas",
    ("JOBHOOK_TRUSTED_PROXIES", "lb.internal"): "write addresses or CIDRs such as 10.0.0.0/8, separated by commas",
    ("JOBHOOK_RETENTION", "a week"): "write a duration such as 500ms, 90s, 1h30m or 30d",
    ("JOBHOOK_MAX_BODY_BYTES", "lots"): "write a size such as 1048576, 500kB or 1MiB",
    ("JOBHOOK_DEDUPE_WINDOW", "6d"): "must not be shorter than JOBHOOK_RETENTION",
    ("JOBHOOK_ACK_BUDGET", "2s"): "must be under 2s, because JobsiteOn waits 5s and a body may take 3s to arrive",
    ("REDIS_URL", "http://redis:6379"): SCHEME,
    ("REDIS_URL", ""): SCHEME,
    ("REDIS_URL", "redis+sentinel://s1,s2"): SERVICE,
    ("REDIS_URL", "redis+sentinel://s1,s2/"): SERVICE,
    ("REDIS_URL", "redis+sentinel://s1/mymaster/zero"): SERVICE,
    ("REDIS_URL", "redis+sentinel:///mymaster"): NODES,
    ("REDIS_URL", "redis+sentinel://s1,,s2/mymaster"): NODES,
    ("REDIS_URL", "redis+sentinel://s1:port/mymaster"): NODES,
    ("REDIS_URL", "redis+sentinel://s1:65536/mymaster"): NODES,
    ("REDIS_URL", "redis+sentinel://s1/mymaster#1"): NODES,
    ("REDIS_URL", "redis+sentinel://s1/mymaster?sentinel_password="): "gives no value to sentinel_password",
    ("REDIS_URL", "redis+sentinel://s1/mymaster?socket_timeout=1"): OPTION,
    ("REDIS_URL", "redis+sentinel://s1/mymaster?ssl_ca_certs=ca.pem"): OPTION,
    ("REDIS_URL", "rediss+sentinel://s1/m?ssl_check_hostname=no"): "ssl_check_hostname must be true or false",
}


@pytest.mark.parametrize(("name", "value"), BAD_VALUES, ids=map("=".join, BAD_VALUES))
def test_says_in_one_line_what_is_wrong_with_a_value(name: str, value: str) -> None:
    assert problems(**{name: value}) == f"{name}: {BAD_VALUES[name, value]}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JOBHOOK_MAX_BODY_BYTES", "0"),
        ("JOBHOOK_MAX_BODY_BYTES", "1000MiB"),
        ("JOBHOOK_ACK_BUDGET", "1ms"),
        ("JOBHOOK_MAX_ATTEMPTS", "0"),
        ("JOBHOOK_PORT", "65536"),
        ("JOBHOOK_PORT", ""),
        ("JOBHOOK_WORKERS", "many"),
        ("JOBHOOK_REQUIRE_HTTPS", "perhaps"),
        ("JOBHOOK_DURABILITY", "disk"),
        ("JOBHOOK_SIGNATURE_ALGORITHM", "md5"),
        ("JOBHOOK_LOG_LEVEL", "loud"),
    ],
)
def test_refuses_what_is_out_of_range(name: str, value: str) -> None:
    assert re.fullmatch(rf"{name}: Input should be .+", problems(**{name: value}))


def test_tells_all_problems_at_once() -> None:
    lines = problems(JOBHOOK_PORT="x", JOBHOOK_WORKERS="0", JOBSITEON_API_KEY="short").splitlines()
    assert {line.partition(":")[0] for line in lines} == {"JOBHOOK_PORT", "JOBHOOK_WORKERS", "JOBSITEON_API_KEY"}


@pytest.mark.parametrize(
    "url",
    [
        "redis://redis",
        "rediss://redis:6380/1",
        "unix:///run/redis.sock",
        "redis+sentinel://s1,s2:26380,[::1]:26381/mymaster/1",
        "rediss+sentinel://user:p%40ss@s1/mymaster?sentinel_password=other&ssl_ca_certs=/etc/ca.pem",
    ],
)
def test_accepts_every_way_to_redis(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    assert load_settings().redis_url == url


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:canary/1@s1:26379/mymaster",
        "redis+sentinel://u:1/canary@s1:26379/mymaster",
        "redis+sentinel://u:1?canary@s1:26379/mymaster",
        "redis+sentinel://u:1#canary@s1:26379/mymaster",
        "redis+sentinel://:canary@s1:port/mymaster",
        "redis+sentinel://:canary@s1/mymaster?canary=canary",
        "redis+sentinel://:canary@[s1/mymaster",
        "redis+sentinel://s1/mymaster?sentinel_password=canary&canary",
        "rediss+sentinel://:canary@s1/mymaster?ssl_check_hostname=canary",
    ],
)
def test_no_complaint_about_a_url_quotes_it(url: str) -> None:
    """P7."""
    assert "canary" not in problems(REDIS_URL=url)


def test_is_frozen() -> None:
    settings: Any = load_settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.require_https = False


# The README's table


def test_the_table_lists_every_setting_with_its_default() -> None:
    table = settings_table().splitlines()
    assert len(table) == 2 + len(Settings.model_fields)
    assert all(field.description for field in Settings.model_fields.values())
    for name in Settings.model_fields:
        assert sum(row.startswith(f"| `{variable(name)}` | ") for row in table) == 1
    shown = {row.split(" | ")[0].strip("|` "): row.split(" | ")[1] for row in table[2:]}
    assert shown["JOBSITEON_API_KEY"] == "*required*"
    assert shown["JOBSITEON_PREVIOUS_API_KEYS"] == "*none*"
    assert shown["JOBHOOK_DEDUPE_WINDOW"] == "30d"
    assert shown["JOBHOOK_MAX_BODY_BYTES"] == "1MiB"
    assert shown["JOBHOOK_REQUIRE_HTTPS"] == "true"


# The signature

TIMED = {"JOBHOOK_SIGNATURE_CONTENT": "{timestamp}.{body}"}
IN_HEADER = TIMED | {"JOBHOOK_SIGNATURE_TIMESTAMP_HEADER": "X-Time"}
CONTRADICTIONS: list[tuple[dict[str, str], str, str]] = [
    (TIMED, "JOBHOOK_SIGNATURE_TIMESTAMP_HEADER", "must say where the timestamp is"),
    ({"JOBHOOK_SIGNATURE_CONTENT": "{id}.{body}"}, "JOBHOOK_SIGNATURE_ID_HEADER", "must say where the id is"),
    ({"JOBHOOK_SIGNATURE_CONTENT": "{timestamp}"}, "JOBHOOK_SIGNATURE_CONTENT", "must name {body}"),
    ({"JOBHOOK_SIGNATURE_CONTENT": "{url}{body}"}, "JOBHOOK_PUBLIC_URL", "must be set"),
    ({"JOBHOOK_SIGNATURE_TOLERANCE": "10m"}, "JOBHOOK_SIGNATURE_TOLERANCE", "is not used"),
    ({"JOBHOOK_SIGNATURE_TIMESTAMP_HEADER": "X-Time"}, "JOBHOOK_SIGNATURE_TIMESTAMP_HEADER", "is not used"),
    ({"JOBHOOK_SIGNATURE_ID_HEADER": "X-Id"}, "JOBHOOK_SIGNATURE_ID_HEADER", "is not used"),
    ({"JOBHOOK_SIGNATURE_FORM": "t={timestamp},v1={signature}"}, "JOBHOOK_SIGNATURE_FORM", "write {any}"),
    (
        IN_HEADER | {"JOBHOOK_SIGNATURE_FORM": "t={timestamp},v1={signature}"},
        "JOBHOOK_SIGNATURE_TIMESTAMP_HEADER",
        "is not used",
    ),
    (
        TIMED | {"JOBHOOK_SIGNATURE_TIMESTAMP_HEADER": "x-signature"},
        "JOBHOOK_SIGNATURE_TIMESTAMP_HEADER",
        "is the header of the signature",
    ),
    ({"JOBHOOK_SIGNATURE_FORM": "sha1={signature}"}, "JOBHOOK_SIGNATURE_FORM", "names sha1, but"),
    ({"JOBHOOK_SIGNATURE_FORM": "v1="}, "JOBHOOK_SIGNATURE_FORM", "must name {signature}"),
    ({"JOBHOOK_SIGNATURE_FORM": "{signature}{any}"}, "JOBHOOK_SIGNATURE_FORM", "side by side"),
    ({"JOBHOOK_SIGNATURE_FORM": "{signature}-{signature}"}, "JOBHOOK_SIGNATURE_FORM", "two signatures"),
    ({"JOBHOOK_SIGNATURE_FORM": r"a\n{signature}"}, "JOBHOOK_SIGNATURE_FORM", "cannot stand in a header"),
    ({"JOBHOOK_SIGNATURE_FORM": "{mac}"}, "JOBHOOK_SIGNATURE_FORM", "{mac} is not known here"),
    (
        TIMED | {"JOBHOOK_SIGNATURE_FORM": "{timestamp}:{timestamp}:{signature}"},
        "JOBHOOK_SIGNATURE_FORM",
        "names a value twice",
    ),
    ({"JOBHOOK_SIGNATURE_HEADER": "X Signature"}, "JOBHOOK_SIGNATURE_HEADER", "is not the name of a header"),
    ({"JOBHOOK_SIGNATURE_HEADER": ""}, "JOBHOOK_SIGNATURE_HEADER", "is not the name of a header"),
    ({"JOBHOOK_SIGNATURE_KEY_FORM": "hex"}, "JOBSITEON_API_KEY", "cannot be read as hex"),
    ({"JOBHOOK_SIGNATURE_KEY_FORM": "base64"}, "JOBSITEON_API_KEY", "cannot be read as base64"),
    ({"JOBHOOK_PUBLIC_URL": "hooks.example.com"}, "JOBHOOK_PUBLIC_URL", "write the whole URL"),
]


@pytest.mark.parametrize(("environment", "name", "problem"), CONTRADICTIONS, ids=lambda value: str(value)[:60])
def test_settings_of_the_signature_that_contradict_each_other_refuse_the_start(
    environment: dict[str, str], name: str, problem: str
) -> None:
    """P10: used or refused, never half ignored."""
    said = problems(**environment)
    assert said.startswith(f"{name}: ")
    assert problem in said
    assert "\n" not in said
    assert KEY not in said


def test_a_previous_key_has_to_have_the_form_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBSITEON_API_KEY", "ab" * 16)
    said = problems(JOBHOOK_SIGNATURE_KEY_FORM="hex", JOBSITEON_PREVIOUS_API_KEYS=OLD_KEY)
    assert said.startswith("JOBSITEON_PREVIOUS_API_KEYS: cannot be read as hex")


def test_the_default_scheme_is_the_one_that_is_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().signature_scheme == Scheme()
    for name, value in (IN_HEADER | {"JOBHOOK_SIGNATURE_TOLERANCE": "10m"}).items():
        monkeypatch.setenv(name, value)
    assert load_settings().signature_scheme == Scheme(
        content="{timestamp}.{body}", timestamp_header="X-Time", tolerance=600.0
    )
