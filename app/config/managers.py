"""Settings that a manager of secrets keeps: AWS Secrets Manager, Azure Key Vault, Google Secret Manager.

Each is asked with its vendor's own library, which finds the credentials of the machine or pod by itself. The
libraries are extras, imported only where one is named. pydantic-settings has sources for the same managers; they are
not used, because they set no limit to the time that a start may hang, and take what may not be read for missing.
"""

import json
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

from app.config.files import Entry
from app.config.names import is_known
from app.errors import ConfigError

CONNECT_SECONDS = 3
ANSWER_SECONDS = 5
"""Of each request to a manager. A few at most are made at a start."""
TRIES = 2
RETRY_SECONDS = 30.0
"""Until a manager that could not be read is asked again: who looks for changed keys would ask twice a second."""

FORMS = "aws:SECRET, azure:https://VAULT.vault.azure.net or google:PROJECT"


def read_manager(where: str) -> list[Entry]:
    """What a manager keeps under the names of settings; `where` has one of the `FORMS`.

    Of AWS, one secret is read: a JSON object, with a setting in each field. Of the others, each setting is a secret.
    Azure allows no underscores in names: `JOBSITEON-API-KEY` is `JOBSITEON_API_KEY`.

    Raises:
        ConfigError: it cannot be read, or its library is not installed.
    """
    vendor, _, what = where.strip().partition(":")
    if vendor not in _READERS or not what:
        raise ConfigError(f"write {FORMS}")
    failed_at, failure = _failures.get(where, (-math.inf, ""))
    if time.monotonic() - failed_at < RETRY_SECONDS:
        raise ConfigError(failure)
    read, packages = _READERS[vendor]
    try:
        found = read(what)
    except ImportError:
        raise ConfigError(
            f"{vendor} needs packages: add {packages} to requirements-handlers.txt, and install"
        ) from None
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - each library has a tree of errors of its own
        failure = f"{where} cannot be read ({_reason(error)})"
        _failures[where] = (time.monotonic(), failure)
        raise ConfigError(failure) from None
    return [Entry(name, text.strip(), where) for name, text in found]


def _named(names: Iterable[str], text_of: Callable[[str], str]) -> Iterable[tuple[str, str]]:
    """Asks for those only that are settings: what else is kept there is not ours to see."""
    for kept in names:
        name = kept.replace("-", "_")
        yield name, text_of(kept) if is_known(name) else ""


def _aws(secret: str) -> list[tuple[str, str]]:
    import boto3  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    limits = Config(connect_timeout=CONNECT_SECONDS, read_timeout=ANSWER_SECONDS, retries={"total_max_attempts": TRIES})
    answer = boto3.client("secretsmanager", config=limits).get_secret_value(SecretId=secret)
    try:
        fields = json.loads(answer["SecretString"])
    except (KeyError, ValueError):
        fields = None
    if not isinstance(fields, dict):
        raise ConfigError(f'aws:{secret} holds no JSON object: write {{"JOBSITEON_API_KEY": "…"}}')
    return [
        (name, text if isinstance(text, str) else json.dumps(text)) for name, text in fields.items() if text is not None
    ]


def _azure(vault: str) -> list[tuple[str, str]]:
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415
    from azure.keyvault.secrets import SecretClient  # noqa: PLC0415

    limits: dict[str, Any] = {
        "connection_timeout": CONNECT_SECONDS,
        "read_timeout": ANSWER_SECONDS,
        "retry_total": TRIES - 1,
    }
    with DefaultAzureCredential(**limits) as credential, SecretClient(vault, credential, **limits) as client:
        names = [kept.name for kept in client.list_properties_of_secrets() if kept.name and kept.enabled]
        return list(_named(names, lambda name: client.get_secret(name).value or ""))


def _google(project: str) -> list[tuple[str, str]]:
    from google.cloud.secretmanager import SecretManagerServiceClient  # noqa: PLC0415

    limits: dict[str, Any] = {"timeout": ANSWER_SECONDS}
    with SecretManagerServiceClient() as client:
        kept = client.list_secrets(request={"parent": f"projects/{project}"}, **limits)
        names = [secret.name.rpartition("/")[2] for secret in kept]

        def latest(name: str) -> str:
            version = f"projects/{project}/secrets/{name}/versions/latest"
            text: bytes = client.access_secret_version(request={"name": version}, **limits).payload.data
            return text.decode()

        return list(_named(names, latest))


_READERS = {
    "aws": (_aws, "boto3"),
    "azure": (_azure, "azure-identity and azure-keyvault-secrets"),
    "google": (_google, "google-cloud-secret-manager"),
}
"""How each is read, and the packages that it takes. Their names are also those of the extras of this package."""
_failures: dict[str, tuple[float, str]] = {}
"""When each manager could last not be read (monotonic clock), and why."""


def _reason(error: Exception) -> str:
    """What went wrong, without what was sent or found."""
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None  # botocore's
    return f"{type(error).__name__}: {code}" if code else type(error).__name__
