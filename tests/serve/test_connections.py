"""Connections, really made: without delay, bounded in number, and closed when nothing whole comes."""

import contextlib
import json
import logging
import socket

from running_server import running, wait_for

from fusionvl.serve.connection import ConnectionLimits

SHORT = ConnectionLimits(most=50, at_once=50, head_seconds=0.5, stall_seconds=0.5)
REQUEST = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def ended(connection, seconds=20):
    """Whether the server closes the connection; fails when it does not."""
    connection.settimeout(seconds)
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(65536):
            pass
    return True


def test_small_packets_are_sent_at_once(server):
    """Without TCP_NODELAY every answer on a kept connection waits for some 40 ms."""
    with socket.create_connection(server.address) as connection:
        connection.sendall(REQUEST)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        sockets = [one.transport.get_extra_info("socket") for one in server.uvicorn.server_state.connections]
        assert sockets
        assert all(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for one in sockets)


def test_a_connection_that_sends_no_whole_head_is_closed():
    half = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow: "
    with running(connections=SHORT) as server:
        for sent in (b"", half, REQUEST + half, REQUEST):
            with socket.create_connection(server.address) as connection:
                connection.sendall(sent)
                assert ended(connection)
        wait_for(lambda: len(server.uvicorn.server_state.connections) <= 1)  # the tests' own client's


def test_a_head_that_trickles_is_given_no_more_time():
    with running(connections=SHORT) as server, socket.create_connection(server.address) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX-Slow: ")
        connection.settimeout(0.05)
        for _ in range(400):
            with contextlib.suppress(TimeoutError):
                connection.sendall(b"x")
                if connection.recv(1) == b"":
                    return
    raise AssertionError("the connection is still open")


def test_an_answer_longer_than_the_wait_for_a_head_is_not_cut():
    with running(connections=SHORT) as server:
        assert server.ask("repeat word 15 0.1").json()["choices"][0]["message"]["content"] == "word " * 15


def test_a_client_that_does_not_read_is_cut_off_and_its_work_stops():
    body = {"model": "scripted", "stream": True, "max_tokens": 10**6}
    body["messages"] = [{"role": "user", "content": "repeat word 1000000 0.0001"}]
    content = json.dumps(body).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(content)
    with running(connections=SHORT) as server, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(server.address)
        connection.sendall(head + content)
        server.wait_for_log("cancelled", 60)
        assert server.ask("hi").status_code == 200


def test_connections_beyond_the_bound_are_closed_at_once_and_told_nowhere(caplog):
    """No file is left for anything else otherwise, and the log grows by megabytes a second."""
    caplog.set_level(logging.DEBUG)
    limits = ConnectionLimits(most=5, at_once=50)
    with running(connections=limits) as server, contextlib.ExitStack() as opened:
        held = [opened.enter_context(socket.create_connection(server.address)) for _ in range(40)]
        wait_for(lambda: len(server.uvicorn.server_state.connections) == 5)
        refused = [connection for connection in held if is_closed(connection)]
        assert len(refused) == 40 - 4  # one of the five is the tests' own client
        opened.close()
        wait_for(lambda: len(server.uvicorn.server_state.connections) <= 1)
        assert server.http.get("/health").status_code == 200
    assert not [record for record in caplog.records if record.name.startswith(("uvicorn", "asyncio.server"))]


def is_closed(connection):
    connection.settimeout(0.2)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def test_as_many_connections_as_files_may_be_open(monkeypatch):
    resource = __import__("resource")
    for files in (64, 120, 1024, 4096, resource.RLIM_INFINITY):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        limits = ConnectionLimits.of_process()
        assert 1 <= limits.at_once <= 128
        assert 1 <= limits.most <= 512
        if files != resource.RLIM_INFINITY:
            assert limits.most + limits.at_once < files - 40, "files for the process itself"
