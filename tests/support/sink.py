"""Who is told of alerts, in tests: takes apprise's `json://` by HTTP, or hangs, or refuses."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

HOST = "127.0.0.1"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    sink: "Sink"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        sink = self.server.sink
        sink.port_of_the_last = self.client_address[1]
        sink.asked.append(orjson.loads(body))
        sink.go_on.wait()
        if sink.status < 400:
            sink.taken.append(orjson.loads(body))
        with suppress(OSError):  # who has asked may have been killed
            self.send_response(sink.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class Sink:
    """What it has been sent, and what it does with it."""

    def __init__(self, server: _Server) -> None:
        self.port = server.server_address[1]
        self.asked: list[dict[str, Any]] = []
        """Every message that has come, answered or not."""
        self.taken: list[dict[str, Any]] = []
        """Those that were answered 200."""
        self.port_of_the_last = 0
        """The sender's end of the connection on which the last of them has come."""
        self.status = 200
        self.go_on = threading.Event()
        """Without it, whatever comes is not answered until it is set."""
        self.go_on.set()

    def url(self, token: str = "") -> str:
        """As it stands in JOBHOOK_ALERT_URLS. It does not give up by itself before the workers do."""
        return f"json://{HOST}:{self.port}/{token}?rto=60"


@contextmanager
def sink() -> Iterator[Sink]:
    """Listens until the end of the block."""
    with _Server((HOST, 0), _Handler) as server:
        server.sink = made = Sink(server)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made.go_on.set()
            server.shutdown()
            thread.join()
