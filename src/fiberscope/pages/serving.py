"""A live page on this machine: a small server that sends the page once and then its main part whenever it changes."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fiberscope.errors import InputError
from fiberscope.pages.data import Data
from fiberscope.pages.page import document, main_part

HOST = "127.0.0.1"
_BEAT = 10.0  # seconds between signs of life, so that closed tabs are noticed
_POLL = 0.5  # seconds between looks at the source


@dataclass(frozen=True)
class State:
    """What a live page shows at one moment.

    Args:
        data: of the result.
        said: one line about where the run is.
        ended: whether nothing more will come.
    """

    data: Data
    said: str
    ended: bool = False


Look = Callable[[], Any]
"""A cheap look at the source: any value that differs when the source has changed."""


class _Source:
    """The newest state, read at most once for every change however many pages are open."""

    def __init__(self, read: Callable[[], State], look: Look) -> None:
        self._read, self._look = read, look
        self._lock = threading.Lock()
        self._seen: Any = object()
        self._event: tuple[str, str] | None = None
        self.state: State | None = None

    def event(self) -> tuple[str, str]:
        """(kind, JSON) of the newest state; the same object while nothing changes."""
        with self._lock:
            seen = self._look()
            if self._event is None or seen != self._seen:
                self._event, self._seen = self._made(), seen
            return self._event

    def _made(self) -> tuple[str, str]:
        try:
            state = self._read()
        except (InputError, OSError) as exc:
            return "trouble", json.dumps(str(exc))
        self.state = state
        title = str(state.data.get("name") or "fiberscope watch")
        main = main_part([state.data])
        return "page", json.dumps({"main": main, "title": title, "said": state.said, "ended": state.ended})


@contextmanager
def live_page(
    read: Callable[[], State], look: Look, *, title: str | None = None, port: int = 0
) -> Iterator[ThreadingHTTPServer]:
    """A server of a live page on 127.0.0.1, not yet running: call its `serve_forever`, and `shutdown` from elsewhere.

    Only this machine reaches it, and only under its own name: requests that name another host are refused, so that no
    web page can read it through a forged name. Nothing but the page and its events is served, and nothing is accepted.

    Args:
        read: the newest state; called again when `look` changes.
        look: a cheap look at the source, such as size and time of a file.
        title: heading of the page.
        port: 0 picks a free one; `server_port` tells which.

    Raises:
        InputError: if the port is taken.
    """
    source = _Source(read, look)
    stop = threading.Event()
    try:
        server = ThreadingHTTPServer((HOST, port), _handler(source, stop, title))
    except (OSError, OverflowError) as exc:
        raise InputError(f"port {port} of {HOST} cannot be used ({exc}); give another with --port, or 0") from None
    server.daemon_threads = True
    try:
        yield server
    finally:
        stop.set()
        server.server_close()


def _handler(source: _Source, stop: threading.Event, title: str | None) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers for the page and for its events."""

        server_version, sys_version = "fiberscope", ""

        def do_GET(self) -> None:  # the name is the base class's
            """Send the page, or events until the browser leaves."""
            with contextlib.suppress(ConnectionError, TimeoutError):
                if not self._local():
                    self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "only this machine's own name is answered")
                elif self.path == "/":
                    self._page()
                elif self.path == "/events":
                    self._events()
                else:
                    self.send_error(HTTPStatus.NOT_FOUND)

        def log_message(self, *_: Any) -> None:  # the name is the base class's
            """Say nothing."""

        def _local(self) -> bool:
            name = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host")
            return name in (HOST, "localhost")

        def _head(self, kind: str) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()

        def _page(self) -> None:
            source.event()
            data = source.state.data if source.state is not None else {}
            text = document([data] if data else [], title, live=True)
            self._head("text/html")
            self.wfile.write(text.encode())

        def _events(self) -> None:
            self._head("text/event-stream")
            sent: Any = None
            beat = time.monotonic()
            while not stop.is_set():
                event = source.event()
                if event is not sent:
                    kind, text = sent = event
                    self.wfile.write(f"event: {kind}\ndata: {text}\n\n".encode())
                    beat = time.monotonic()
                elif time.monotonic() - beat > _BEAT:
                    self.wfile.write(b": here\n\n")
                    beat = time.monotonic()
                stop.wait(_POLL)

    return Handler
