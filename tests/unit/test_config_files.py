"""Settings in files: an `.env` file and a folder of secret files are read whole, or refused with the place."""

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from app.config.files import env_line, read_env_file, read_secret_files
from app.config.names import is_known
from app.config.sources import load_settings
from app.errors import ConfigError
from tests.support.stack import ROOT

KEY = "jso_live_8f2c1d7e4b6a9035"
NOBODY_UID = 65534


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The current folder, and an environment that sets the key alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOBHOOK_ENV_FILE")
    monkeypatch.setenv("JOBSITEON_API_KEY", KEY)
    return tmp_path


def problems() -> str:
    with pytest.raises(ConfigError) as raised:
        load_settings()
    return str(raised.value)


def write(content: str | bytes, file: str = ".env") -> None:
    Path(file).write_bytes(content if isinstance(content, bytes) else content.encode())


# What stands where a file or a folder should


def nothing(path: Path) -> None: ...


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name)  # a whole path may be too long


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_file(path: Path) -> None:
    path.write_text("")


Put = Callable[[Path], None]
NO_FILES = {
    dangling: "there is no such file",
    loop: "cannot be read (Too many levels of symbolic links)",
    a_folder: "is a folder, not a file",
    a_pipe: "is neither a regular file nor",
    a_socket: "is neither a regular file nor",
    a_device: "is neither a regular file nor",
}


