"""The HTTP server itself, over real connections: slow, wrong and hostile clients."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rest.stream import MAX_STREAMS
from tests.rest.serve import MAX_BODY
from tests.support.ovs import wait_for

GET = b"GET /v1/switches HTTP/1.1\r\nHost: x\r\n"
NEW = json.dumps({"lwb4": "2001:db8:b4::9", "ipv4": "192.0.2.2", "psid": 9}).encode()


Server = subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[int, Server]]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        number = int(found.getsockname()[1])
    process = subprocess.Popen([sys.executable, "-m", "tests.rest.serve", str(number)])
    try:
        wait_for("the server listens", lambda: answers(number), 60)
        yield number, process
        assert process.poll() is None, "the server has died"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def port(server: tuple[int, Server]) -> int:
    return server[0]


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        return exchange(port, GET + b"\r\n")[0][0] == 200
    return False


def receive(connection: socket.socket) -> bytes:
    """Everything until the server closes, at most ten seconds of it."""
    connection.settimeout(10)
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            received += part
    return received


def exchange(port: int, *parts: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Send, say that nothing follows, and read the answers: status, headers and body of each."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        with contextlib.suppress(OSError):  # it may have refused by now
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
        return parse(receive(connection))


def parse(received: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        found.append((int(status.split()[1]), headers, received[:length]))
        received = received[length:]
    return found


def post(body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST /v1/bindings HTTP/1.1", b"Host: x", b"Content-Type: application/json", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def length(body: bytes) -> bytes:
    return b"Content-Length: %d" % len(body)


def test_requests_follow_each_other_on_one_connection(port: int) -> None:
    replies = exchange(port, (GET + b"\r\n") * 3)
    assert [status for status, _, _ in replies] == [200] * 3


def test_a_request_in_pieces(port: int) -> None:
    text = post(b"{}", length(b"{}"), b"Connection: close")
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(text), 7):
            connection.sendall(text[at : at + 7])
        ((status, _, body),) = parse(receive(connection))
    assert status == 422
    assert [error["field"] for error in json.loads(body)["errors"]] == ["lwb4", "ipv4"]


def test_the_absolute_form_is_understood(port: int) -> None:
    request = b"GET http://127.0.0.1/v1/switches?x=1 HTTP/1.1\r\nHost: x\r\n\r\n"
    ((status, _, body),) = exchange(port, request)
    assert (status, json.loads(body)["errors"][0]["field"]) == (400, "x")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post(NEW, length(NEW), length(NEW + b" ")), 400),
        (post(NEW, length(NEW), b"Transfer-Encoding: chunked"), 400),
        (post(b"2\r\n{}\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"), 411),
        (post(NEW, b"Content-Length: -5"), 400),
        (post(NEW, b"Content-Length: 0x10"), 400),
        (post(NEW, b"Content-Length: " + b"9" * 30), 413),
        (post(b" " * (MAX_BODY + 1), length(b" " * (MAX_BODY + 1))), 413),
        (post(b" " * 3_000_000, length(b" " * 3_000_000)), 413),
        (post(NEW, b"Content-Length: %d" % (len(NEW) + 1)), 400),  # ends too early
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 414),
        (GET + b"X-Long: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (GET + b"X: 1\r\n" * 10_000 + b"\r\n", 431),
        (GET + b"no colon\r\n\r\n", 400),
        (GET + b"X : 1\r\n\r\n", 400),
        (b"GET /v1 HTTP/1.1\r\n\r\n", 400),  # no Host
        (GET + b"Host: y\r\n\r\n", 400),
        (b"hello\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /v1 HTTP/9.9\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40) + b"\r\n\r\n", 400),  # TLS
        (b"GET /v1/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ],
)
def test_what_is_refused_is_refused_in_json(port: int, request_: bytes, status: int) -> None:
    replies = exchange(port, request_)
    assert replies, "closed without a word"
    seen, headers, body = replies[0]
    assert seen == status
    assert headers["content-type"] == "application/problem+json"
    problem = json.loads(body)
    assert problem["status"] == status
    assert problem["detail"]
    assert len(replies) == 1  # the rest of a body is no request


def test_after_a_refused_body_the_connection_ends(port: int) -> None:
    body = b" " * (MAX_BODY + 1)
    replies = exchange(port, post(body, length(body)), GET + b"\r\n")
    assert [status for status, _, _ in replies] == [413]


@pytest.mark.parametrize(
    "begun", [b"GET /v1 HT", GET, post(NEW[:10], length(NEW))], ids=["line", "head", "body"]
)
def test_a_slow_client_is_not_waited_for(port: int, begun: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(begun)
        started = time.monotonic()
        replies = parse(receive(connection))
        assert time.monotonic() - started < 8
    assert [status for status, _, _ in replies] in ([], [408])
    assert answers(port)


def test_many_idle_connections_keep_nobody_out(port: int) -> None:
    idle = []
    try:
        for _ in range(400):
            with contextlib.suppress(OSError):
                idle.append(socket.create_connection(("127.0.0.1", port), timeout=5))
        wait_for("a request is answered", lambda: answers(port), 10)
    finally:
        for connection in idle:
            connection.close()


def test_a_client_in_a_hurry_waits_its_turn(server: tuple[int, Server]) -> None:
    port, process = server
    # While the server stands still, one client sends many requests, another client one.
    process.send_signal(signal.SIGSTOP)
    events = b"GET /v1/events?limit=1 HTTP/1.1\r\nHost: x\r\n\r\n"
    with contextlib.ExitStack() as stack:
        many, one = (
            stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(2)
        )
        many.sendall(events * 200)
        one.sendall(post(NEW, length(NEW)))
        many.shutdown(socket.SHUT_WR)
        one.shutdown(socket.SHUT_WR)
        process.send_signal(signal.SIGCONT)
        seen = [json.loads(body)["last"] for _, _, body in parse(receive(many))]
        assert [status for status, _, _ in parse(receive(one))] == [201]
    # The many were not all answered before the one.
    assert len(seen) == 200
    assert seen[-1] == seen[0] + 1


STREAM = b"GET /v1/events/stream HTTP/1.1\r\nHost: x\r\n\r\n"


def test_an_event_is_sent_as_it_happens(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(STREAM)
        received = b""
        while b"retry: 1000\n" not in received:
            received += connection.recv(1 << 16)
        body = NEW.replace(b'"psid": 9', b'"psid": 19')
        assert exchange(port, post(body, length(body)))[0][0] == 201
        while b"event: binding-created\n" not in received:
            received += connection.recv(1 << 16)
            assert received, "the stream has ended"


def test_streams_of_events_leave_room_for_others(port: int) -> None:
    with contextlib.ExitStack() as opened:

        def open_one() -> bool:
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
            opened.enter_context(connection)
            connection.sendall(STREAM)
            return connection.recv(12) == b"HTTP/1.1 200"

        # That of another test may not have been missed yet.
        assert MAX_STREAMS - 5 < sum(iter(open_one, False)) <= MAX_STREAMS
        ((status, headers, body),) = exchange(port, STREAM)
        assert (status, headers["retry-after"]) == (503, "30")
        assert "64 streams of events are open" in json.loads(body)["detail"]
        assert answers(port)
        opened.close()
        wait_for("a place is free again", open_one, 10)


@settings(suppress_health_check=list(HealthCheck), max_examples=60, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=60).map(lambda tail: GET + tail + b"\r\n\r\n"),
        st.binary(max_size=60).map(lambda tail: post(tail, length(tail))),
        st.builds(
            lambda at, byte: (t := bytearray(post(NEW, length(NEW))))[:at] + bytes([byte]) + t[at:],
            st.integers(0, 90), st.integers(0, 255),
        ),
    )
)  # fmt: skip
def test_no_bytes_are_a_fault(port: int, data: bytes) -> None:
    for status, headers, body in exchange(port, bytes(data)):
        assert status < 500 or status in (501, 505)
        if status >= 400:
            assert headers["content-type"] == "application/problem+json"
            assert json.loads(body)["status"] == status
