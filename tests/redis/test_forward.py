"""Forwarding: what arrives at systems of yours, and what never leaves. The receiving side is a real server."""

import base64
import hashlib
import hmac
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import structlog
import trustme
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from redis import Redis
from standardwebhooks import Webhook, WebhookVerificationError

from app.cli.embedded import EmbeddedServer, free_port
from app.config.settings import Settings
from app.config.sources import load_settings
from app.config.table import settings_rows
from app.errors import ConfigError, JobhookError
from app.inbox.inbox import Inbox, connect
from app.inbox.record import Record
from tests.support import wait_until
from tests.support.deliveries import accept_all, delivery, queue_events
from tests.support.inbox import age, sweep, take
from tests.support.stack import MakeStack
from workers import Permanent, RetryAfter
from workers.event import Event
from workers.forward import register
from workers.forward.address import is_forbidden
from workers.forward.circuit import FAILURES, OPEN_SECONDS, Circuit
from workers.forward.errors import CircuitOpen, DestinationUnreachable, ForbiddenAddress, Rejected, Throttled
from workers.forward.network import post
from workers.forward.signer import Signer
from workers.processor import Processor
from workers.registry import Registry
from workers.retry import LONGEST_WAIT_SECONDS
from workers.timelimit import seconds_to_strike

SECRET = "whsec_" + base64.b64encode(b"secret of the tests, 32 bytes ok").decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"another secret of the tests, 36 byte").decode()
EVENT_ID = "0123456789abcdef0123456789abcdef"
GATE = "jobhook:circuit:{}:gate"


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Destination:
    """A system that events are forwarded to. It answers what it is told, then 204."""

    port: int = 0
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    always: int = 204
    received: list[Received] = field(default_factory=list)
    server_names: list[str | None] = field(default_factory=list)
    before_answer: Callable[[], object] = bool

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["content-length"]))
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(request.path, headers, body))
        self.before_answer()
        status, extra = self.answers.pop(0) if self.answers else (self.always, {})
        request.send_response(status)
        for name, value in ({"content-length": "0"} | extra).items():
            request.send_header(name, value)
        request.end_headers()


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Destination]:
    destination = Destination()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            destination.answer(self)

        do_GET = do_POST  # noqa: N815 - what the base class calls; for a redirect that is followed

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that does not trust us
        if tls:
            tls.sni_callback = lambda _, name, __: destination.server_names.append(name)
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        destination.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield destination
        server.shutdown()
        thread.join()


@pytest.fixture
def destination() -> Iterator[Destination]:
    with serving() as running:
        yield running


@pytest.fixture
def other() -> Iterator[Destination]:
    with serving() as running:
        yield running


def forwarding(settings: Settings, *pairs: str, secrets: tuple[str, ...] = (SECRET,), **update: object) -> Registry:
    registry = Registry()
    register(
        registry,
        settings.model_copy(
            update={
                "forward_urls": tuple(map(SecretStr, pairs)),
                "forward_secret": tuple(map(SecretStr, secrets)),
                **update,
            }
        ),
    )
    return registry


@pytest.fixture
def send(inbox: Inbox, settings: Settings, destination: Destination) -> Callable[..., None]:
    """Forwards one event to the destination."""

    def once(body: bytes = b"{}", type: str = "invoice.paid", attempt: int = 1, url: str = "", **headers: str) -> None:
        meta: dict[str, Any] = {"type": type, "headers": {n.replace("_", "-"): v for n, v in headers.items()}}
        record = Record(EVENT_ID, "running", 0.0, body, meta, attempt=attempt)
        (handler,) = forwarding(settings, f"*={url or destination.url}").handlers
        handler.function(Event(record, inbox, handler.name))

    return once


Send = Callable[..., None]


def verify(received: Received, secret: str = SECRET) -> None:
    Webhook(secret).verify(received.body, received.headers, json_parse=False)


# What arrives


@pytest.mark.parametrize(
    "body", [b'{"type":"invoice.paid"}', b"", b"no json", " ä€\0\r\n\ufeff".encode(), b"x" * 1024**2], ids=len
)
def test_the_official_library_verifies_what_arrives(send: Send, destination: Destination, body: bytes) -> None:
    send(body)
    (received,) = destination.received
    assert received.body == body
    verify(received)
    with pytest.raises(WebhookVerificationError):
        verify(received, OTHER_SECRET)
    received.headers["webhook-id"] = "another"
    with pytest.raises(WebhookVerificationError):
        verify(received)


