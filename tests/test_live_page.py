"""The live page: what the small server sends, when, and to whom."""

from __future__ import annotations

import contextlib
import html
import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fiberscope.errors import InputError
from fiberscope.pages.serving import HOST, State, live_page


class Source:
    """A result that a test may change."""

    def __init__(self) -> None:
        self.value = 1
        self.ended = False
        self.broken = False
        self.reads = 0

    def read(self) -> State:
        self.reads += 1
        if self.broken:
            raise InputError("line 3 is no record")
        return State({"name": "a<b", "value": self.value}, f"step {self.value}", self.ended)

    def look(self) -> Any:
        return self.value, self.ended, self.broken


@contextlib.contextmanager
def serving(source: Source, **options: Any) -> Iterator[int]:
    with live_page(source.read, source.look, **options) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def get(port: int, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    link = http.client.HTTPConnection(HOST, port, timeout=10)
    link.request("GET", path, headers=headers)
    answer = link.getresponse()
    text = answer.read().decode()
    link.close()
    return answer.status, text, {k.lower(): v for k, v in answer.getheaders()}


@contextlib.contextmanager
def events(port: int) -> Iterator[Iterator[tuple[str, Any]]]:
    link = http.client.HTTPConnection(HOST, port, timeout=10)
    link.request("GET", "/events")
    answer = link.getresponse()
    assert answer.getheader("Content-Type", "").startswith("text/event-stream")

    def found() -> Iterator[tuple[str, Any]]:
        kind = ""
        while line := answer.readline().decode().rstrip("\n"):
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                assert answer.readline() == b"\n"
                yield kind, json.loads(line.removeprefix("data: "))

    try:
        yield found()
    finally:
        link.close()


def test_page_is_live_and_asks_only_its_own_server() -> None:
    with serving(Source(), title="a run") as port:
        status, text, headers = get(port, "/")
    assert status == 200 and "<h1>a run</h1>" in text and 'id="live"' in text and "a&lt;b" in text
    policy = html.unescape(text)
    assert "connect-src 'self'" in policy and "default-src 'none'" in policy
    assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff"


def test_every_change_is_one_event_and_the_last_says_so() -> None:
    source = Source()
    with serving(source) as port, events(port) as found:
        kind, first = next(found)
        assert (kind, first["said"], first["ended"]) == ("page", "step 1", False)
        assert first["main"].startswith("<main") and ">1<" in first["main"]
        source.value = 2
        kind, second = next(found)
        assert second["said"] == "step 2" and ">2<" in second["main"]
        source.broken = True
        assert next(found) == ("trouble", "line 3 is no record")
        source.broken, source.ended = False, True
        assert next(found)[1]["ended"]


def test_many_tabs_read_the_source_once() -> None:
    source = Source()
    with serving(source) as port, events(port) as one, events(port) as two:
        assert next(one) == next(two)
    assert source.reads == 1


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
def test_other_names_of_this_machine_are_refused(host: str) -> None:
    with serving(Source()) as port:
        status, text, _ = get(port, "/", Host=host)
    assert status == 421 and "a&lt;b" not in text


def test_nothing_else_is_served_or_accepted() -> None:
    with serving(Source()) as port:
        assert get(port, "/etc/passwd")[0] == 404 and get(port, "/../x")[0] == 404
        link = http.client.HTTPConnection(HOST, port, timeout=10)
        link.request("POST", "/", b"x")
        assert link.getresponse().status == 501
        link.close()


def test_taken_port_is_a_plain_error() -> None:
    source = Source()
    with serving(source) as port, pytest.raises(InputError, match=f"port {port}"):
        with live_page(source.read, source.look, port=port):
            pass