@pytest.mark.parametrize(("put", "problem"), [(nothing, "there is no such file"), *NO_FILES.items()])
def test_a_named_env_file_is_read_or_refused(
    put: Put, problem: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P10: it may hold the allow-list. A pipe does not hang."""
    monkeypatch.setenv("JOBHOOK_ENV_FILE", "named.env")
    put(folder / "named.env")
    assert problems().startswith(f"JOBHOOK_ENV_FILE: named.env: {problem}")
    assert len(problems().splitlines()) == 1


@pytest.mark.parametrize(("put", "problem"), NO_FILES.items())
def test_what_stands_in_the_place_of_the_env_file_is_read_or_refused(put: Put, problem: str, folder: Path) -> None:
    """P10."""
    put(folder / ".env")
    assert problems().startswith(f".env: {problem}")


def test_without_an_env_file_there_is_none() -> None:
    assert load_settings().port == 8000


NO_FOLDERS: dict[Put, str] = {
    nothing: "there is no such folder",
    dangling: "there is no such folder",
    loop: "cannot be read (Too many levels of symbolic links)",
    a_file: "is a file, not a folder",
    a_pipe: "is a file, not a folder",
}


@pytest.mark.parametrize(("put", "problem"), NO_FOLDERS.items())
def test_a_named_folder_of_secrets_is_read_or_refused(
    put: Put, problem: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P10."""
    monkeypatch.setenv("JOBHOOK_SECRETS_DIR", "named")
    put(folder / "named")
    assert problems().startswith(f"JOBHOOK_SECRETS_DIR: named: {problem}")


@pytest.mark.parametrize(("put", "problem"), NO_FILES.items())
def test_a_secret_file_is_read_or_refused(
    put: Put, problem: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P10."""
    secrets = folder / "named"
    secrets.mkdir()
    monkeypatch.setenv("JOBHOOK_SECRETS_DIR", str(secrets))
    with monkeypatch.context() as there:
        there.chdir(secrets)
        put(secrets / "JOBHOOK_ALLOWED_IPS")
    (secrets / "database").mkdir()
    assert problems().startswith(f"JOBHOOK_SECRETS_DIR: {secrets}/JOBHOOK_ALLOWED_IPS: {problem}")


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a service is run; root may read everything."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY_UID)
    try:
        yield
    finally:
        os.seteuid(before)


def test_what_may_not_be_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10."""
    closed = folder / "closed"
    closed.mkdir()
    (closed / "named.env").write_text("")
    closed.chmod(0)
    monkeypatch.setenv("JOBHOOK_ENV_FILE", str(closed / "named.env"))
    monkeypatch.setenv("JOBHOOK_SECRETS_DIR", str(closed))
    with unprivileged():
        assert problems().splitlines() == [
            f"JOBHOOK_ENV_FILE: {closed}/named.env: cannot be read (Permission denied)",
            f"JOBHOOK_SECRETS_DIR: {closed}: cannot be read (Permission denied)",
        ]
    closed.chmod(0o700)


# The bytes of a file

BYTES = {
    "JOBHOOK_PORT=1\n".encode("utf-16"): ".env: is UTF-16: save it as UTF-8",
    "JOBHOOK_PORT=1\n".encode("utf-16-be"): ".env, line 1: is not text in UTF-8: save the file as UTF-8",
    b"JOBHOOK_PORT=1\nNOTE=caf\xe9\n": ".env, line 2: is not text in UTF-8: save the file as UTF-8",
    b"JOBHOOK_PORT=1\r\n\r\nA=\x00\r\n": ".env, line 3: is not text in UTF-8: save the file as UTF-8",
}


@pytest.mark.parametrize(("content", "problem"), BYTES.items(), ids=range(len(BYTES)))
def test_what_is_not_utf_8_is_refused(content: bytes, problem: str) -> None:
    """P10."""
    write(content)
    assert problems() == problem


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=repr)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_reads_the_files_of_every_editor(newline: str, encoding: str) -> None:
    lines = ["# settings", "", "JOBHOOK_PORT=3001", "export JOBHOOK_WORKERS = '5' # five", "OTHER='é'"]
    write(newline.join(lines).encode(encoding))
    settings = load_settings()
    assert (settings.port, settings.workers) == (3001, 5)


# The lines of an .env file

WRITE, COLON = "write NAME=value, or # in front of a comment", "write NAME=value, with a = instead of the colon"
QUOTE = "a quote is not closed, or something follows it"
LINES = {
    "JOBHOOK_PORT: 3001": COLON,
    "JOBHOOK_PORT:3001": COLON,
    "JOBHOOK_ALLOWED_IPS 10.0.0.0/8": WRITE,
    "JOBHOOK_ALLOWED_IPS": WRITE,
    "export JOBHOOK_ALLOWED_IPS": WRITE,
    "JOBHOOK ALLOWED IPS=10.0.0.0/8": WRITE,
    "set JOBHOOK_PORT=3001": WRITE,
    "- JOBHOOK_PORT=3001": WRITE,
    "; a comment": WRITE,
    "// a comment": WRITE,
    "[jobhook]": WRITE,
    "=3001": WRITE,
    "JOBHOOK_HANDLERS='a": QUOTE,
    'JOBHOOK_HANDLERS="a': QUOTE,
    "JOBHOOK_HANDLERS='a' b": QUOTE,
    'JOBHOOK_HANDLERS="a"b"': QUOTE,
}


@pytest.mark.parametrize(("line", "problem"), LINES.items(), ids=LINES)
def test_a_line_that_cannot_be_read_is_refused(line: str, problem: str) -> None:
    """P10: with its number, and P7: without its content."""
    write(f"# settings\n\n{line}\n\n\nJOBHOOK_WORKERS=5\nJOBHOOK_PORT: canary\n")
    assert problems().splitlines()[0] == f".env, line 3: {problem}"
    assert problems().splitlines()[-1] == f".env, line 7: {COLON}"
    assert "canary" not in problems()


@pytest.mark.parametrize("quote", "'\"")
@pytest.mark.parametrize("name", ["OTHER", "JOBHOOK_HANDLERS"])
def test_a_quote_that_swallows_settings_is_refused(quote: str, name: str) -> None:
    """P10: two that are not closed make a value of everything in between."""
    write(f"{name}={quote}a\nJOBHOOK_ALLOWED_IPS=10.0.0.0/8\nNOTE=b{quote}\n")
    assert problems().startswith(".env, line 1: the quote that begins here ends on a later line")


def test_a_value_of_another_program_may_have_several_lines() -> None:
    write('PEM="-----BEGIN\nabc=\n-----END"\nJOBHOOK_PORT=3001\n')
    assert load_settings().port == 3001


def test_two_values_for_a_name_are_refused() -> None:
    """P10."""
    write("JOBHOOK_PORT=1\nOTHER=1\njobhook_port=2\nOTHER=2\n")
    assert problems() == (
        "JOBHOOK_PORT: has two values: as JOBHOOK_PORT in .env, line 1, and as jobhook_port in .env, line 3. Remove one"
    )
    write("JOBHOOK_PORT=1\nJOBHOOK_PORT=1\n")
    assert load_settings().port == 1


def test_a_name_with_an_invisible_character_is_no_other_name() -> None:
    """P10: as when files with a byte order mark are put together."""
    write("OTHER=1\n\ufeffJOBHOOK_ALLOWED_IPS=10.0.0.0/8\n")
    assert problems() == "\\ufeffJOBHOOK_ALLOWED_IPS: no such setting. Did you mean JOBHOOK_ALLOWED_IPS? (.env, line 2)"


def test_says_where_a_wrong_value_stands() -> None:
    write("\n\nJOBHOOK_PORT=x\n")
    assert problems() == "JOBHOOK_PORT: Input should be a whole number, such as 2 (.env, line 3)"


def test_every_line_of_the_example_is_one_of_a_setting(folder: Path) -> None:
    """Those that are commented out too."""
    example = (ROOT / ".env.example").read_text()
    (folder / ".env").write_text(re.sub(r"^#(?=\w+=)", "", example, flags=re.MULTILINE))
    names = [entry.name for entry in read_env_file(folder / ".env", {})]
    assert len(names) > 10
    assert all(map(is_known, names))


# References to other variables


def test_references_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFICE", "10.1.0.0/16")
    write("NET=10.0.0.0/8\nJOBHOOK_ALLOWED_IPS=${NET},${OFFICE},${HOME_NET:-10.2.0.0/16}\nJOBHOOK_PORT=${PORT:-3001}\n")
    settings = load_settings()
    assert [str(network) for network in settings.allowed_ips] == ["10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16"]
    assert settings.port == 3001


@pytest.mark.parametrize("value", ["${OFFICE}", '"${OFFICE}"', "10.0.0.0/8,${OFFICE}", "${OFFICE-10.0.0.0/8}"])
def test_a_reference_to_nothing_is_refused(value: str) -> None:
    """P10: python-dotenv makes an empty text of it, and an empty allow-list is none."""
    write(f"\nJOBHOOK_ALLOWED_IPS={value}\nOTHER={value}\n")
    assert problems().startswith(".env, line 2: JOBHOOK_ALLOWED_IPS has a ${…} that names nothing: set what it names")


def test_a_reference_to_what_refers_to_nothing_is_refused() -> None:
    """P10."""
    write("NET=${OFFICE}\nJOBHOOK_ALLOWED_IPS=${NET}\n")
    assert problems().startswith(".env, line 2: JOBHOOK_ALLOWED_IPS has a ${…} that names nothing")


def test_a_form_of_reference_that_is_not_known_is_refused() -> None:
    """P10."""
    write("JOBHOOK_HANDLERS=${MODULES:?not set}\n")
    assert problems() == "JOBHOOK_HANDLERS: has a ${…} in it that nothing has replaced by a value (.env, line 1)"


def test_between_single_quotes_a_value_is_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a shell and in Compose: a key may have a $ and a #."""
    monkeypatch.delenv("JOBSITEON_API_KEY")
    write("JOBSITEON_API_KEY='8f2c1d7e ${A}4b6a9035'\n".replace(" ", "#"))
    assert load_settings().signing_keys == (b"8f2c1d7e#${A}4b6a9035",)


@given(text=st.text(st.characters(blacklist_categories=("Cs", "Cc"))))
def test_a_written_line_is_read_back(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("written") / ".env"
    file.write_text(env_line("A", text) + env_line("JOBHOOK_PORT", "1"))
    assert [(entry.name, entry.text) for entry in read_env_file(file, {})] == [("A", text), ("JOBHOOK_PORT", "1")]


@given(text=st.text(st.sampled_from("AB=:'\"\\ \t\n#${}-\ufeffé"), max_size=30))
def test_every_file_is_read_as_python_dotenv_does_or_refused(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What is left out here and not there, or read otherwise: references, which need not be resolvable."""
    file = tmp_path_factory.mktemp("made") / ".env"
    file.write_text(text.replace("${", "{"))
    try:
        entries = read_env_file(file, {})
    except ConfigError as error:
        assert str(error).startswith(f"{file}, line ")  # noqa: PT017 - either is right
    else:
        assert {entry.name: entry.text for entry in entries} == dotenv_values(file)


# Secret files


def test_reads_what_kubernetes_mounts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hidden folder with the files, a hidden link to it, and links to what that holds."""
    secrets = folder / "named"
    (secrets / "..2026_11_25").mkdir(parents=True)
    (secrets / "..2026_11_25" / "JOBSITEON_API_KEY").write_text(KEY[::-1] + "\n")
    (secrets / "..data").symlink_to("..2026_11_25")
    (secrets / "JOBSITEON_API_KEY").symlink_to("..data/JOBSITEON_API_KEY")
    (secrets / "kubernetes.io").mkdir()
    monkeypatch.setenv("JOBHOOK_SECRETS_DIR", str(secrets))
    monkeypatch.delenv("JOBSITEON_API_KEY")
    assert load_settings().signing_keys == (KEY[::-1].encode(),)


def test_a_link_to_elsewhere_is_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: pydantic-settings leaves it out."""
    (folder / "named").mkdir()
    (folder / "elsewhere").write_text("3001")
    (folder / "named" / "JOBHOOK_PORT").symlink_to(folder / "elsewhere")
    monkeypatch.setenv("JOBHOOK_SECRETS_DIR", "named")
    assert load_settings().port == 3001


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x00", b"\xff\xfej\x00s\x00", b"jso_live_\xe9_8f2c1d7e4b6a9035"])
def test_a_secret_that_is_not_text_is_refused(content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10."""
    (folder / "JOBSITEON_API_KEY").write_bytes(content)
    monkeypatch.setenv("JOBHOOK_SECRETS_DIR", str(folder))
    assert "save" in problems()
    assert len(problems().splitlines()) == 1


def test_one_secret_in_two_files_has_one_value(folder: Path) -> None:
    """P10."""
    (folder / "JOBHOOK_PORT").write_text("1")
    (folder / "jobhook_port").write_text("2")
    assert [entry.text for entry in read_secret_files(folder)] == ["1", "2"]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("JOBHOOK_SECRETS_DIR", ".")
        assert problems().startswith("JOBHOOK_PORT: has two values: as JOBHOOK_PORT in JOBHOOK_PORT, and as jobhook_p")
