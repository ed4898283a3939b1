"""Keys that change while a process runs: taken over whole, or not at all (P10)."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.config.keys import fingerprint, signing_keys
from app.config.reload import Reloader
from app.config.settings import Settings
from app.config.sources import load_settings
from app.errors import ConfigError

OLD, NEW, OTHER = (f"{name}-key-of-the-tests-0123456789" for name in ("old", "new", "other"))

HEX = "00112233445566778899aabbccddeeff"

Use = Callable[[Settings], None]


def keys_of(settings: Settings) -> list[str]:
    return [key.decode() for key in settings.signing_keys]


def in_dotenv(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


@pytest.fixture
def dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `.env` file in the current folder, with a key."""
    monkeypatch.delenv("JOBHOOK_ENV_FILE")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / ".env"
    file.write_text(in_dotenv(f"JOBSITEON_API_KEY={OLD}"))
    return file


def started(use: Use = lambda _: None) -> Reloader:
    """One that has seen its files as they are."""
    reloader = Reloader(load_settings(), use)
    settle(reloader)
    return reloader


def settle(reloader: Reloader) -> None:
    """As many looks as it takes until a change is in force."""
    for _ in range(3):
        reloader.look()


def swap(file: Path, text: str) -> None:
    """Puts another file into its place in one step."""
    other = file.with_name("other")
    other.write_text(text)
    other.replace(file)


def test_a_changed_env_file_is_taken_over(dotenv: Path) -> None:
    used: list[Settings] = []
    reloader = started(used.append)
    assert used == []
    swap(dotenv, in_dotenv(f"JOBSITEON_API_KEY={NEW}", f"JOBSITEON_PREVIOUS_API_KEYS={OLD}"))
    with capture_logs() as logs:
        settle(reloader)
    assert [keys_of(settings) for settings in used] == [[NEW, OLD]]
    assert keys_of(reloader.settings) == [NEW, OLD]
    (line,) = logs
    current, previous = (key.fingerprint for key in signing_keys(reloader.settings))
    assert (line["event"], line["current"], line["previous"]) == ("keys reloaded", current, [previous])


def test_the_second_look_after_a_change_takes_it_over(dotenv: Path) -> None:
    """So that it takes no longer than two times the half second between looks."""
    reloader = started()
    swap(dotenv, in_dotenv(f"JOBSITEON_API_KEY={NEW}"))
    reloader.look()
    assert keys_of(reloader.settings) == [OLD]
    reloader.look()
    assert keys_of(reloader.settings) == [NEW]


def test_a_file_that_is_being_written_is_left_alone(dotenv: Path) -> None:
    """Half a key is a key as well, and half a list of keys is a list."""
    reloader = started()
    text = in_dotenv(f"JOBSITEON_API_KEY={NEW}", f"JOBSITEON_PREVIOUS_API_KEYS={OLD},{OTHER}")
    with dotenv.open("w") as file, capture_logs() as logs:
        for piece in (text[:40], text[40:100], text[100:]):
            reloader.look()
            file.write(piece)
            file.flush()
            assert keys_of(reloader.settings) == [OLD]
    settle(reloader)
    assert keys_of(reloader.settings) == [NEW, OLD, OTHER]
    assert logs == []


