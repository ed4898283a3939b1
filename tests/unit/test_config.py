"""Settings: where they come from, what is refused at boot, and P7: that no message or dump shows a key."""

import re
import string
import traceback
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from app.config.names import FIELDS, variable
from app.config.pasted import unusable_key
from app.config.settings import Settings
from app.config.sources import configured_values, load_settings, notes, override
from app.config.table import THEMES, settings_rows, settings_table
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


@pytest.mark.parametrize("nothing", ["", " ", "\n"], ids=repr)
def test_what_is_set_to_nothing_is_not_set(nothing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: as Compose files do with `${JOBHOOK_ALLOWED_IPS:-}`."""
    usual = load_settings()
    for name in {*FIELDS, "JOBHOOK_ENV_FILE"} - {"JOBSITEON_API_KEY"}:
        monkeypatch.setenv(name, nothing)
    assert load_settings() == usual


def test_what_is_set_to_nothing_leaves_it_to_the_next_source(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_env_file(folder, "3001")
    (folder / "secrets" / "JOBSITEON_API_KEY").write_text(KEY)
    for name in ("JOBHOOK_PORT", "JOBSITEON_API_KEY"):
        monkeypatch.setenv(name, "")
    assert load_settings().port == 3001
    assert load_settings().signing_keys == (KEY.encode(),)


def test_the_case_of_names_does_not_matter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "other.env").write_text("Jobhook_Port=3002\n")
    monkeypatch.setenv("jobhook_env_file", "other.env")
    monkeypatch.setenv("jobhook_workers", "5")
    settings = load_settings()
    assert (settings.port, settings.workers) == (3002, 5)
    assert configured_values() == {"JOBSITEON_API_KEY": KEY, "JOBHOOK_PORT": "3002", "JOBHOOK_WORKERS": "5"}


def test_settings_made_by_hand_read_nothing_else() -> None:
    assert Settings(api_key=SecretStr(KEY)).port == 8000
    with pytest.raises(ValidationError, match="Extra inputs"):
        Settings.model_validate({"api_key": KEY, "retenton": 1})


# Typing errors


def set_in_env_file(folder: Path, name: str) -> None:
    (folder / ".env").write_text(f"{name}=1\n")


def set_in_secrets(folder: Path, name: str) -> None:
    (folder / "secrets" / name).write_text("1")


@pytest.mark.parametrize("put", [set_in_env_file, set_in_secrets], ids=[".env", "secrets"])
@pytest.mark.parametrize("name", ["JOBHOOK_RETENTON", "jobhook_retenton"])
def test_an_unknown_name_in_a_file_is_an_error(put: Callable[[Path, str], None], name: str, folder: Path) -> None:
    put(folder, name)
    place = ".env, line 1" if put is set_in_env_file else f"{folder}/secrets/{name}"
    assert problems() == f"JOBHOOK_RETENTON: no such setting. Did you mean JOBHOOK_RETENTION? ({place})"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("JOBSITEON_PREVIOUS_KEYS", "JOBSITEON_PREVIOUS_API_KEYS"),
        ("JOBSITEON_KEY", "JOBSITEON_API_KEY"),
        ("JOBSITEON_RETENTION", "JOBHOOK_RETENTION"),
        ("JOBHOOK_REDIS_URL", "REDIS_URL"),
        ("JOBHOOK-ALLOWED-IPS", "JOBHOOK_ALLOWED_IPS"),
        ("JOBHOOK.PORT", "JOBHOOK_PORT"),
        ("JOBHOOKPORT", "JOBHOOK_PORT"),
        ("JOB_HOOK_ALLOWED_IPS", "JOBHOOK_ALLOWED_IPS"),
        ("JOBHOK_ALLOWED_IPS", "JOBHOOK_ALLOWED_IPS"),
        ("JOBSITE_ON_API_KEY", "JOBSITEON_API_KEY"),
        ("JOBSITON_API_KEY", "JOBSITEON_API_KEY"),
        ("JOBSITEON_API_KEY.TXT", "JOBSITEON_API_KEY"),
        ("REDIS-URL", "REDIS_URL"),
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
    for name in ("JOBSITE", "HOOK_PORT", "JOBS_PORT", "REDISCOVER_URL", "ALLOWED_IPS", "REDIS_PORT", "API_KEY"):
        monkeypatch.setenv(name, "1")
    set_in_env_file(folder, "COMPOSE_PROJECT_NAME")
    set_in_secrets(folder, "database_password")
    load_settings()
    assert notes() == []


@pytest.mark.parametrize("name", ["JOBHOOK_ENV_FILE", "JOBHOOK_SECRETS_DIR"])
def test_a_name_that_decides_what_is_read_has_an_effect_or_is_refused(name: str, folder: Path) -> None:
    """P10."""
    set_in_secrets(folder, name)
    said = problems()
    assert said == f"{name}: {folder}/secrets/{name}: has no effect there: set it in the environment"


def test_the_env_file_may_name_the_secrets_but_not_another_env_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P10."""
    monkeypatch.delenv("JOBHOOK_SECRETS_DIR")
    (folder / "secrets" / "JOBHOOK_PORT").write_text("3001")
    (folder / ".env").write_text("JOBHOOK_SECRETS_DIR=secrets\n")
    assert load_settings().port == 3001
    (folder / ".env").write_text("JOBHOOK_ENV_FILE=other.env\n")
    assert problems() == "JOBHOOK_ENV_FILE: .env, line 1: has no effect there: set it in the environment"


def test_one_name_in_two_cases_has_one_value() -> None:
    """P10."""
    assert problems(JOBHOOK_PORT="1", jobhook_port="2") == (
        "JOBHOOK_PORT: has two values: as JOBHOOK_PORT in the environment, and as jobhook_port in the environment. "
        "Remove one"
    )


def test_what_a_command_sets_replaces_what_was_set_in_another_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("jobhook_workers", "5")
    monkeypatch.setenv("JOBHOOK_WORKERS", "5")
    override("JOBHOOK_WORKERS", "7")
    assert load_settings().workers == 7


def test_a_prefix_that_rq_would_not_take_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: RQ would end with a traceback, and the receiver would record events that no worker finds."""
    for prefix in ("", "my rq", "rq*"):
        assert problems(RQ_KEY_PREFIX=prefix).startswith("RQ_KEY_PREFIX: only letters, digits")
    (folder / ".env").write_text("RQ_KEY_PREFIX=mine\n")
    assert problems() == "RQ_KEY_PREFIX: .env, line 1: has no effect there: set it in the environment"
    monkeypatch.setenv("RQ_KEY_PREFIX", "mine")
    load_settings()


# What Kubernetes sets for a Service

LINKS = {
    "{}_SERVICE_HOST": "10.0.171.239",
    "{}_SERVICE_PORT": "80",
    "{}_SERVICE_PORT_HTTP": "80",
    "{}_PORT": "tcp://10.0.171.239:80",
    "{}_PORT_80_TCP": "tcp://10.0.171.239:80",
    "{}_PORT_80_TCP_PROTO": "tcp",
    "{}_PORT_80_TCP_PORT": "80",
    "{}_PORT_80_TCP_ADDR": "10.0.171.239",
    "{}_PORT_53_UDP": "udp://[fd00::7]:53",
    "{}_PORT_53_UDP_ADDR": "fd00::7",
    "{}_PORT_9_SCTP": "sctp://10.0.171.239:9",
}


@pytest.mark.parametrize("service", ["JOBHOOK", "JOBHOOK_RECEIVER", "JOBHOOK_WORKERS", "JOBSITEON", "JOBSITEON_API"])
def test_service_links_are_ignored_and_said(service: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: a Service that is made after the first pod does not keep the next one from starting."""
    for name, value in LINKS.items():
        monkeypatch.setenv(name.format(service), value)
    assert load_settings().port == 8000
    (note,) = notes()
    assert all(name.format(service) in note for name in LINKS)
    assert "enableServiceLinks: false" in note
    in_env_file(folder, "3001")
    assert load_settings().port == 3001
    assert configured_values()["JOBHOOK_PORT"] == "3001"


def test_service_links_of_other_services_are_no_concern(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even if the Service is named almost like us."""
    for service in ("REDIS", "JOBHOOK2", "JOB_HOOK"):
        for name, value in LINKS.items():
            monkeypatch.setenv(name.format(service), value)
    load_settings()
    assert notes() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JOBHOOK_PORT_80_TCP", "80"),
        ("JOBHOOK_SERVICE_HOST", "web"),
        ("JOBHOOK_WORKERS_PORT", "8000"),
        ("JOBHOOK_PORT_80", "tcp://10.0.0.1:80"),
        ("JOBHOOK_PORT", "http://10.0.0.1:80"),
    ],
)
def test_only_what_has_the_form_of_a_service_link_is_one(name: str, value: str) -> None:
    assert problems(**{name: value}).startswith(f"{name}: ")


@pytest.mark.parametrize("name", ["REDIS_URI", "REDISURL", "redis_uri", "REDIS_URLS", "REDIS_HOST", "REDIS_TLS_URL"])
def test_what_may_have_been_meant_as_redis_url_is_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be another program's; Redis would be looked for on this machine."""
    monkeypatch.setenv(name, "redis://canary")
    load_settings()
    assert notes() == [f"{name} is no setting of Jobhook, and REDIS_URL is not set: did you mean REDIS_URL?"]
    monkeypatch.setenv("REDIS_URL", "redis://redis")
    assert notes() == []


# Keys

QUOTES = "has quotes around it: write it without"
SPACE = "has white space in it: is it several keys, or is a line pasted along?"
SCHEME_WORD = "begins with a word of the Authorization header: write the key alone"
COLON = "begins with a name and a colon: write the key alone"
NAME = "begins with a setting's name: write the key alone"
JSON = "is written as JSON: write the key alone, and separate several by commas"
SEVERAL = "is several keys: write the current one, and the others into JOBSITEON_PREVIOUS_API_KEYS, with commas"
MASKED = "is masked or cut short: copy the whole key; JobsiteOn shows it only once"
FILE = "is the name of a file: put the key itself there, or name a folder of secret files in JOBHOOK_SECRETS_DIR"
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
    f"{KEY}\n": "begins or ends with white space",
    f"{KEY}\u00a0": "begins or ends with white space",
    **dict.fromkeys([f'"{KEY}"', f"'{KEY}'", f"`{KEY}`", f'{KEY}"', f"'{KEY}", f'{KEY}";'], QUOTES),
    f"\u201c{KEY}\u201d": "has a typographic character (U+201C) in it: copy it from JobsiteOn, not from a text",
    KEY.replace("_", "\u2013"): "has a typographic character (U+2013) in it: copy it from JobsiteOn, not from a text",
    f"\ufeff{KEY}": "has an invisible character (U+FEFF) in it: type it anew, or copy it without",
    f"{KEY}\u200b": "has an invisible character (U+200B) in it: type it anew, or copy it without",
    f"{KEY}\x1b[0m": "has an invisible character (U+001B) in it: type it anew, or copy it without",
    **dict.fromkeys([f"jso live {KEY}", f"{KEY}\u00a0{OLD_KEY}", f"{KEY} # ours", f"{KEY}\n{OLD_KEY}"], SPACE),
    **dict.fromkeys([f"Bearer {KEY}", f"bearer {KEY}", f"Token {KEY}", f"Bearer%20{KEY}"], SCHEME_WORD),
    **dict.fromkeys([f"X-Signature: {KEY}", f"X-Api-Key:{KEY}", f"Authorization: Bearer {KEY}"], COLON),
    f"API key: {KEY}": COLON,
    **dict.fromkeys([f"JOBSITEON_API_KEY={KEY}", f"export JOBSITEON_API_KEY={KEY}"], NAME),
    f"JOBSITEON_API_KEY: {KEY}": NAME,
    **dict.fromkeys([f"API_KEY={KEY}", f"key={KEY}"], "begins with a name and a =: write the key alone"),
    "sha256=" + "ab" * 32: "is a signature, not a key",
    f"{KEY}\\n": "ends with a backslash: is it the escape of a newline?",
    f"{KEY}\\r\\n": "ends with a backslash: is it the escape of a newline?",
    f"<{KEY}>": "is a placeholder: put a real API key there",
    **dict.fromkeys([f"[{KEY}]", f"{{{KEY}}}", f"({KEY})"], "has brackets around it: write it without"),
    **dict.fromkeys([f'["{KEY}"]', f'{{"key":"{KEY}"}}', f"['{KEY}', '{OLD_KEY}']"], JSON),
    **dict.fromkeys([f"{KEY},{OLD_KEY}", f"{KEY};{OLD_KEY}", f"{KEY},{OLD_KEY},{KEY}1"], SEVERAL),
    **dict.fromkeys([f"{KEY},", f"{KEY};"], "begins or ends with a comma or semicolon"),
    **dict.fromkeys(["jso_****", "jso_live_************9035", "jso_\u2022\u2022\u2022\u20229035"], MASKED),
    **dict.fromkeys(["jso_live_8f2c1d...", "jso_live_8f2c1d7e\u2026", "jso_...9035"], MASKED),
    "jso_live_xxxxxxxxxxxxxxxx": MASKED,
    "https://app.jobsiteon.com/settings/api": "is a URL: put the API key there",
    "redis://redis:6379/0": "is a URL: put the API key there",
    "/run/secrets/JOBSITEON_API_KEY": FILE,
    "./secrets/jobsiteon": FILE,
    KEY.replace("_", "%2B") + "%3D%3D": "is percent-encoded, as in a URL: write the key as it is shown",
    f"{KEY}&quot;": "has a character in the form of HTML: copy the key as it is shown",
    KEY * 2: "is the same text twice: pasted twice?",
    "$(cat /run/secrets/key)": "is a placeholder: put a real API key there",
    "{{ vault.jobsiteon.api_key }}": "is a placeholder: put a real API key there",
    "${JOBSITEON_KEY:?not set}": "is a placeholder: put a real API key there",
    "REDACTED-REDACTED": "is a placeholder: put a real API key there",
}


@pytest.mark.parametrize(("key", "problem"), BAD_KEYS.items(), ids=map(repr, BAD_KEYS))
def test_refuses_to_start_with_an_unusable_key(key: str, problem: str) -> None:
    """P10: one clear line, and P7: without the key."""
    said = problems(JOBSITEON_API_KEY=key)
    assert said == f"JOBSITEON_API_KEY: {problem}"
    assert KEY not in said
    if key.strip():
        assert problems(JOBSITEON_API_TOKEN=key) == f"JOBSITEON_API_TOKEN: {problem}"


@pytest.mark.parametrize("quoted", ['["{}","{}"]', '"{},{}"', "['{}', '{}']", "{};{}", "{}|{}"])
def test_refuses_previous_keys_in_another_form(quoted: str) -> None:
    """P10."""
    said = problems(JOBSITEON_PREVIOUS_API_KEYS=quoted.format(OLD_KEY, OLD_KEY[::-1]))
    assert re.fullmatch(r"JOBSITEON_PREVIOUS_API_KEYS: (is written as JSON|has quotes|is several keys).*", said)
    assert OLD_KEY not in said


@pytest.mark.parametrize("previous", [KEY, f"{OLD_KEY},{KEY}", f"{OLD_KEY},{OLD_KEY}"])
def test_the_previous_keys_are_others(previous: str) -> None:
    """P10: the old one has not been kept, and what is still signed with it would be refused."""
    said = "JOBSITEON_PREVIOUS_API_KEYS: has a key twice, or the current one: is an old key missing?"
    assert problems(JOBSITEON_PREVIOUS_API_KEYS=previous) == said


KEYS_OF_OTHERS = [
    "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "xoxb-263594206564-FGqddMF8t08v8N7Oq4i57vs1",
    "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",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jK-1B7bS7g==",
    "/ab/cd+ef/gh==aaaaaaaaaaa",
    "ABCD_EFGH_IJKL=mnopqrstuv",
    "key-3ax6xnjp29jd6fds4gc373sgvjxteol0",
    "id:8f2c1d7e4b6a90358f2c1d7e",
    "token.8f2c1d7e4b6a9035",
    "8f2c1d7e%4b6a9035(!)*&^#@",
    "cl\u00e9-de-l-entreprise-8f2c",
    "a,b;c|d,e;f|g,h;i|j",
]


@pytest.mark.parametrize("key", KEYS_OF_OTHERS)
def test_accepts_every_key_that_may_be_right(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: what JobsiteOn's look like is not documented."""
    monkeypatch.setenv("JOBSITEON_API_KEY", key)
    assert load_settings().signing_keys == (key.encode(),)


@given(key=st.text(string.ascii_letters + string.digits + "-._~+/", min_size=32, max_size=64))
def test_accepts_random_keys(key: str) -> None:
    """Of the characters that a bearer token is made of (RFC 6750); hypothesis likes what repeats itself."""
    assume(len(set(key)) > 10)
    assert unusable_key(key) is None or any(word in key.lower() for word in ("your", "example", "://", "...", "%"))


@pytest.mark.parametrize("secret", ['"whsec_{}"', "whsec_{}\\n", "<whsec_{}>", "JOBHOOK_FORWARD_SECRET=whsec_{}"])
def test_refuses_a_secret_that_is_pasted_wrongly(secret: str) -> None:
    """P10: `jobhook serve` too, though it is the workers that sign with it."""
    said = problems(JOBHOOK_FORWARD_SECRET=secret.format("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    assert said.startswith("JOBHOOK_FORWARD_SECRET: ")
    assert "MfKQ" not in said


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


def test_nobody_may_be_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty value would be the default."""
    monkeypatch.setenv("JOBHOOK_TRUSTED_PROXIES", "none")
    assert load_settings().trusted_proxies == ()


@pytest.mark.parametrize(
    ("text", "value"), [("off", False), ("no", False), ("0", False), ("False", False), ("on", True)]
)
def test_reads_switches_as_people_write_them(text: str, value: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBHOOK_REQUIRE_HTTPS", text)
    assert load_settings().require_https is value


SCHEME = "must begin with redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://"
SERVICE = "must name the service after the sentinels: redis+sentinel://host1,host2,host3/mymaster"
NODES = (
    "cannot be read: a password with / or @ in it has to be percent-encoded; "
    "sentinels are written host:port, separated by commas"
)
OPTION = "has an option that is not known here; those for Sentinel are sentinel_username, sentinel_password"

WRITE_CIDRS = "write addresses or CIDRs such as 10.0.0.0/8, separated by commas"

BAD_VALUES = {
    ("JOBHOOK_ALLOWED_IPS", "10.0.0.0/99"): WRITE_CIDRS,
    ("JOBHOOK_ALLOWED_IPS", "10.1.2.3/8"): "10.1.2.3/8 is an address within a network: write 10.1.2.3 or 10.0.0.0/8",
    ("JOBHOOK_ALLOWED_IPS", "10.0.0.4-10.0.0.9"): "10.0.0.4-10.0.0.9 is a range: write 10.0.0.4/30, 10.0.0.8/31",
    ("JOBHOOK_ALLOWED_IPS", "10.0.0.1-10.255.255.254"): WRITE_CIDRS,
    ("JOBHOOK_ALLOWED_IPS", "10.0.0.9-10.0.0.4"): WRITE_CIDRS,
    ("JOBHOOK_ALLOWED_IPS", "10.0.0.4-::9"): WRITE_CIDRS,
    ("JOBHOOK_ALLOWED_IPS", "10.0.0.1:443"): WRITE_CIDRS,
    ("JOBHOOK_ALLOWED_IPS", "*"): WRITE_CIDRS,
    ("JOBHOOK_ALLOWED_IPS", "none"): WRITE_CIDRS,
    ("JOBHOOK_ALLOWED_IPS", "::"): ":: is nobody's address: everybody is ::/0",
    ("JOBHOOK_ALLOWED_IPS", '"10.0.0.0/8"'): QUOTES,
    ("JOBHOOK_ALLOWED_IPS", "${OFFICE}"): "has a ${…} in it that nothing has replaced by a value",
    ("JOBHOOK_HANDLERS", "handlers JOBHOOK_ALLOWED_IPS=10.0.0.0/8"): "has another setting in it: write one a line",
    ("JOBHOOK_FORWARD_URLS", '"invoice.*=https://erp.internal/hooks"'): QUOTES,
    ("JOBHOOK_REQUIRE_HTTPS", "flase"): "Input should be true or false",
    ("JOBHOOK_WORKERS", "two"): "Input should be a whole number, such as 2",
    ("JOBHOOK_RETENTION", "7"): "write a duration such as 500ms, 90s, 1h30m or 30d; "
    "if 7 is meant in days, write 7d, and in seconds, write 7s",
    ("JOBHOOK_TRUSTED_PROXIES", "lb.internal"): WRITE_CIDRS,
    ("JOBHOOK_RETENTION", "a week"): "write a duration such as 500ms, 90s, 1h30m or 30d",
    ("JOBHOOK_MAX_BODY_BYTES", "lots"): "write a size such as 1048576, 500kB or 1MiB",
    ("JOBHOOK_DEDUPE_WINDOW", "6d"): "must not be shorter than JOBHOOK_RETENTION",
    ("JOBHOOK_ACK_BUDGET", "2s"): "must be under 2s, because JobsiteOn waits 5s and a body may take 3s to arrive",
    ("REDIS_URL", "http://redis:6379"): SCHEME,
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


# The page of settings


def test_the_table_lists_every_setting_with_its_default() -> None:
    table = [line for line in settings_table().splitlines() if line.startswith("| `")]
    assert len(table) == len(Settings.model_fields)
    assert all(field.description for field in Settings.model_fields.values())
    for name in Settings.model_fields:
        assert sum(row.startswith(f"| `{variable(name)}` | ") for row in table) == 1
    shown = {row.split(" | ")[0].strip("|` "): row.split(" | ")[1] for row in table}
    assert shown["JOBSITEON_API_KEY"] == "*required*"
    assert shown["JOBSITEON_PREVIOUS_API_KEYS"] == "*none*"
    assert shown["JOBHOOK_DEDUPE_WINDOW"] == "30d"
    assert shown["JOBHOOK_MAX_BODY_BYTES"] == "1MiB"
    assert shown["JOBHOOK_REQUIRE_HTTPS"] == "true"


def test_every_theme_has_its_settings_below_it() -> None:
    assert list(THEMES) == [name for name in Settings.model_fields if name in THEMES]
    assert re.findall("^## (.*)$", settings_table(), re.MULTILINE) == list(THEMES.values())


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
    monkeypatch.setenv("JOBSITEON_API_KEY", "4b1c8f0e2d7a6953c0ffee11d00dfeed")
    said = problems(JOBHOOK_SIGNATURE_KEY_FORM="hex", JOBSITEON_PREVIOUS_API_KEYS=OLD_KEY)
    assert said.startswith("JOBSITEON_PREVIOUS_API_KEYS: cannot be read as hex")


def test_the_default_scheme_is_the_one_that_is_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().signature_scheme == Scheme()
    for name, value in (IN_HEADER | {"JOBHOOK_SIGNATURE_TOLERANCE": "10m"}).items():
        monkeypatch.setenv(name, value)
    assert load_settings().signature_scheme == Scheme(
        content="{timestamp}.{body}", timestamp_header="X-Time", tolerance=600.0
    )
