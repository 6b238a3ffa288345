"""Workers that die, hang, load in vain or are left alone; clients that leave."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import pytest
from running_server import SCRIPTED, error_of, running, wait_for
from scripted_model import load_scripted

from fusionvl import cli
from fusionvl.serve.app import create_app
from fusionvl.serve.errors import ApiError
from fusionvl.serve.server import listen, run_server
from fusionvl.serve.settings import ServedModel

HERE = Path(__file__).parent
SRC = HERE.parents[1] / "src"


def worker_of(server, model="scripted"):
    return server.app.state.pool.slots[model].worker


def is_alive(pid):
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_killed_worker_is_replaced_and_its_clients_are_told(server):
    answers = []
    threads = [
        threading.Thread(target=lambda stream=stream: answers.append(server.ask("repeat a 1000 0.02", stream=stream)))
        for stream in (False, False, True)
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: server.app.state.pool.slots["scripted"].answers == 3)
    wait_for(lambda: sum(line.startswith("begin repeat a") for line in server.log()) == 3)
    pid = worker_of(server).pid
    os.kill(pid, signal.SIGKILL)
    for thread in threads:
        thread.join(20)
    assert sorted(answer.status_code for answer in answers) in ([200, 503, 503], [503, 503, 503])
    for answer in answers:
        assert "worker_crashed" in answer.text
        if answer.status_code == 503:
            assert error_of(answer, 503, "worker_crashed")["type"] == "server_error"
            assert int(answer.headers["Retry-After"]) >= 1
    assert server.ask("and now?").status_code == 200
    assert worker_of(server).pid != pid
    assert 'fusionvl_worker_restarts{model="scripted"} 1.0' in server.http.get("/metrics").text


def test_a_request_that_kills_its_worker_kills_nothing_else(server):
    error_of(server.ask("crash"), 503, "worker_crashed")
    assert server.ask("still there?").status_code == 200


def test_a_full_line_is_told_and_a_broken_one_replaced(server):
    answer = server.ask("full")
    error_of(answer, 429, "queue_full")
    assert "Retry-After" in answer.headers
    pid = worker_of(server).pid
    error_of(server.ask("closed"), 503, "worker_crashed")
    assert server.ask("still there?").status_code == 200
    assert worker_of(server).pid != pid


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_its_work(server, stream):
    def leave(text):
        body = {"model": "scripted", "stream": stream, "messages": [{"role": "user", "content": text}]}
        with httpx.Client(base_url=server.url, timeout=httpx.Timeout(10, read=0.5)) as http:
            if not stream:
                with pytest.raises(httpx.ReadTimeout):
                    http.post("/v1/chat/completions", json=body)
                return
            with http.stream("POST", "/v1/chat/completions", json=body) as response:
                next(response.iter_lines())

    before = len(server.log())
    leave("repeat tired 500 0.05")
    wait_for(lambda: any(line.startswith("cancelled after") for line in server.log()[before:]))
    stopped = next(line for line in server.log()[before:] if line.startswith("cancelled after"))
    assert int(stopped.split()[2]) < 100, "far from all 500"
    wait_for(lambda: server.app.state.pool.slots["scripted"].answers == 0)
    assert 'fusionvl_cancelled_total{model="scripted"}' in server.http.get("/metrics").text


def test_the_official_client_stops_a_stream_by_closing_it(server, client):
    before = len(server.log())
    stream = client.chat.completions.create(
        model="scripted", messages=[{"role": "user", "content": "repeat enough 500 0.05"}], stream=True, n=2
    )
    next(iter(stream))
    stream.close()
    wait_for(lambda: sum(line.startswith("cancelled") for line in server.log()[before:]) == 2)


def test_a_worker_that_gives_no_sign_of_life_is_replaced():
    with running(workers={"silence_seconds": 1.5}) as server:
        worker = worker_of(server)
        call(worker, "mute")
        answer = server.ask("repeat a 2 60")
        error_of(answer, 503, "worker_crashed")
        assert server.ask("hi").status_code == 200
        assert worker_of(server).pid != worker.pid


def test_a_worker_whose_batching_has_ended_is_replaced_at_once(server):
    """And not only when the next request finds out."""
    ended = worker_of(server)
    call(ended, "end")
    wait_for(lambda: worker_of(server) not in (None, ended))
    assert not is_alive(ended.pid)
    assert server.ask("hi").status_code == 200


def test_calls_that_nobody_waits_for_do_not_begin(server):
    worker = worker_of(server)
    first, second = (
        asyncio.run_coroutine_threadsafe(worker.call("nap", who=name, seconds=1), worker._loop)
        for name in ("first", "second")
    )
    server.wait_for_log("nap first")
    second.cancel()
    error_of(server.ask("refuse this"), 400, "invalid_request")
    first.result(10)
    assert call(worker, "add", a=1, b=2) == 3, "what came after them is done"
    assert "nap second" not in server.log()


def test_a_model_that_cannot_be_loaded_again_at_once_is_tried_again():
    with running(models=(ServedModel("scripted", "shaky"),)) as server:
        os.kill(worker_of(server).pid, signal.SIGKILL)
        wait_for(lambda: sum(line.startswith("load shaky") for line in server.log()) == 2)
        wait_for(lambda: server.http.get("/ready").status_code == 503)
        wait_for(lambda: server.http.get("/ready").status_code == 200)
        assert server.ask("hi").status_code == 200
        assert sum(line.startswith("load shaky") for line in server.log()) == 3


def call(worker, name, **arguments):
    return asyncio.run_coroutine_threadsafe(worker.call(name, **arguments), worker._loop).result(10)


def test_calls_return_refuse_and_fail(server):
    server.ask("hi")
    worker = worker_of(server)
    assert call(worker, "add", a=1, b=2) == 3
    for name, arguments, code in (
        ("refuse", {}, "invalid_request"),
        ("add", {"a": 1}, "generation_failed"),
        ("nothing", {}, "generation_failed"),
    ):
        with pytest.raises(ApiError) as raised:
            call(worker, name, **arguments)
        assert raised.value.code == code


def start_process(tmp_path, *arguments):
    """A server with scripted models as a process of its own, as the command runs it."""
    log = tmp_path / "script.log"
    process = subprocess.Popen(
        [sys.executable, str(HERE / "serve_scripted.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "stderr").open("w"),
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC), "FUSIONVL_SCRIPT_LOG": str(log)},
    )
    url = process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:"), (tmp_path / "stderr").read_text()
    http = httpx.Client(base_url=url, timeout=30)
    wait_for(lambda: http.get("/ready").status_code == 200)
    worker_pid = int(log.read_text().split()[-1])
    return process, http, worker_pid


def test_sigterm_lets_running_answers_finish(tmp_path):
    process, http, worker_pid = start_process(tmp_path)
    client = openai.OpenAI(base_url=f"{http.base_url}/v1", api_key="none", max_retries=0)
    messages = [{"role": "user", "content": "repeat word 30 0.05"}]
    stream = iter(client.chat.completions.create(model="scripted", messages=messages, stream=True))
    next(stream)
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: http.get("/ready").status_code == 503)
    body = {"model": "scripted", "messages": messages}
    answer = http.post("/v1/chat/completions", json=body)
    error_of(answer, 503, "shutting_down")
    assert int(answer.headers["Retry-After"]) >= 1
    assert http.get("/health").status_code == 200
    chunks = list(stream)
    assert sum(bool(chunk.choices[0].delta.content) for chunk in chunks) == 30
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert process.wait(20) == 0
    assert not is_alive(worker_pid)


def test_sigterm_does_not_wait_for_ever(tmp_path):
    process, http, worker_pid = start_process(tmp_path, "0.3")
    answers = []

    def ask():
        body = {"model": "scripted", "stream": True, "messages": [{"role": "user", "content": "repeat a 10000 0.05"}]}
        with http.stream("POST", "/v1/chat/completions", json=body) as response:
            answers.append("started")
            answers.append([line for line in response.iter_lines() if line])

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    wait_for(lambda: answers == ["started"])
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert not is_alive(worker_pid)
    thread.join(20)
    assert '"code": "shutting_down"' in answers[1][-2], "who still waits is told"


def test_a_worker_whose_server_is_killed_ends(tmp_path):
    process, _, worker_pid = start_process(tmp_path)
    assert is_alive(worker_pid)
    process.kill()
    process.wait(20)
    wait_for(lambda: not is_alive(worker_pid))


def test_a_first_model_that_cannot_be_loaded_ends_the_server():
    settings = replace(SCRIPTED, models=(ServedModel("a", "broken"),))
    with pytest.raises(ValueError, match="The folder broken cannot be loaded"):
        run_server(create_app(settings, load_scripted), "127.0.0.1", 0, 1.0, lambda url: None)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_number_that_is_no_port_is_refused(port):
    with pytest.raises(ValueError, match=rf"port {port}: "):
        listen("127.0.0.1", port)


def test_mistakes_on_the_command_line_end_it_with_a_sentence(capsys, tmp_path):
    for arguments, reason in (
        ([str(tmp_path / "nothing")], f"There is no folder {tmp_path / 'nothing'}"),
        (["--api-key-file", str(tmp_path / "keys")], "cannot be read"),
        (["--host", "host.invalid"], "cannot listen at host.invalid"),
    ):
        assert cli.main(["serve", *arguments, "--port", "0"]) == 2
        captured = capsys.readouterr()
        assert reason in captured.err
        assert "Traceback" not in captured.err