def test_a_file_that_changes_while_it_is_read_is_read_again(dotenv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reloader = started()
    read = Path.read_bytes

    def read_and_swap(file: Path) -> bytes:
        content = read(file)
        monkeypatch.setattr(Path, "read_bytes", read)
        swap(dotenv, in_dotenv(f"JOBSITEON_API_KEY={NEW}"))
        return content

    swap(dotenv, in_dotenv(f"JOBSITEON_API_KEY={OTHER}"))
    reloader.look()
    monkeypatch.setattr(Path, "read_bytes", read_and_swap)
    reloader.look()
    assert keys_of(reloader.settings) == [OLD]
    settle(reloader)
    assert keys_of(reloader.settings) == [NEW]


BAD = {
    "empty": "",
    "no key": "JOBSITEON_PREVIOUS_API_KEYS={OLD}",
    "an empty key": "JOBSITEON_API_KEY=",
    "a placeholder": "JOBSITEON_API_KEY=change-me",
    "a key twice": "JOBSITEON_API_KEY={NEW}\nJOBSITEON_PREVIOUS_API_KEYS={NEW}",
    "another setting wrong": "JOBSITEON_API_KEY={NEW}\nJOBHOOK_WORKERS=many",
    "a typing error": "JOBSITEON_API_KEY={NEW}\nJOBSITEON_PREVIOUS_KEYS={OLD}",
    "no line of settings": "JOBSITEON_API_KEY={NEW}\nhello",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_what_is_wrong_changes_nothing_and_is_said_once(dotenv: Path, text: str) -> None:
    reloader = started()
    swap(dotenv, text.format(NEW=NEW, OLD=OLD))
    with capture_logs() as logs:
        settle(reloader)
        settle(reloader)
    assert keys_of(reloader.settings) == [OLD]
    (line,) = logs
    assert line["event"] == "keys not reloaded: those in force stay"
    assert line["problem"] == reloader.problem
    assert NEW not in str(logs)
    assert OLD not in str(logs)

    swap(dotenv, in_dotenv(f"JOBSITEON_API_KEY={NEW}"))
    with capture_logs() as logs:
        settle(reloader)
    assert keys_of(reloader.settings) == [NEW]
    assert reloader.problem is None
    assert [line["event"] for line in logs] == ["keys reloaded"]


def test_a_file_that_is_gone_changes_nothing(dotenv: Path) -> None:
    reloader = started()
    dotenv.unlink()
    settle(reloader)
    assert keys_of(reloader.settings) == [OLD]
    assert reloader.problem
    swap(dotenv, in_dotenv(f"JOBSITEON_API_KEY={OLD}"))
    with capture_logs() as logs:
        settle(reloader)
    assert [line["event"] for line in logs] == ["keys read: as before"]
    assert not reloader.problem


def test_what_its_user_refuses_is_not_in_force(dotenv: Path) -> None:
    def refuse(_: Settings) -> None:
        raise ConfigError("JOBSITEON_API_TOKEN: has characters that no HTTP header can carry")

    reloader = started(refuse)
    swap(dotenv, in_dotenv(f"JOBSITEON_API_KEY={NEW}"))
    settle(reloader)
    assert keys_of(reloader.settings) == [OLD]
    assert reloader.problem == "JOBSITEON_API_TOKEN: has characters that no HTTP header can carry"


def test_other_settings_wait_for_a_restart_and_that_is_said(dotenv: Path) -> None:
    reloader = started()
    swap(dotenv, in_dotenv(f"JOBSITEON_API_KEY={NEW}", "JOBHOOK_WORKERS=7", "JOBHOOK_RETENTION=1d"))
    with capture_logs() as logs:
        settle(reloader)
        settle(reloader)
    assert keys_of(reloader.settings) == [NEW]
    assert reloader.settings.workers == 2
    assert reloader.outdated == ("JOBHOOK_RETENTION", "JOBHOOK_WORKERS")
    (line,) = (line for line in logs if line["log_level"] == "warning")
    assert line["names"] == reloader.outdated
    swap(dotenv, in_dotenv(f"JOBSITEON_API_KEY={NEW}"))
    settle(reloader)
    assert not reloader.outdated


def test_a_key_in_another_form_waits_for_the_setting_of_the_form(dotenv: Path) -> None:
    """P10: the setting needs a restart, and until then the key would verify nothing."""
    dotenv.write_text(in_dotenv(f"JOBSITEON_API_KEY={HEX}", "JOBHOOK_SIGNATURE_KEY_FORM=hex"))
    reloader = started()
    swap(dotenv, in_dotenv(f"JOBSITEON_API_KEY={NEW}"))
    settle(reloader)
    assert keys_of(reloader.settings) == [HEX]
    assert reloader.problem
    assert "restart" in reloader.problem


def folder_of_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("JOBHOOK_SECRETS_DIR", str(folder))
    return folder


def mount(folder: Path, name: str, **secrets: str) -> None:
    """As Kubernetes does: a new folder of files, and one symlink that is swapped."""
    data = folder / f"..{name}"
    data.mkdir()
    for secret, text in secrets.items():
        (data / secret).write_text(text)
    link = folder / "..data_tmp"
    link.symlink_to(data.name)
    link.replace(folder / "..data")
    for secret in secrets:
        if not (folder / secret).is_symlink():
            (folder / secret).symlink_to(f"..data/{secret}")


def test_a_swap_as_kubernetes_does_it_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of_secrets(tmp_path, monkeypatch)
    mount(folder, "2026_01", JOBSITEON_API_KEY=OLD)
    reloader = started()
    mount(folder, "2026_02", JOBSITEON_API_KEY=NEW, JOBSITEON_PREVIOUS_API_KEYS=OLD)
    settle(reloader)
    assert keys_of(reloader.settings) == [NEW, OLD]


def test_a_secret_that_is_a_symlink_to_another_file_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of_secrets(tmp_path, monkeypatch)
    for version, key in enumerate((OLD, NEW)):
        (tmp_path / f"v{version}").write_text(key)
    link = folder / "JOBSITEON_API_KEY"
    link.symlink_to(tmp_path / "v0")
    reloader = started()
    link.unlink()
    link.symlink_to(tmp_path / "v1")
    settle(reloader)
    assert keys_of(reloader.settings) == [NEW]


def test_a_secret_that_is_written_over_in_its_place_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As through a bind mount of a single file. It may be as long as before."""
    file = folder_of_secrets(tmp_path, monkeypatch) / "JOBSITEON_API_KEY"
    file.write_text(OLD)
    reloader = started()
    file.write_text(NEW)
    os.utime(file, ns=(0, 0))  # tools that copy the times of what they copy
    settle(reloader)
    assert keys_of(reloader.settings) == [NEW]


def test_one_that_is_asked_reads_at_once_and_says_so(dotenv: Path) -> None:
    reloader = started()
    reloader.ask()
    with capture_logs() as logs:
        reloader.look()
    assert [line["event"] for line in logs] == ["keys read: as before"]
    swap(dotenv, in_dotenv(f"JOBSITEON_API_KEY={NEW}"))
    reloader.ask()
    reloader.look()
    assert keys_of(reloader.settings) == [NEW]


def test_keys_of_the_environment_are_said_to_need_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBSITEON_API_KEY", OLD)
    reloader = started()
    reloader.ask()
    with capture_logs() as logs:
        reloader.look()
    assert logs[-1]["event"] == "keys set in the environment change with a restart only"
    assert logs[-1]["names"] == ["JOBSITEON_API_KEY"]


def test_a_key_in_a_file_that_the_environment_hides_is_said_to_be_of_no_use(
    dotenv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBSITEON_API_KEY", OLD)
    reloader = started()
    swap(dotenv, in_dotenv(f"JOBSITEON_API_KEY={NEW}"))
    with capture_logs() as logs:
        settle(reloader)
    assert keys_of(reloader.settings) == [OLD]
    (line,) = logs
    assert "JOBSITEON_API_KEY" in line["note"]
    assert "the environment says something else" in line["note"]


def test_a_changed_folder_does_not_change_where_keys_are_looked_for(
    dotenv: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler may have changed it."""
    reloader = started()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / ".env").write_text(in_dotenv(f"JOBSITEON_API_KEY={OTHER}"))
    monkeypatch.chdir(elsewhere)
    settle(reloader)
    assert keys_of(reloader.settings) == [OLD]
    swap(dotenv, in_dotenv(f"JOBSITEON_API_KEY={NEW}"))
    settle(reloader)
    assert keys_of(reloader.settings) == [NEW]


def test_a_folder_that_cannot_be_read_any_more_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of_secrets(tmp_path, monkeypatch)
    (folder / "JOBSITEON_API_KEY").write_text(OLD)
    reloader = started()
    folder.rename(tmp_path / "elsewhere")
    folder.write_text("")
    with capture_logs() as logs:
        settle(reloader)
        settle(reloader)
    assert keys_of(reloader.settings) == [OLD]
    (line,) = logs
    assert "is a file, not a folder" in line["problem"]


def test_a_quiet_one_says_what_is_wrong_for_its_process_alone(dotenv: Path) -> None:
    def refuse(_: Settings) -> None:
        raise ConfigError("JOBSITEON_API_TOKEN: has characters that no HTTP header can carry")

    reloader = Reloader(load_settings(), refuse, tells=False)
    settle(reloader)
    swap(dotenv, in_dotenv(f"JOBSITEON_API_KEY={NEW}"))
    with capture_logs() as logs:
        settle(reloader)
        settle(reloader)
    assert [line["log_level"] for line in logs] == ["error"]


def test_a_quiet_one_leaves_the_rest_to_another(dotenv: Path) -> None:
    reloader = Reloader(load_settings(), lambda _: None, tells=False)
    settle(reloader)
    swap(dotenv, "")
    reloader.ask()
    with capture_logs() as logs:
        settle(reloader)
    assert reloader.problem
    assert {line["log_level"] for line in logs} == {"debug"}


def test_a_fingerprint_tells_keys_apart_and_is_the_same_everywhere() -> None:
    """P7: stored, logged and shown, it is no MAC that anything would take for a signature."""
    assert fingerprint(OLD.encode()) == "9396552471c7"
    assert len({fingerprint(key.encode()) for key in (OLD, NEW, OTHER)}) == 3
