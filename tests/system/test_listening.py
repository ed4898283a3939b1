"""Receivers that listen: on every address of the host, on a socket that is handed in, and over a restart."""

import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from contextlib import closing, contextmanager

import httpx
import pytest

from app.cli.embedded import EmbeddedServer
from app.cli.run import SHUTDOWN_SECONDS
from app.delivery.signature import sign
from app.receiver.endpoint import PATH
from tests.support import PATIENCE_SECONDS, wait_until
from tests.support.raw import BODY, Connection, request
from tests.support.stack import KEY, ROOT, MakeStack, Stack, make_settings

PER_SECOND = 40
WANTED_AFTER = 40
"""Deliveries that are to be answered after the restart before the test is over."""
SENDERS = 200


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket as a service manager holds it."""
    with socket.create_server(("127.0.0.1", 0), backlog=SENDERS) as held:
        yield held


def activate(
    stack: Stack, *held: socket.socket, options: tuple[str, ...] = (), **environment: str
) -> "subprocess.Popen[bytes]":
    """Starts a receiver on the sockets held, and waits until it has taken them."""
    stack.files = tuple(one.fileno() for one in held)
    numbers = ",".join(map(str, stack.files))
    told = len(stack.log_lines("listening"))
    process = stack.start("receiver", "tests.support.activate", numbers, "app", "serve", *options, **environment)
    wait_until(lambda: len(stack.log_lines("listening")) > told, "the receiver")
    return process


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize(("host", "reached_at"), [("::", ("127.0.0.1", "[::1]")), ("::1", ("[::1]",))])
def test_a_host_means_the_same_for_any_number_of_processes(
    server: EmbeddedServer, make_stack: MakeStack, host: str, reached_at: tuple[str, ...], processes: str
) -> None:
    stack = make_stack(server.url)
    process = stack.start("receiver", "app", "serve", "--host", host, "--port", "0", "--processes", processes)
    wait_until(lambda: stack.log_lines("listening") or process.poll() is not None, "the receiver")
    port = stack.log_lines("listening", at_least=1)[0]["on"][0].rpartition(":")[2]

    def answers(address: str) -> bool:
        try:
            return httpx.get(f"http://{address}:{port}/healthz").is_success
        except httpx.HTTPError:
            return False

    for address in reached_at:
        wait_until(lambda address=address: answers(address), address)  # type: ignore[misc]
    process.terminate()
    assert process.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize("processes", ["1", "2"])
def test_takes_a_socket_that_is_handed_in(
    server: EmbeddedServer, make_stack: MakeStack, listener: socket.socket, processes: str
) -> None:
    """Whatever host and port are set to; and says so. It tells the service manager when it is ready."""
    stack = make_stack(server.url)
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(stack.folder / "notify"))
        manager.settimeout(PATIENCE_SECONDS)
        process = activate(
            stack,
            listener,
            options=("--host", "192.0.2.1", "--processes", processes),
            NOTIFY_SOCKET=manager.getsockname(),
        )
        assert manager.recv(100) == b"READY=1"
    host, port = listener.getsockname()
    (line,) = stack.log_lines("listening", at_least=1)
    assert line["on"] == [f"{host}:{port}"]
    assert "JOBHOOK_HOST and JOBHOOK_PORT are not used" in line["socket"]
    assert post(port) == 200
    process.terminate()
    assert process.wait(PATIENCE_SECONDS) == 0


def test_takes_several_sockets_and_knows_which_of_them_only_a_local_proxy_reaches(
    server: EmbeddedServer, make_stack: MakeStack, listener: socket.socket
) -> None:
    """P3: who comes by TCP is believed only if listed, who comes by the Unix socket is the proxy on this machine."""
    stack = make_stack(server.url, JOBHOOK_REQUIRE_HTTPS="true", JOBHOOK_TRUSTED_PROXIES="192.0.2.1")
    path = stack.folder / "jobhook.sock"
    with closing(socket.socket(socket.AF_UNIX)) as local:
        local.bind(str(path))
        local.listen()
        activate(stack, listener, local)
        forwarded = {"X-Forwarded-Proto": "https", "X-Signature": sign(KEY.encode(), BODY)}
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            assert client.post(f"http://test{PATH}", content=BODY, headers=forwarded).status_code == 200
        url = f"http://127.0.0.1:{listener.getsockname()[1]}{PATH}"
        assert httpx.post(url, content=BODY, headers=forwarded).status_code == 403


def post(port: int) -> int | str:
    """A delivery on a connection of its own: its status, or what went wrong.

    It is written at once: a sender as busy as this one must not be late with half of it.
    """
    try:
        with Connection(port) as connection:
            connection.send(request())
            return connection.answer().status
    except (OSError, AssertionError) as error:
        return repr(error)


@contextmanager
def sending(send: Callable[[], int | str]) -> Iterator[list[int | str]]:
    """Sends all the time, `PER_SECOND`, until the end of the block; what it was answered."""
    outcomes: list[int | str] = []
    over = threading.Event()

    def one() -> None:
        outcomes.append(send())

    def all_of_them() -> None:
        with ThreadPoolExecutor(SENDERS) as pool:
            while not over.wait(1 / PER_SECOND):
                pool.submit(one)

    sender = threading.Thread(target=all_of_them)
    sender.start()
    try:
        yield outcomes
    finally:
        over.set()
        sender.join()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_restart_refuses_nothing(
    server: EmbeddedServer, make_stack: MakeStack, listener: socket.socket, processes: str
) -> None:
    """P6: what comes while there is no receiver waits for the next one, in the queue of the socket."""
    stack = make_stack(server.url)
    port = listener.getsockname()[1]
    options = ("--processes", processes)
    first = activate(stack, listener, options=options)
    with sending(lambda: post(port)) as outcomes:
        wait_until(lambda: len(outcomes) > WANTED_AFTER, "deliveries")
        first.terminate()
        assert first.wait(PATIENCE_SECONDS) == 0
        activate(stack, listener, options=options)
        answered = len(outcomes)
        wait_until(lambda: len(outcomes) > answered + WANTED_AFTER, "deliveries after the restart")
    assert set(outcomes) == {200}
    assert len(stack.log_lines("delivery", at_least=len(outcomes))) == len(outcomes)


def test_the_units_are_made_for_the_receiver() -> None:
    """systemd itself is not here: what it is told agrees with what `jobhook serve` does by default."""
    units = {}
    for kind in ("service", "socket"):
        units[kind] = ConfigParser(strict=False, interpolation=None, allow_no_value=True)
        units[kind].read(ROOT / "deploy" / f"jobhook-receiver.{kind}")
    usual = make_settings("redis://127.0.0.1")
    assert units["socket"]["Socket"]["ListenStream"] == f"{usual.host}:{usual.port}"
    assert units["service"]["Unit"]["Requires"] == "jobhook-receiver.socket"
    assert (units["service"]["Service"]["Type"], units["service"]["Service"]["NotifyAccess"]) == ("notify", "all")
    assert int(units["service"]["Service"]["TimeoutStopSec"]) > SHUTDOWN_SECONDS


def test_a_delivery_in_flight_is_answered_before_the_end(server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P6: and its connection closed, so that the next one goes elsewhere."""
    stack = make_stack(server.url)
    process = stack.start_receiver()
    half = len(BODY) // 2
    with Connection(stack.port) as connection:
        connection.send(request("Expect: 100-continue")[: -len(BODY)])
        assert connection.answer().status == 100  # it is being answered by now
        connection.send(BODY[:half])
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: stack.log_lines("Shutting down"), "the receiver to stop")
        connection.send(BODY[half:])
        answer = connection.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert connection.rest() == b""
    assert process.wait(PATIENCE_SECONDS) == 0
