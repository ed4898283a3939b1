"""What can be set, with its default, its limits and its meaning; frozen once made."""

import re
from collections.abc import Callable
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from app.config.networks import Network, read_networks, split
from app.config.pasted import unusable_key, unusable_text, wrongly_pasted
from app.delivery.envelope import Paths, check_path
from app.delivery.scheme import TOLERANCE_SECONDS, Algorithm, Encoding, KeyForm, Scheme
from app.delivery.signature import Verifier
from app.store.connections import check_url
from app.store.durability import Durability
from app.units import parse_duration, parse_size

PREFIX = "JOBHOOK_"
HARD_ACK_LIMIT = 5.0
"""Seconds in which JobsiteOn wants its 200 (API Security Best Practices)."""
LONGEST_SECONDS = 3650 * 86400.0
"""What anything may be kept for: ten years."""
BODY_SECONDS = 3.0
"""Seconds a body may take to arrive; with the ack budget it stays under the hard limit."""

NOBODY = "none"
"""As the trusted proxies: an empty value would be the default."""

KEY_FIELDS = ("api_key", "previous_api_keys", "api_token")
"""JobsiteOn's keys: what is read anew while a process runs, and nothing else."""
_KEYS = {*KEY_FIELDS, "forward_secret"}
"""Fields whose texts have checks of their own, after they have been split."""
_API_URL = re.compile(r"https?://(?:[\w.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?(?:/[\w.~-]+)*/?", re.ASCII)
_PUBLIC_URL = re.compile(r"https?://[!-~]+", re.ASCII)
_LOOPBACK_URL = re.compile(r"http://(?:127(?:\.\d{1,3}){3}|localhost|\[::1\])(?=[:/]|$)")


_ALERT_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S*", re.IGNORECASE)


