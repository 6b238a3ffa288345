"""How a server begins and ends: loading, signals under load, few open files; in processes, as users run it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
from running_server import error_of, running, wait_for

from fusionvl.serve.app import create_app
from fusionvl.serve.server import listen, run_server
from fusionvl.serve.settings import ServerSettings

HERE = Path(__file__).parent
SRC = HERE.parents[1] / "src"


@dataclass
class Process:
    """A server with a scripted engine as a process of its own."""

    process: subprocess.Popen
    url: str
    http: httpx.Client
    stderr: Path

    def send(self, signal_number):
        self.process.send_signal(signal_number)

    def ends(self):
        """Its exit code; fails when it does not end."""
        return self.process.wait(20)

    def stream(self, text):
        """Ask in the background; a list that gets the lines of the stream, at the end None."""
        lines = []

        def ask():
            body = {"model": "scripted", "stream": True, "messages": [{"role": "user", "content": text}]}
            with (
                contextlib.suppress(httpx.HTTPError),
                httpx.stream("POST", f"{self.url}/v1/chat/completions", json=body, timeout=60) as response,
            ):
                lines.extend(line for line in response.iter_lines() if line)
            lines.append(None)

        threading.Thread(target=ask, daemon=True).start()
        return lines


@pytest.fixture
def start(tmp_path):
    """Starts servers; their options are those of `serve_scripted.py`."""
    with contextlib.ExitStack() as opened:

        def start(*arguments, files=None):
            stderr = tmp_path / "stderr"
            command = [sys.executable, str(HERE / "serve_scripted.py"), *arguments]
            if files is not None:
                command = ["bash", "-c", f'ulimit -n {files}; exec "$@"', "bash", *command]
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=opened.enter_context(stderr.open("w")),
                text=True,
                env={**os.environ, "PYTHONPATH": str(SRC)},
            )
            opened.callback(process.wait)
            opened.callback(process.kill)
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:"), stderr.read_text()
            http = opened.enter_context(httpx.Client(base_url=url, timeout=30))
            wait_for(lambda: http.get("/health").status_code == 200)
            return Process(process, url, http, stderr)

        yield start


def test_the_first_signal_lets_running_answers_finish(start):
    server = start()
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    messages = [{"role": "user", "content": "repeat word 30 0.05"}]
    stream = iter(client.chat.completions.create(model="scripted", messages=messages, stream=True))
    next(stream)
    server.send(signal.SIGTERM)
    wait_for(lambda: server.http.get("/health").status_code == 503)
    error_of(server.http.get("/health"), 503, "shutting_down")
    answer = server.http.post("/v1/chat/completions", json={"model": "scripted", "messages": messages})
    error_of(answer, 503, "shutting_down")
    assert int(answer.headers["Retry-After"]) >= 1
    chunks = list(stream)
    assert sum(bool(chunk.choices[0].delta.content) for chunk in chunks) == 30
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert server.ends() == 0
    assert server.stderr.read_text() == ""


def test_draining_does_not_take_for_ever(start):
    server = start("0.3")
    lines = server.stream("repeat a 10000 0.05")
    waiting = server.stream("never")
    wait_for(lambda: lines)
    server.send(signal.SIGTERM)
    assert server.ends() == 0
    wait_for(lambda: lines[-1] is None)
    assert '"code": "shutting_down"' in lines[-3], "who still waits is told"
    wait_for(lambda: waiting[-1] is None)
    assert server.stderr.read_text() == ""


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_without_noise(start, kind):
    """While one answer runs, one waits, one body is half sent and one client does not read."""
    server = start("60")
    lines, waiting = server.stream("repeat a 10000 0.05"), server.stream("never")
    address = ("127.0.0.1", httpx.URL(server.url).port)
    with socket.create_connection(address) as half_sent:
        half_sent.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        wait_for(lambda: lines)
        server.send(kind)
        wait_for(lambda: server.http.get("/health").status_code == 503)
        server.send(kind)
        assert server.ends() == 0
        assert half_sent.recv(65536) == b"", "no 500"
    for told in (lines, waiting):
        wait_for(lambda told=told: told and told[-1] is None)
    assert '"code": "shutting_down"' in lines[-3]
    assert not [line for line in waiting if line and "Internal Server Error" in line]
    assert server.stderr.read_text() == ""


def test_three_signals_under_load_end_it(start):
    server = start("60")
    streams = [server.stream("repeat a 10000 0.01") for _ in range(8)]
    wait_for(lambda: any(streams))
    for _ in range(3):
        if server.process.poll() is None:
            server.send(signal.SIGINT)
            time.sleep(0.2)
    server.ends()


def test_half_sent_heads_take_no_server_down_that_may_open_few_files(start):
    """More of them than files, held until the server closes them; the log stays empty."""
    server = start(files=120)
    address = ("127.0.0.1", httpx.URL(server.url).port)
    with contextlib.ExitStack() as opened:
        for _ in range(150):
            connection = opened.enter_context(socket.create_connection(address))
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n")

        def is_well():
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"{server.url}/health").status_code == 200

        wait_for(is_well, 60)
    assert server.stderr.read_text() == ""


def test_until_the_model_is_loaded_it_is_not_ready_and_requests_wait():
    from scripted_engine import ScriptedEngine

    loaded = threading.Event()

    def load():
        assert loaded.wait(60)
        return ScriptedEngine()

    with running(load=load, ready=False) as server:
        answer = server.http.get("/health")
        error_of(answer, 503, "not_ready")
        assert int(answer.headers["Retry-After"]) >= 1
        asked = server.in_background("hello")
        wait_for(lambda: server.app.state.line.waiting == 1)
        loaded.set()
        assert asked().status_code == 200
        assert server.http.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("The folder broken cannot be loaded"), "The folder broken cannot be loaded"),
        (MemoryError("of some sort"), "the model cannot be loaded: MemoryError"),
    ],
)
def test_a_model_that_cannot_be_loaded_ends_the_server(error, told):
    def load():
        raise error

    with pytest.raises(ValueError, match=told):
        run_server(create_app("a", load, ServerSettings()), "127.0.0.1", 0, 1.0, lambda url: None)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_number_that_is_no_port_is_refused(port):
    with pytest.raises(ValueError, match=rf"port {port}: "):
        listen("127.0.0.1", port)


def test_a_port_that_is_taken_is_refused():
    with listen("127.0.0.1", 0) as taken, pytest.raises(ValueError, match="cannot listen at"):
        listen("127.0.0.1", taken.getsockname()[1])
