"""Settings from a manager of secrets: AWS's own library against a stand-in for its server (P10)."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config import managers
from app.config.keys import signing_keys
from app.config.reload import Reloader
from app.config.sources import configured_values, load_settings, places
from app.errors import ConfigError
from tests.support.aws import SECRET, SecretsManager, secrets_manager

KEY, NEW = "jso_live_8f2c1d7e4b6a9035", "jso_live_0a1b2c3d4e5f6789"


@pytest.fixture(autouse=True)
def _nothing_has_failed() -> Iterator[None]:
    yield
    managers._failures.clear()


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SecretsManager]:
    monkeypatch.chdir(tmp_path)
    with secrets_manager() as manager:
        for name, text in manager.environment.items():
            monkeypatch.setenv(name, text)
        monkeypatch.delenv("JOBSITEON_API_KEY", raising=False)
        yield manager


def problem() -> str:
    with pytest.raises(ConfigError) as raised:
        load_settings()
    return str(raised.value)


def test_what_is_kept_there_are_settings(manager: SecretsManager) -> None:
    manager.keep(JOBSITEON_API_KEY=KEY, jobsiteon_previous_api_keys=NEW, JOBHOOK_WORKERS=3, JOBHOOK_PORT=None)
    settings = load_settings()
    assert settings.signing_keys == (KEY.encode(), NEW.encode())
    assert settings.workers == 3
    assert places()["JOBSITEON_API_KEY"] == f"aws:{SECRET}"
    assert "JOBSITEON_API_KEY" not in configured_values()


def test_every_other_source_goes_before_it(manager: SecretsManager, monkeypatch: pytest.MonkeyPatch) -> None:
    manager.keep(JOBSITEON_API_KEY=KEY)
    monkeypatch.setenv("JOBSITEON_API_KEY", NEW)
    assert load_settings().signing_keys == (NEW.encode(),)


def test_it_may_be_named_in_the_env_file(
    manager: SecretsManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("JOBHOOK_SECRETS_MANAGER")
    file = tmp_path / "own.env"
    file.write_text(f"JOBHOOK_SECRETS_MANAGER=aws:{SECRET}\n")
    monkeypatch.setenv("JOBHOOK_ENV_FILE", str(file))
    manager.keep(JOBSITEON_API_KEY=KEY)
    assert load_settings().signing_keys == (KEY.encode(),)


def test_an_unknown_name_is_refused_as_anywhere(manager: SecretsManager) -> None:
    manager.keep(JOBSITEON_API_KEY=KEY, JOBSITEON_PREVIOUS_KEYS=NEW, password="another program's")
    assert problem() == (
        f"JOBSITEON_PREVIOUS_KEYS: no such setting. Did you mean JOBSITEON_PREVIOUS_API_KEYS? (aws:{SECRET})"
    )


def test_a_wrong_value_is_said_with_its_place(manager: SecretsManager) -> None:
    manager.keep(JOBSITEON_API_KEY=f'"{KEY}"')
    assert problem() == f"JOBSITEON_API_KEY: has quotes around it: write it without (aws:{SECRET})"


@pytest.mark.parametrize("text", [KEY, "[]", "null", '"text"', None])
def test_what_is_no_object_is_refused(manager: SecretsManager, text: str | None) -> None:
    manager.text = text
    assert problem() == (
        f'JOBHOOK_SECRETS_MANAGER: aws:{SECRET} holds no JSON object: write {{"JOBSITEON_API_KEY": "…"}}'
    )


def test_what_cannot_be_read_is_said_by_its_code(manager: SecretsManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: and with no word of the answer."""
    manager.denied = True
    assert problem() == f"JOBHOOK_SECRETS_MANAGER: aws:{SECRET} cannot be read (ClientError: AccessDeniedException)"
    manager.denied = False
    monkeypatch.setenv("JOBHOOK_SECRETS_MANAGER", "aws:another")
    assert "aws:another cannot be read" in problem()
    assert "ResourceNotFoundException" in problem()


@pytest.mark.parametrize("where", ["aws", "aws:", ":x", "vault:secret/jobhook", "arn:aws:secretsmanager:x"])
def test_the_form_is_said(manager: SecretsManager, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setenv("JOBHOOK_SECRETS_MANAGER", where)
    assert problem() == (
        "JOBHOOK_SECRETS_MANAGER: write aws:SECRET, azure:https://VAULT.vault.azure.net or google:PROJECT"
    )
    assert not manager.asked


@pytest.mark.parametrize(
    ("where", "package", "added"),
    [
        ("aws:x", "boto3", "boto3"),
        ("azure:https://x.vault.azure.net", "azure.identity", "azure-identity and azure-keyvault-secrets"),
        ("google:x", "google.cloud.secretmanager", "google-cloud-secret-manager"),
    ],
)
def test_a_library_that_is_missing_is_named(
    manager: SecretsManager, monkeypatch: pytest.MonkeyPatch, where: str, package: str, added: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setenv("JOBHOOK_SECRETS_MANAGER", where)
    assert problem() == (
        f"JOBHOOK_SECRETS_MANAGER: {where.partition(':')[0]} needs packages: "
        f"add {added} to requirements-handlers.txt, and install"
    )


def test_a_sighup_has_the_keys_read_anew(manager: SecretsManager) -> None:
    """What is wrong there changes nothing."""
    manager.keep(JOBSITEON_API_KEY=KEY)
    reloader = Reloader(load_settings(), lambda _: None)
    for _ in range(3):
        reloader.look()
    manager.keep(JOBSITEON_API_KEY=NEW, JOBSITEON_PREVIOUS_API_KEYS=KEY)
    reloader.ask()
    reloader.look()
    assert [key.role for key in signing_keys(reloader.settings)] == ["current", "previous"]
    manager.denied = True
    reloader.ask()
    reloader.look()
    assert "cannot be read" in (reloader.problem or "")
    assert reloader.settings.signing_keys == (NEW.encode(), KEY.encode())
    asked = len(manager.asked)
    for _ in range(5):
        reloader.look()
    assert len(manager.asked) == asked, "what looks twice a second is no reason to ask twice a second"
    managers._failures.clear()  # half a minute later
    manager.denied = False
    reloader.look()
    assert reloader.problem is None