def test_a_body_that_is_not_utf_8_is_signed_in_the_same_form(send: Send, destination: Destination) -> None:
    """P8. The official Python library cannot read such a body; libraries that take bytes can."""
    send(b"\xff\xfe\0{")
    (received,) = destination.received
    assert received.body == b"\xff\xfe\0{"
    assert received.headers["webhook-signature"] == expected(
        SECRET, received.headers["webhook-id"], received.headers["webhook-timestamp"], received.body
    )


def expected(secret: str, id: str, timestamp: str, body: bytes) -> str:
    """By the letter of the specification, with nothing but the standard library."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


@given(body=st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_body_is_signed_by_the_specification(body: bytes) -> None:
    moment = datetime(2026, 3, 3, 9, 0, 0, 999_999, tzinfo=UTC)
    assert Signer(SECRET).sign("id", moment, body) == expected(SECRET, "id", "1772528400", body)


def test_the_signature_of_the_specifications_example() -> None:
    signer = Signer("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    moment = datetime.fromtimestamp(1614265330, UTC)
    signature = signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", moment, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_headers_tell_what_it_is(send: Send, destination: Destination) -> None:
    send(type="invoice.paid", attempt=3, content_type="application/json; charset=utf-8")
    (received,) = destination.received
    assert received.path == "/hooks"
    assert received.headers["host"] == f"127.0.0.1:{destination.port}"
    assert received.headers["content-type"] == "application/json; charset=utf-8"
    assert received.headers["webhook-id"] == EVENT_ID
    assert received.headers["jobhook-event-type"] == "invoice.paid"
    assert received.headers["jobhook-attempt"] == "3"


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [(" a/b\r\nx: y\0 ", "a/bx: y"), ("\xe9", "\xe9"), ("\u20ac", "?"), ("", "application/octet-stream")],
)
def test_a_strange_content_type_keeps_no_event_back(
    send: Send, destination: Destination, sent: str, arrives: str
) -> None:
    """P8: and it adds no header of its own."""
    send(type=" job ", content_type=sent)
    (received,) = destination.received
    assert received.headers["content-type"] == arrives
    assert received.headers["jobhook-event-type"] == "job"
    assert "x" not in received.headers


def test_while_secrets_are_rotated_either_verifies(inbox: Inbox, settings: Settings, destination: Destination) -> None:
    (handler,) = forwarding(settings, f"*={destination.url}", secrets=(SECRET, OTHER_SECRET)).handlers
    handler.function(Event(Record(EVENT_ID, "running", 0.0, b"{}", {"type": "x"}), inbox, handler.name))
    for secret in (SECRET, OTHER_SECRET):
        verify(destination.received[0], secret)


def test_the_query_is_sent_and_a_proxy_of_the_environment_is_not_asked(
    send: Send, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    send(url=f"{destination.url}?token=a%2Cb")
    assert destination.received[0].path == "/hooks?token=a%2Cb"


# What an answer means


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_done(send: Send, destination: Destination, status: int) -> None:
    destination.always = status
    send()


@pytest.mark.parametrize("status", [400, 401, 404, 408, 422, 429, 500, 502, 503])
def test_other_answers_are_errors_that_are_retried(send: Send, destination: Destination, status: int) -> None:
    destination.always = status
    with pytest.raises(Rejected, match=rf"/hooks answered {status}$") as caught:
        send()
    assert isinstance(caught.value, JobhookError)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(send: Send, destination: Destination, status: int) -> None:
    destination.answers = [(status, {"location": "/elsewhere"})]
    with pytest.raises(Rejected, match=f"answered {status}: redirects are not followed"):
        send()
    assert [received.path for received in destination.received] == ["/hooks"]


def test_410_is_final(send: Send, destination: Destination) -> None:
    destination.always = 410
    with pytest.raises(Permanent, match="answered 410"):
        send()


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("120", 120, 120),
        ("0", 4, 6),  # the schedule's wait after a first attempt
        ("1" * 400, LONGEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS),
        ("9" * 4, 9999, 9999),
        ("in an hour", 3500, 3600),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 4, 6),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 4, 6),
    ],
)
def test_retry_after_is_kept_within_bounds(
    send: Send, destination: Destination, status: int, asked: str, least: float, most: float
) -> None:
    if asked == "in an hour":
        asked = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    destination.answers = [(status, {"Retry-After": asked})]
    with pytest.raises(Throttled, match=f"answered {status}") as caught:
        send()
    assert least <= caught.value.seconds <= most
    assert caught.value.counts


def test_a_date_is_one_by_the_clock_of_the_destination(send: Send, destination: Destination) -> None:
    theirs = datetime.now(UTC) - timedelta(days=2)
    date, until = (format_datetime(moment, usegmt=True) for moment in (theirs, theirs + timedelta(hours=1)))
    destination.answers = [(503, {"Date": date, "Retry-After": until})]
    with pytest.raises(Throttled) as caught:
        send()
    assert caught.value.seconds == 3600


@pytest.mark.parametrize(("status", "asked"), [(503, "soon"), (503, "-1"), (503, ""), (500, "10"), (404, "10")])
def test_a_retry_after_that_means_nothing_changes_nothing(
    send: Send, destination: Destination, status: int, asked: str
) -> None:
    destination.answers = [(status, {"Retry-After": asked})]
    with pytest.raises(Rejected):
        send()


def test_nobody_there_is_an_error(send: Send) -> None:
    with pytest.raises(DestinationUnreachable, match=r"127\.0\.0\.1:\d+/hooks: no connection: .*refused"):
        send(url=f"http://127.0.0.1:{free_port()}/hooks")


def test_a_name_that_does_not_resolve_is_an_error(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, {"erp.internal": []})
    with pytest.raises(DestinationUnreachable, match="the name cannot be resolved"):
        send(url="http://erp.internal/hooks")


@contextmanager
def raw_server(answer: Callable[[socket.socket, threading.Event], object]) -> Iterator[str]:
    """Answers one connection byte by byte; the event is set when the test is over."""
    over = threading.Event()

    def serve() -> None:
        with closing(listener.accept()[0]) as connection:
            while connection.recv(65536)[-2:] != b"{}":  # closing before all is read resets the connection
                pass
            answer(connection, over)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        over.set()
        thread.join()


def trickle(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
    while not over.wait(0.01):
        try:
            connection.sendall(b"x")
        except OSError:
            return


@pytest.mark.parametrize("answer", [lambda _, over: over.wait(), trickle], ids=["silence", "trickle"])
def test_an_answer_has_to_come_in_time(answer: Callable[[socket.socket, threading.Event], object]) -> None:
    """The total counts: each byte of the trickle comes in time."""
    with raw_server(answer) as url, pytest.raises(DestinationUnreachable, match="no answer in time"):
        post(url, (), b"{}", seconds=0.3, tls=httpx.create_ssl_context())


@pytest.mark.parametrize("answer", [b"", b"canary\r\n\r\n", b"HTTP/1.1 200 OK\r\nx"])
def test_an_answer_that_is_not_http_is_an_error_that_does_not_quote_it(answer: bytes) -> None:
    """P7."""
    with (
        raw_server(lambda connection, _: connection.sendall(answer)) as url,
        pytest.raises(DestinationUnreachable, match=r"^the answer is not HTTP, or was cut off$"),
    ):
        post(url, (), b"{}", seconds=5, tls=httpx.create_ssl_context())


# Where nothing goes


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.0",
        "169.254.170.2",
        "fe80::1",
        "fe80::1%1",
        "febf::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
        "fd00:42::42",
        "fd00:a9fe:a9fe::1",
        "fd00:100::100:200",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "0.0.0.0",  # noqa: S104 - nothing is bound to it
        "0.1.2.3",
        "::",
        "224.0.0.1",
        "239.255.255.255",
        "255.255.255.255",
        "ff02::1",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "::ffff:0.0.0.0",
        "::169.254.169.254",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::100.100.100.200",
        "64:ff9b:1:a9fe:a9:fe00::",  # RFC 6052 with a prefix of 48 bits
        "64:ff9b:1:0:a9:fea9:fe00:0",  # of 64
        "2002:a9fe:a9fe::1",
        "::ffff:0:169.254.169.254",  # SIIT
        "2001:db8::5efe:169.254.169.254",  # ISATAP
        "fe00::200:5efe:a9fe:a9fe",
        "2001:0:a9fe:a9fe::f5ff:fffa",  # Teredo, its server
        "2001:0:a00:5::5601:5601",  # and its client
    ],
)
def test_a_name_that_leads_to_a_forbidden_address_leads_nowhere(
    send: Send, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """Nor does one that also has a good address."""
    connected: list[object] = []
    monkeypatch.setattr(socket, "create_connection", lambda *args, **_: connected.append(args))
    for addresses in ([address], ["10.0.0.1", address]):
        resolve(monkeypatch, {"erp.internal": addresses})
        with pytest.raises(ForbiddenAddress, match=r"^http://erp\.internal/hooks: the name leads to a link-local"):
            send(url="http://erp.internal/hooks?token=canary")
    assert not connected


@pytest.mark.parametrize("host", ["2852039166", "0xa9fea9fe", "169.254.43518", "0"])
def test_an_address_in_disguise_is_recognised(send: Send, host: str) -> None:
    """By the system's resolver, which reads these as it always has."""
    with pytest.raises(ForbiddenAddress):
        send(url=f"http://{host}/")


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "::1", "10.0.0.5", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "93.184.216.34"),
        *("2606:2800:220:1::1", "::ffff:10.0.0.5", "64:ff9b::10.0.0.5", "169.253.255.255", "no address"),
        *("64:ff9b:1::10.0.0.5", "::ffff:0:10.0.0.5", "2001:db8::5efe:10.0.0.5", "2002:a00:5::1", "fd00:42::43"),
    ],
)
def test_internal_and_public_addresses_are_allowed(address: str) -> None:
    assert not is_forbidden(address)