def split_urls(value: Any) -> Any:
    """URLs separated by commas or white space; a comma within one belongs to it unless another URL follows."""
    if not isinstance(value, str):
        return value
    return [part for part in re.split(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)|\s+", value.strip(" \t\r\n,")) if part]


def _encoded(key: SecretStr) -> bytes:
    return key.get_secret_value().encode("utf-8", "surrogateescape")


DURATION, SIZE = BeforeValidator(parse_duration), BeforeValidator(parse_size)
Duration = Annotated[float, DURATION]
Size = Annotated[int, SIZE]


def _checked(value: SecretStr | tuple[SecretStr, ...] | None, check: Callable[[str], str | None]) -> Any:
    secrets = value if isinstance(value, tuple) else () if value is None else (value,)
    for secret in secrets:
        if problem := check(secret.get_secret_value()):
            raise ValueError(problem)
    return value


class Settings(BaseSettings):
    """What can be set. Names have the prefix `JOBHOOK_` unless they carry their own."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        validate_by_alias=True,
        validate_default=True,
        hide_input_in_errors=True,
    )

    api_key: SecretStr = Field(
        validation_alias="JOBSITEON_API_KEY", description="The API key with which JobsiteOn signs its webhooks."
    )
    previous_api_keys: Annotated[tuple[SecretStr, ...], BeforeValidator(split)] = Field(
        (),
        validation_alias="JOBSITEON_PREVIOUS_API_KEYS",
        description="Keys still accepted while rotating, separated by commas.",
    )
    require_https: bool = Field(True, description="Refuse what did not come over HTTPS.")
    trusted_proxies: tuple[Network, ...] = Field(
        (ip_network("127.0.0.0/8"), ip_network("::1/128")),
        description="CIDRs of the load balancer: only its `X-Forwarded-*` headers are believed. `none`: nobody's.",
    )
    allowed_ips: tuple[Network, ...] = Field(
        (), description="CIDRs from which deliveries are accepted; empty means all."
    )
    max_body_bytes: Size = Field(1024**2, gt=0, le=64 * 1024**2, description="The largest body accepted.")
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        validation_alias="REDIS_URL",
        repr=False,
        description="Where Redis is: `redis://`, `rediss://` (TLS), `unix://`, or `redis+sentinel://` and `rediss+sentinel://`.",
    )
    ack_budget: Duration = Field(
        1.0, ge=0.05, description="How long recording a delivery may take before the sender gets a 503."
    )
    durability: Durability = Field(
        "fsync",
        description="What is waited for before the 200. `fsync`: the disk. `replica`: a replica's disk too. "
        "`memory`: Redis's memory. `service`: nothing more than the answer, of a managed Redis that gives it when the "
        "write is durable.",
    )
    dedupe_window: Duration = Field(
        30 * 86400.0, ge=60, le=LONGEST_SECONDS, description="How long a redelivery is recognised."
    )
    same_id: Literal["compare", "duplicate"] = Field(
        "compare",
        description="What a known event id means: `compare` type and business object (others are a conflict), "
        "or `duplicate` whatever else is said.",
    )
    event_id_path: str | None = Field(
        None, description="Where payloads keep the event's id, such as `meta.event_id`; tried before the usual places."
    )
    type_path: str | None = Field(None, description="The same for the event's type.")
    time_path: str | None = Field(None, description="The same for when it occurred.")
    resource_path: str | None = Field(None, description="The same for the id of what it is about.")
    retention: Duration = Field(
        7 * 86400.0, ge=60, le=LONGEST_SECONDS, description="How long a finished event's record is kept."
    )
    rejected_bytes: Size = Field(
        32 * 1024**2,
        ge=0,
        le=1024**3,
        description="What deliveries with a bad signature may take in Redis, all together, for `jobhook rejected`: the "
        "oldest go first. `0` keeps none.",
    )
    rejected_for: Duration = Field(
        72 * 3600.0, ge=60, le=LONGEST_SECONDS, description="How long each of them is kept at most."
    )
    max_attempts: int = Field(12, ge=1, le=1000, description="Attempts of a handler before it gives an event up.")
    retry_for: Duration = Field(
        28 * 3600.0,
        ge=1,
        le=LONGEST_SECONDS,
        description="How long an event is tried again, from its first attempt on, waits included. "
        "Unless it is set: as long as `JOBHOOK_MAX_ATTEMPTS` take, if that is longer.",
    )
    handler_timeout: Duration = Field(30.0, ge=1, le=86400, description="How long an event's handlers may run.")
    workers: int = Field(2, ge=1, le=256, description="Worker processes.")
    worker_max_events: int = Field(0, ge=0, description="Events after which a worker is replaced; 0: never.")
    worker_max_memory: Size = Field(
        0, ge=0, description="Resident memory above which a worker is replaced after its event; 0: never."
    )
    handlers: Annotated[tuple[str, ...], BeforeValidator(split)] = Field(
        ("workers.handlers",),
        min_length=1,
        description="Modules or packages in which handlers are found, separated by commas.",
    )
    forward_urls: Annotated[tuple[SecretStr, ...], BeforeValidator(split)] = Field(
        (), description="Where to forward events: `pattern=url` pairs, separated by commas."
    )
    forward_secret: Annotated[tuple[SecretStr, ...], BeforeValidator(split)] = Field(
        (), description="`whsec_…`, signs what is forwarded. While rotating, several: each signs."
    )
    alert_urls: Annotated[tuple[SecretStr, ...], BeforeValidator(split_urls)] = Field(
        (),
        description="Whom the workers tell when something is wrong: URLs of the library apprise, such as "
        "`mailto://…` or `slack://…`, separated by commas. Secret. Needs the package `apprise`.",
    )
    alert_failures: int = Field(
        25, ge=0, le=100, description="Percent of attempts that fail within 15 minutes; 0: never told."
    )
    alert_backlog: Duration = Field(
        600.0, ge=0, le=LONGEST_SECONDS, description="How long an event waits in line, untouched; `0s`: never told."
    )
    alert_silence: Duration = Field(
        86400.0,
        ge=0,
        le=LONGEST_SECONDS,
        description="How long no delivery comes where there used to be some; `0s`: never told.",
    )
    alert_pauses: Duration = Field(
        4 * 3600.0,
        ge=0,
        le=LONGEST_SECONDS,
        description="How long a pause without an end, or `rq suspend`, lasts; `0s`: never told.",
    )
    signature_header: str = Field("X-Signature", description="The header that holds the signature.")
    signature_algorithm: Algorithm = Field(
        "sha256", description="The hash of the HMAC (assumed: not documented): `sha256`, `sha384`, `sha512` or `sha1`."
    )
    signature_encoding: Encoding = Field(
        "auto", description="`auto` accepts both `hex` and `base64`; or `base64-of-hex`: the digits themselves encoded."
    )
    signature_form: str = Field(
        "auto",
        description="How the header is written, such as `t={timestamp},v1={signature}`. `auto`: the signature alone, "
        "or after `sha256=`, `hmac-sha256=`, `v1=` or `v1,`.",
    )
    signature_content: str = Field(
        "{body}",
        description="What is signed: `{body}`, `{timestamp}`, `{id}`, `{url}`, `{method}`, `{path}` (with the query) "
        "and text between them; `\\n` is a new line.",
    )
    signature_timestamp_header: str | None = Field(None, description="The header of the signed `{timestamp}`.")
    signature_id_header: str | None = Field(None, description="The header of the signed `{id}`.")
    signature_key_form: KeyForm = Field(
        "text",
        description="How the key becomes bytes: `text` as it is; decoded from `hex` or `base64` (after `whsec_` too); "
        "hashed with `sha1`, `sha256` or `sha512`, or the hash's digits: `sha256-hex` and so on.",
    )
    signature_tolerance: Duration = Field(
        TOLERANCE_SECONDS,
        ge=1,
        le=LONGEST_SECONDS,
        description="By how much a signed timestamp may differ from the clock. A retry that keeps its first timestamp "
        "is refused when it comes later.",
    )
    public_url: str | None = Field(
        None,
        description="The URL that is registered with JobsiteOn, for a signature over `{url}`: exactly as it is there.",
    )
    host: Annotated[str, StringConstraints(strip_whitespace=True)] = Field(
        "127.0.0.1", description="The address to listen on."
    )
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
        return tuple(map(_encoded, (self.api_key, *self.previous_api_keys)))

    @property
    def signature_scheme(self) -> Scheme:
        """How deliveries are signed."""
        return Scheme(
            header=self.signature_header,
            algorithm=self.signature_algorithm,
            encoding=self.signature_encoding,
            form=self.signature_form,
            content=self.signature_content,
            timestamp_header=self.signature_timestamp_header or "",
            id_header=self.signature_id_header or "",
            key_form=self.signature_key_form,
            url=self.public_url or "",
            tolerance=self.signature_tolerance,
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is handed in: `load_settings` reads the sources, because pydantic-settings leaves out what it
        cannot read.
        """
        return (init_settings,)

    @property
    def envelope_paths(self) -> Paths:
        """Where payloads keep things, as far as it is set."""
        return Paths(self.event_id_path, self.type_path, self.time_path, self.resource_path)

    @field_validator("api_key", "previous_api_keys", "api_token")
    @classmethod
    def _usable_keys(cls, value: SecretStr | tuple[SecretStr, ...] | None) -> Any:
        return _checked(value, unusable_key)

    @field_validator("forward_secret")
    @classmethod
    def _usable_secrets(cls, value: tuple[SecretStr, ...]) -> Any:
        return _checked(value, wrongly_pasted)

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _proxies(cls, value: Any) -> Any:
        return () if value == NOBODY else read_networks(value)

    @field_validator("allowed_ips", mode="before")
    @classmethod
    def _networks(cls, value: Any) -> Any:
        return read_networks(value)

    # Of those before, the one that stands last goes first.
    @field_validator("*", mode="before")
    @classmethod
    def _usable_text(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and info.field_name not in _KEYS and (problem := unusable_text(value)):
            raise ValueError(problem)
        return value

    @field_validator("event_id_path", "type_path", "time_path", "resource_path")
    @classmethod
    def _dotted_path(cls, value: str | None) -> str | None:
        if value is not None:
            check_path(value)
        return value

    @field_validator("alert_urls")
    @classmethod
    def _alert_urls(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for number, url in enumerate(value, 1):
            if not _ALERT_URL.fullmatch(url.get_secret_value()):
                raise ValueError(f"number {number} is no URL: write URLs such as mailto://user:password@example.com")
        return value

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

    @field_validator("public_url")
    @classmethod
    def _public_url(cls, value: str | None) -> str | None:
        if value is not None and not _PUBLIC_URL.fullmatch(value):
            raise ValueError("write the whole URL, such as https://hooks.example.com/webhooks/jobsiteon")
        return value

    @model_validator(mode="after")
    def _verifiable(self) -> Self:
        """Whether the settings of the signature, taken together, are a scheme that can be verified."""
        scheme = self.signature_scheme
        named = {"JOBSITEON_API_KEY": (self.api_key,), "JOBSITEON_PREVIOUS_API_KEYS": self.previous_api_keys}
        for name, keys in named.items():
            for key in keys:
                try:
                    scheme.key_bytes(_encoded(key))
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
        Verifier(self.signing_keys, scheme)
        if "signature_tolerance" in self.model_fields_set and not scheme.signs_time:
            raise ValueError(
                "JOBHOOK_SIGNATURE_TOLERANCE: is not used, because JOBHOOK_SIGNATURE_CONTENT does not name {timestamp}"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.signing_keys)) <= len(self.previous_api_keys):
            raise ValueError("JOBSITEON_PREVIOUS_API_KEYS: has a key twice, or the current one: is an old key missing?")
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
