"""Settings: from the environment, an `.env` file and a folder of secret files; frozen once read."""

import difflib
import os
import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from dotenv import dotenv_values
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.connections import check_url
from app.durability import Durability
from app.errors import ConfigError
from app.signature import Algorithm, Encoding
from app.units import format_duration, format_size, parse_duration, parse_size

PREFIX = "JOBHOOK_"
MIN_KEY_LENGTH = 16
"""Characters. Shorter keys can be guessed; JobsiteOn's are longer."""
HARD_ACK_LIMIT = 5.0
"""Seconds in which JobsiteOn wants its 200 (API Security Best Practices)."""
LONGEST_SECONDS = 3650 * 86400.0
"""What anything may be kept for: ten years."""
BODY_SECONDS = 3.0
"""Seconds a body may take to arrive; with the ack budget it stays under the hard limit."""

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that prometheus-client reads when it is imported; `jobhook serve` sets it."""

_PLACEHOLDER = re.compile(
    r"(?i)change[-_ ]?me|your[-_ ]|placeholder|replace[-_ ]|example|^todo|secret[-_ ]?key$"
    r"|^<.*>$|^(.)\1*$|^\$\{?\w+\}?$"
)
_PASSWORD = re.compile(r"(?<=//)[^/]*(?=@)|(?<=password=)[^&]*")
"""In a URL."""
_API_URL = re.compile(r"https?://(?:[\w.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?(?:/[\w.~-]+)*/?", re.ASCII)
_LOOPBACK_URL = re.compile(r"http://(?:127(?:\.\d{1,3}){3}|localhost|\[::1\])(?=[:/]|$)")
_OWN_PREFIX = re.compile("^(JOBHOOK|JOBSITEON)_")


def _split(value: Any) -> Any:
    return [part for part in re.split(r"[\s,]+", value) if part] if isinstance(value, str) else value


_DURATION, _SIZE = BeforeValidator(parse_duration), BeforeValidator(parse_size)
Duration = Annotated[float, _DURATION]
Size = Annotated[int, _SIZE]
Network = IPv4Network | IPv6Network


class Settings(BaseSettings):
    """What can be set. Names have the prefix `JOBHOOK_` unless they carry their own."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="ignore",
        validate_by_name=True,
        validate_by_alias=True,
        validate_default=True,
        hide_input_in_errors=True,
    )

    api_key: SecretStr = Field(
        validation_alias="JOBSITEON_API_KEY", description="The API key with which JobsiteOn signs its webhooks."
    )
    previous_api_keys: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)] = Field(
        (),
        validation_alias="JOBSITEON_PREVIOUS_API_KEYS",
        description="Keys still accepted while rotating, separated by commas.",
    )
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        validation_alias="REDIS_URL",
        repr=False,
        description="Where Redis is: `redis://`, `rediss://` (TLS), `unix://`, or `redis+sentinel://` and `rediss+sentinel://`.",
    )
    require_https: bool = Field(True, description="Refuse what did not come over HTTPS.")
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        (ip_network("127.0.0.0/8"), ip_network("::1/128")),
        description="CIDRs of the load balancer: only its `X-Forwarded-*` headers are believed.",
    )
    allowed_ips: Annotated[tuple[Network, ...], NoDecode] = Field(
        (), description="CIDRs from which deliveries are accepted; empty means all."
    )
    max_body_bytes: Size = Field(1024**2, gt=0, le=64 * 1024**2, description="The largest body accepted.")
    ack_budget: Duration = Field(
        1.0, ge=0.05, description="How long recording a delivery may take before the sender gets a 503."
    )
    durability: Durability = Field(
        "fsync",
        description="What is waited for before the 200. `fsync`: the disk. `replica`: a replica's disk too. "
        "`memory`: Redis's memory.",
    )
    dedupe_window: Duration = Field(
        30 * 86400.0, ge=60, le=LONGEST_SECONDS, description="How long a redelivery is recognised."
    )
    retention: Duration = Field(
        7 * 86400.0, ge=60, le=LONGEST_SECONDS, description="How long a finished event's record is kept."
    )
    max_attempts: int = Field(12, ge=1, le=1000, description="Attempts before an event is dead.")
    handler_timeout: Duration = Field(30.0, ge=1, le=86400, description="How long an event's handlers may run.")
    workers: int = Field(2, ge=1, le=256, description="Worker processes.")
    handlers: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        ("workers.handlers",),
        min_length=1,
        description="Modules or packages in which handlers are found, separated by commas.",
    )
    forward_urls: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)] = Field(
        (), description="Where to forward events: `pattern=url` pairs, separated by commas."
    )
    forward_secret: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)] = Field(
        (), description="`whsec_…`, signs what is forwarded. While rotating, several: each signs."
    )
    signature_algorithm: Algorithm = Field("sha256", description="The hash of the HMAC (assumed: not documented).")
    signature_encoding: Encoding = Field("auto", description="`auto` accepts both `hex` and `base64`.")
    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on.")
    processes: int = Field(1, ge=1, le=64, description="Receiver processes.")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="`auto`: JSON unless on a terminal.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least level logged.")
    api_url: str = Field(
        "https://api.jobsiteon.com/v1",
        validation_alias="JOBSITEON_API_URL",
        description="Where the API client finds JobsiteOn's API.",
    )
    api_token: SecretStr | None = Field(
        None,
        validation_alias="JOBSITEON_API_TOKEN",
        description="The API client's own key, such as a read-only one; without it, `JOBSITEON_API_KEY` is used.",
    )
    api_plain_loopback: bool = Field(
        False, description="Accept a `JOBSITEON_API_URL` of `http://` on this machine itself: for a simulator only."
    )
    api_rate_limit: int = Field(100, ge=1, le=100_000, description="API requests per window and key, of all workers.")
    api_rate_window: Duration = Field(60.0, ge=1, le=86400, description="The window that the rate limit is counted in.")
    api_timeout: Duration = Field(
        10.0, ge=0.1, le=3600, description="How long a call of the API may take, all its tries together."
    )

    @property
    def signing_keys(self) -> tuple[bytes, ...]:
        """The current key, then the previous ones."""
        return tuple(
            key.get_secret_value().encode("utf-8", "surrogateescape") for key in (self.api_key, *self.previous_api_keys)
        )

    @field_validator("api_key", "previous_api_keys", "api_token")
    @classmethod
    def _usable_keys(cls, value: SecretStr | tuple[SecretStr, ...] | None) -> Any:
        secrets = value if isinstance(value, tuple) else () if value is None else (value,)
        for secret in secrets:
            key = secret.get_secret_value()
            if not key.strip():
                raise ValueError("is empty")
            if _PLACEHOLDER.search(key):
                raise ValueError("is a placeholder: put a real API key there")
            if len(key) < MIN_KEY_LENGTH:
                raise ValueError(f"is too short: a key has at least {MIN_KEY_LENGTH} characters")
            if key != key.strip():
                raise ValueError("begins or ends with white space")
        return value

    @field_validator("trusted_proxies", "allowed_ips", mode="before")
    @classmethod
    def _networks(cls, value: Any) -> Any:
        try:
            return tuple(ip_network(part) if isinstance(part, str) else part for part in _split(value))
        except ValueError:
            raise ValueError("write addresses or CIDRs such as 10.0.0.0/8, separated by commas") from None

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: str) -> str:
        check_url(value)
        return value

    @field_validator("api_url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        if not _API_URL.fullmatch(value):
            raise ValueError("write a URL such as https://api.jobsiteon.com/v1, without a query or a password")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.dedupe_window < self.retention:
            raise ValueError("JOBHOOK_DEDUPE_WINDOW: must not be shorter than JOBHOOK_RETENTION")
        if self.ack_budget + BODY_SECONDS >= HARD_ACK_LIMIT:
            raise ValueError(
                f"JOBHOOK_ACK_BUDGET: must be under {HARD_ACK_LIMIT - BODY_SECONDS:g}s, because JobsiteOn waits "
                f"{HARD_ACK_LIMIT:g}s and a body may take {BODY_SECONDS:g}s to arrive"
            )
        if not self.api_url.startswith("https://") and not (
            self.api_plain_loopback and _LOOPBACK_URL.match(self.api_url)
        ):
            raise ValueError("JOBSITEON_API_URL: must begin with https://")
        return self


def variable(name: str) -> str:
    """The environment variable of a field of `Settings`."""
    alias = Settings.model_fields[name].validation_alias
    return alias if isinstance(alias, str) else (PREFIX + name).upper()


ENV_FILE, SECRETS_DIR = PREFIX + "ENV_FILE", PREFIX + "SECRETS_DIR"
DEFAULT_SECRETS_DIR = "/run/secrets"


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process; `overrides` (by field name) win over every source.

    Sources, the first wins: the environment, the file `.env` (or `$JOBHOOK_ENV_FILE`), the files in
    `/run/secrets` (or `$JOBHOOK_SECRETS_DIR`), where Docker and Kubernetes put secrets.

    Raises:
        ConfigError: a value is missing or wrong, or an unknown `JOBHOOK_` name is set.
    """
    env_file, secrets_dir = _sources()
    if problems := list(_unknown_names(configured_names())):
        raise ConfigError("\n".join(problems))
    try:
        return Settings(
            _env_file=env_file,
            _secrets_dir=secrets_dir,
            **overrides,
        )
    except ValidationError as error:
        raise ConfigError("\n".join(_problems(error))) from None


def configured_names() -> set[str]:
    """The names, in capitals, that any source gives a value to; not only Jobhook's."""
    env_file, secrets_dir = _sources()
    names = [*os.environ, *(dotenv_values(env_file) if env_file else ())]
    if secrets_dir:
        names += [path.name for path in secrets_dir.iterdir()]
    return {name.upper() for name in names}


def configured_values() -> dict[str, str]:
    """What the environment and the `.env` file set of the settings, as it stands there."""
    env_file, _ = _sources()
    values = (dotenv_values(env_file) if env_file else {}) | dict(os.environ)
    known = {variable(name) for name in Settings.model_fields}
    return {name: value for name, value in values.items() if name in known and value is not None}


def _sources() -> tuple[Path | None, Path | None]:
    """The `.env` file and the secrets folder, as far as they exist."""
    env_file = Path(os.environ.get(ENV_FILE, ".env"))
    secrets_dir = Path(os.environ.get(SECRETS_DIR, DEFAULT_SECRETS_DIR))
    return env_file if env_file.is_file() else None, secrets_dir if secrets_dir.is_dir() else None


def _unknown_names(names: Iterable[str]) -> Iterable[str]:
    known = {variable(name) for name in Settings.model_fields} | {ENV_FILE, SECRETS_DIR}
    for name in sorted(set(names) - known):
        if name.startswith(PREFIX):
            # By what follows the prefix: who writes JOBHOOK_API_KEY means JOBSITEON_API_KEY.
            by_tail = {_OWN_PREFIX.sub("", setting): setting for setting in sorted(known)}
            nearest = difflib.get_close_matches(_OWN_PREFIX.sub("", name), by_tail, n=1)
            yield f"{name}: no such setting." + (f" Did you mean {by_tail[nearest[0]]}?" if nearest else "")


def _problems(error: ValidationError) -> Iterable[str]:
    fields = {variable(name): name for name in Settings.model_fields}
    for problem in error.errors(include_input=False, include_url=False):
        message = problem["msg"].removeprefix("Value error, ")
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "missing":
            message = "is not set. It is required: " + (Settings.model_fields[fields[name]].description or "")
        yield f"{name if name in fields else variable(name)}: {message}" if name else message


def settings_rows(settings: Settings | None = None) -> Iterable[tuple[str, str, str]]:
    """Variable, value and meaning of each setting; the defaults if no settings are given."""
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name) if settings else field.default
        shown = "*required*" if value is PydanticUndefined else _shown(value, field.metadata)
        shown = _PASSWORD.sub("***", shown)
        yield variable(name), shown, field.description or ""


def settings_table() -> str:
    """The settings and their defaults as a Markdown table, for the README."""
    rows = [f"| `{name}` | {shown} | {meaning} |" for name, shown, meaning in settings_rows()]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def _shown(value: Any, metadata: list[Any]) -> str:
    if value is None:
        return "*none*"
    if isinstance(value, tuple):
        return ", ".join(_shown(part, []) for part in value) or "*none*"
    if isinstance(value, bool):
        return str(value).lower()
    if _DURATION in metadata:
        return format_duration(value)
    return format_size(value) if _SIZE in metadata else str(value)