def test_a_name_is_resolved_once_so_that_it_cannot_change_its_mind(
    send: Send, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolve(monkeypatch, {"erp.internal": ["127.0.0.1"]})
    send(url=f"http://erp.internal:{destination.port}/hooks")
    assert asked == ["erp.internal"]
    assert destination.received[0].headers["host"] == f"erp.internal:{destination.port}"


def test_the_next_address_is_tried_if_one_does_not_answer(
    send: Send, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, {"erp.internal": ["127.0.0.9", "127.0.0.1"]})
    send(url=f"http://erp.internal:{destination.port}/hooks")
    assert len(destination.received) == 1


def test_tls_is_verified_against_the_name(
    send: Send, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(path := str(tmp_path_factory.mktemp("ca") / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", path)
    resolve(monkeypatch, {"erp.internal": ["127.0.0.1"], "other.internal": ["127.0.0.1"]})
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("erp.internal").configure_cert(context)
    with serving(context) as destination:
        send(url=f"https://erp.internal:{destination.port}/hooks")
        with pytest.raises(DestinationUnreachable, match=r"not valid for 'other\.internal'"):
            send(url=f"https://other.internal:{destination.port}/hooks")
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(DestinationUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
            send(url=f"https://erp.internal:{destination.port}/hooks")
        assert len(destination.received) == 1
        assert set(destination.server_names) == {"erp.internal", "other.internal"}
        verify(destination.received[0])


def resolve(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]) -> list[str]:
    """Takes the place of the resolver for some names; the names it has been asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        if host not in names:
            return real(host, port, *args, **options)
        asked.append(host)
        if not names[host]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in names[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


# The circuit


def fail(send: Send, times: int) -> None:
    for _ in range(times):
        with pytest.raises((Rejected, DestinationUnreachable)):
            send()


def test_after_failures_in_a_row_a_destination_is_left_alone(
    send: Send, destination: Destination, redis: "Redis"
) -> None:
    destination.always = 500
    with structlog.testing.capture_logs() as logs:
        fail(send, FAILURES)
    assert logs == [
        {
            "event": "circuit opened",
            "log_level": "warning",
            "destination": destination.url,
            "failures": FAILURES,
            "seconds": OPEN_SECONDS,
        }
    ]
    with pytest.raises(CircuitOpen, match=r"has failed too often") as caught:
        send()
    assert isinstance(caught.value, RetryAfter)
    assert not caught.value.counts
    assert 0 < caught.value.seconds <= OPEN_SECONDS
    assert len(destination.received) == FAILURES
    assert all(redis.ttl(key) > 0 for key in redis.scan_iter("jobhook:circuit:*"))


def test_once_half_open_a_probe_that_succeeds_closes_it(send: Send, destination: Destination, redis: "Redis") -> None:
    destination.always = 500
    fail(send, FAILURES)
    redis.delete(GATE.format(destination.url))  # as if its time were over
    destination.always = 204
    send()
    send()
    assert not list(redis.scan_iter("jobhook:circuit:*"))


def test_once_half_open_a_probe_that_fails_opens_it_again(send: Send, destination: Destination, redis: "Redis") -> None:
    destination.always = 500
    fail(send, FAILURES)
    redis.delete(GATE.format(destination.url))
    fail(send, 1)
    with pytest.raises(CircuitOpen):
        send()
    assert len(destination.received) == FAILURES + 1


def test_a_success_in_between_starts_the_count_anew(send: Send, destination: Destination) -> None:
    for _ in range(2):
        destination.always = 500
        fail(send, FAILURES - 1)
        destination.always = 204
        send()


@pytest.mark.parametrize(("status", "opens"), [(429, True), (503, True), (400, False), (404, False), (302, False)])
def test_what_is_the_events_fault_does_not_open_it(
    send: Send, destination: Destination, status: int, opens: bool
) -> None:
    destination.always = status
    fail(send, FAILURES)
    with pytest.raises(CircuitOpen if opens else Rejected):
        send()


def test_nobody_there_opens_it_too(send: Send) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    for _ in range(FAILURES):
        with pytest.raises(DestinationUnreachable):
            send(url=url)
    with pytest.raises(CircuitOpen):
        send(url=url)


def test_a_circuit_is_shared_and_lets_one_probe_through(redis: "Redis", settings: Settings) -> None:
    with connect(settings) as second:
        here, there = Circuit(redis, "d", probe_seconds=10, open_seconds=0.05), Circuit(second, "d", probe_seconds=10)
        elsewhere = Circuit(second, "another", probe_seconds=10)
        for circuit in (here, there, here, there, here):
            assert circuit.enter() == 0
            circuit.failed()
        assert elsewhere.enter() == 0
        wait_until(lambda: not redis.exists(GATE.format("d")), "the gate to expire")
        assert there.enter() == 0  # the probe
        assert 0 < here.enter() <= 10
        there.succeeded()
        assert here.enter() == there.enter() == 0


def test_what_was_on_its_way_when_it_opened_counts_no_more(redis: "Redis") -> None:
    circuit = Circuit(redis, "d", probe_seconds=10)
    for _ in range(FAILURES + 100):
        circuit.failed()
    assert OPEN_SECONDS - 5 < circuit.enter() <= OPEN_SECONDS


def test_events_wait_about_as_long_as_the_outage_has_lasted(redis: "Redis") -> None:
    """Else each would come back, and be noted in its history, thousands of times a day."""
    circuit = Circuit(redis, "d", probe_seconds=10)
    waits = []
    for _ in range(FAILURES + 50):
        redis.delete(GATE.format("d"))
        circuit.failed()
        waits.append(circuit.enter())
    assert waits[: FAILURES - 1] == [0] * (FAILURES - 1)
    assert waits[FAILURES - 1 :: 10] == pytest.approx([30, 330, 600, 600, 600, 600], rel=0.1)


def test_a_probe_that_dies_does_not_block_it_for_good(redis: "Redis") -> None:
    circuit = Circuit(redis, "d", probe_seconds=0.05, open_seconds=0.01)
    for _ in range(FAILURES):
        circuit.failed()
    for _ in range(2):
        wait_until(lambda: circuit.enter() == 0, "a probe to be let through")


def test_what_has_arrived_is_not_sent_again_because_redis_is_gone(
    own_server: EmbeddedServer, settings: Settings
) -> None:
    """P5."""
    with connect(settings.model_copy(update={"redis_url": own_server.url})) as client:
        circuit = Circuit(client, "d", probe_seconds=1)
        assert circuit.enter() == 0
        own_server.kill()
        circuit.succeeded()
        circuit.failed()


# With the worker


def test_a_destination_that_has_an_event_is_not_sent_it_again_for_another(
    inbox: Inbox, settings: Settings, destination: Destination, other: Destination
) -> None:
    """P5: and the id by which the far side can tell a repetition stays the same."""
    pairs = (f"*={other.url}", f"job.*={other.url}", f"test.*={destination.url}", f"*={destination.url}")
    processor = Processor(inbox, forwarding(settings, *pairs))
    other.answers = [(500, {})]
    accept_all(settings, delivery(b'{"type":"test.ok"}'))
    record = take(inbox)
    inbox.work("w", processor.process(record), want="")
    assert inbox.get(record.id).state == "retrying"
    age(inbox, "retrying", record.id)
    inbox.sweep()
    inbox.work("w", processor.process(take(inbox)), want="")
    assert inbox.get(record.id).state == "done"
    assert [received.headers["jobhook-attempt"] for received in destination.received] == ["1"]
    assert [received.headers["jobhook-attempt"] for received in other.received] == ["1", "2"]
    assert {received.headers["webhook-id"] for received in destination.received + other.received} == {record.id}
    for received in other.received:
        verify(received)


@contextmanager
def silent_server() -> Iterator[str]:
    """Takes every connection and answers nothing, ever."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/hooks"


def test_two_silent_destinations_keep_nothing_from_a_healthy_third(
    inbox: Inbox, settings: Settings, destination: Destination
) -> None:
    """P2, P5: it gets every event in the event's first attempt, and none twice."""
    inbox.settings = settings.model_copy(update={"handler_timeout": 2.0})
    with silent_server() as first, silent_server() as second:
        pairs = (f"*={first}", f"*={second}", f"*={destination.url}")
        processor = Processor(inbox, forwarding(settings, *pairs, handler_timeout=2.0))
        ids = queue_events(settings, 3)
        for number in range(len(ids)):
            ended = processor.process(take(inbox))
            assert ended
            assert ended.outcome == "retry"
            inbox.work("w", ended, want="")
            assert len(destination.received) == number + 1
        for _ in range(2):  # tried again, silent or left alone as they are
            age(inbox, "retrying", *ids)
            sweep(inbox)
            for _ in ids:
                inbox.work("w", processor.process(take(inbox)), want="")
    assert [received.headers["webhook-id"] for received in destination.received] == ids
    for id in ids:
        tries = inbox.get(id).tries
        assert set(tries) == {f"forward {first}", f"forward {second}"}
        assert not any("time was up" in each.why or "longer than" in each.why for each in tries.values())


def test_destinations_are_asked_at_the_same_time(
    inbox: Inbox, settings: Settings, destination: Destination, other: Destination
) -> None:
    """One that answers only after another has got the event, which stands after it in the settings."""
    other.before_answer = lambda: wait_until(lambda: bool(destination.received), "the event at the other destination")
    queue_events(settings, 1)
    processor = Processor(inbox, forwarding(settings, f"*={other.url}", f"*={destination.url}"))
    ended = processor.process(take(inbox))
    assert ended
    assert ended.outcome == "done"


def test_where_there_can_be_no_more_threads_they_are_asked_one_after_the_other(
    inbox: Inbox, settings: Settings, destination: Destination, other: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: as under a limit of processes and threads."""

    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr("workers.processor.Thread", NoThread)
    queue_events(settings, 1)
    ended = Processor(inbox, forwarding(settings, f"*={other.url}", f"*={destination.url}")).process(take(inbox))
    assert ended
    assert ended.outcome == "done"
    assert len(destination.received) == len(other.received) == 1


def test_a_success_is_recorded_while_others_are_waited_for(
    inbox: Inbox, settings: Settings, destination: Destination
) -> None:
    """P5: if the worker is killed then, the destination that has the event is not sent it again."""
    with silent_server() as silent:
        registry = forwarding(settings, f"*={silent}", f"*={destination.url}", handler_timeout=2.0)
        inbox.settings = settings.model_copy(update={"handler_timeout": 2.0})
        (id,) = queue_events(settings, 1)
        with ThreadPoolExecutor() as watching:
            step = f"handler forward {destination.url}"
            noted = watching.submit(lambda: wait_until(lambda: step in dict(inbox.get(id).steps), "the note"))
            Processor(inbox, registry).process(take(inbox))
            noted.result()


def test_a_destination_that_stands_still_has_failed_when_the_time_is_up(
    inbox: Inbox, settings: Settings, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose name is resolved for minutes, which cannot be cut short: it sends nothing afterwards."""
    over = threading.Event()
    real = socket.getaddrinfo

    def resolve_slowly(host: str, *args: Any, **options: Any) -> Any:
        if host == "slow.test":
            over.wait(60)
            host = "127.0.0.1"
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_slowly)
    inbox.settings = settings.model_copy(update={"handler_timeout": 1.0})
    slow = f"http://slow.test:{destination.port}/slow"
    registry = forwarding(settings, f"*={slow}", f"*={destination.url}", handler_timeout=1.0)
    queue_events(settings, 1)
    record = take(inbox)
    ended = Processor(inbox, registry).process(record)
    assert ended
    inbox.work("w", ended, want="")
    tries = inbox.get(record.id).tries
    assert set(tries) == {f"forward {slow}"}
    assert tries[f"forward {slow}"].used == 1
    before = set(threading.enumerate())
    over.set()
    wait_until(lambda: set(threading.enumerate()) < before, "the thread to end")
    assert [received.path for received in destination.received] == ["/hooks"]


def test_what_other_handlers_leave_of_the_time_is_enough_or_it_is_sent_later(
    inbox: Inbox, settings: Settings, destination: Destination
) -> None:
    """A slow handler is no failure of the destination's: it gets its whole time, in the next attempt, at once."""
    registry = forwarding(settings, f"*={destination.url}", handler_timeout=2.0)

    @registry.on("*")
    def use_up(_: Event) -> None:
        wait_until(lambda: seconds_to_strike() < 1.0, "half of the time to be over")

    inbox.settings = settings.model_copy(update={"handler_timeout": 2.0, "max_attempts": 1})
    queue_events(settings, 1)
    record = take(inbox)
    processor = Processor(inbox, registry)
    ended = processor.process(record)
    assert ended
    assert (ended.outcome, ended.delay) == ("retry", 0)
    assert not destination.received
    inbox.work("w", ended, want="")
    sweep(inbox)
    again = processor.process(take(inbox))
    assert again
    assert again.outcome == "done"
    assert len(destination.received) == 1


def test_waiting_for_a_circuit_uses_up_no_attempt(
    inbox: Inbox, redis: "Redis", settings: Settings, destination: Destination
) -> None:
    circuit = Circuit(redis, destination.url, probe_seconds=10)
    for _ in range(FAILURES):
        circuit.failed()
    accept_all(settings, delivery(b'{"type":"test.ok"}'))
    inbox.settings = settings.model_copy(update={"max_attempts": 1})
    ended = Processor(inbox, forwarding(settings, f"*={destination.url}")).process(take(inbox))
    assert ended
    assert (ended.outcome, ended.uncounted) == ("retry", True)
    assert not destination.received


def test_events_go_from_the_receiver_through_workers_to_the_destination(
    server: EmbeddedServer, make_stack: MakeStack, destination: Destination, other: Destination
) -> None:
    """P7: on the way neither payload, nor secret, nor query is printed."""
    closed = f"http://127.0.0.1:{free_port()}/hooks"
    stack = make_stack(
        server.url,
        JOBHOOK_FORWARD_URLS=f"test.*={destination.url}?token=canary-1, *={other.url}?token=canary-2\n"
        f"test.bad={closed}?token=canary-3",
        JOBHOOK_FORWARD_SECRET=SECRET,
        JOBHOOK_LOG_LEVEL="debug",
    )
    stack.start_receiver()
    stack.start_workers(2)
    good = stack.deliver_event("test.ok", "evt_1", mail="canary-4")
    bad = stack.deliver_event("test.bad", "evt_2", mail="canary-5")
    elsewhere = stack.deliver_event("invoice.paid", "evt_3", mail="canary-6")
    stack.wait_for(good, "done")
    stack.wait_for(elsewhere, "done")
    record = stack.wait_for(bad, "retrying")
    assert record.attempts[0]["error"]["message"].startswith(f"{closed}: no connection")
    assert {received.headers["webhook-id"] for received in destination.received} == {good, bad}
    assert {received.headers["webhook-id"] for received in other.received} == {good, bad, elsewhere}
    for received in destination.received + other.received:
        verify(received)
    printed = stack.logs() + str(record.attempts)
    assert "workers.forward.errors.DestinationUnreachable" in printed
    signatures = [received.headers["webhook-signature"] for received in destination.received]
    for secret in ("canary", SECRET, SECRET.removeprefix("whsec_"), *signatures):
        assert secret not in printed


# Settings


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("canary", "write pattern=url, such as"),
        ("=https://canary", "write pattern=url, such as"),
        ("https://canary", "write pattern=url, such as"),
        ("https://h/?canary=1", "the URL must begin with https:// or http://"),
        ("*=ftp://canary", "the URL must begin with https:// or http://"),
        ("*=canary:80/x", "the URL must begin with https:// or http://"),
        ("*=", "write pattern=url, such as"),
        ("*=canary", "the URL must begin with https:// or http://"),
        ("*=https:///canary", "the URL has no valid host"),
        ("*=https://ca$nary/", "the URL has no valid host"),
        ("*=https://[::1", "is not a URL"),
        ("*=https://xn--/", "is not a URL"),
        ("*=http://0251.0376.0251.0376/canary", "is not a URL"),
        ("*=https://canary:99999/", "the URL has no valid port"),
        ("*=https://canary:0/", "the URL has no valid port"),
        ("*=https://user:canary@host/", "no user or password in the URL"),
        ("*=https://canary@host/", "no user or password in the URL"),
        ("*=http://169.254.169.254/canary", "the URL leads to a link-local"),
        ("*=http://[::ffff:169.254.169.254]/canary", "the URL leads to a link-local"),
        ("*=https://first/?canary", "differs from another in nothing but its query"),
    ],
)
def test_a_wrong_pair_stops_the_start_with_one_line(settings: Settings, pair: str, message: str) -> None:
    """P7: the line names the pair by its position."""
    with pytest.raises(ConfigError) as caught:
        forwarding(settings, "*=https://first/", pair)
    text = str(caught.value)
    assert text.startswith(f"JOBHOOK_FORWARD_URLS: pair 2: {message}")
    assert "canary" not in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "secret",
    ["canary", "whsec_", "whsec_canary", "whsec_" + "$" * 40, "whsec_" + "é" * 40]
    + ["whsec_" + base64.b64encode(b"x" * size).decode() for size in (23, 65)]
    + [SECRET.removeprefix("whsec_")],
)
def test_a_wrong_secret_stops_the_start_with_one_line(settings: Settings, secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        forwarding(settings, "*=https://host/", secrets=(secret,))
    assert str(caught.value).startswith("JOBHOOK_FORWARD_SECRET: must be whsec_ and the base64 of 24 to 64 random")
    assert "canary" not in str(caught.value)


def test_a_secret_is_required_as_soon_as_there_are_urls(settings: Settings) -> None:
    assert forwarding(settings, secrets=()).handlers == []
    with pytest.raises(ConfigError, match=r"^JOBHOOK_FORWARD_SECRET: is not set, but JOBHOOK_FORWARD_URLS is; make"):
        forwarding(settings, "*=https://host/", secrets=())


@pytest.mark.parametrize("size", [24, 25, 64])
def test_the_padding_of_a_secret_is_optional(size: int) -> None:
    secret = "whsec_" + base64.b64encode(b"x" * size).decode()
    now = datetime.now(UTC)
    assert Signer(secret).sign("id", now, b"") == Signer(secret.rstrip("=")).sign("id", now, b"")


def test_settings_show_neither_urls_nor_secrets(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """P7."""
    given = settings.model_copy(
        update={"forward_urls": (SecretStr("*=https://h/?canary"),), "forward_secret": (SecretStr("canary"),)}
    )
    assert "canary" not in repr(given) + str(list(settings_rows(given)))


def test_pairs_are_separated_by_commas_or_white_space(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBHOOK_FORWARD_URLS", " a.*=https://h/a?x=1,b=https://h/b\n c=https://h/c ")
    monkeypatch.setenv("JOBHOOK_FORWARD_SECRET", f"{SECRET},{OTHER_SECRET}")
    registry = Registry()
    register(registry, load_settings(api_key="key-of-the-tests-0123456789"))
    assert [handler.name for handler in registry.handlers] == [f"forward https://h/{path}" for path in "abc"]


def test_registering_again_replaces_and_leaves_other_handlers_alone(settings: Settings) -> None:
    """A worker is forked from a supervisor that has registered already."""
    registry = forwarding(settings, "a=https://h/")

    @registry.on("*")
    def handle(event: Event) -> None: ...

    update = {"forward_urls": (SecretStr("b=https://h/"),), "forward_secret": (SecretStr(SECRET),)}
    register(registry, settings.model_copy(update=update))
    assert [handler.function for handler in registry.matching("a")] == [handle]
    assert [handler.name for handler in registry.matching("b")][1:] == ["forward https://h/"]
