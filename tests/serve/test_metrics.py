"""What `/metrics` counts, and what it does not."""

import re

import httpx
import pytest
from running_server import running, wait_for


@pytest.fixture(scope="module")
def hurried():
    """A server that gives an answer two seconds."""
    with running(limits={"answer_seconds": 2}) as server:
        yield server


def count(server, name):
    found = re.search(rf'^fusionvl_{name}{{model="scripted"}} (\S+)$', server.http.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("text", ["fail", "refuse", "full", "crash", "repeat slow 1000 0.02"])
def test_who_was_waited_for_does_not_count_as_cancelled(hurried, text, stream):
    before = count(hurried, "cancelled_total")
    hurried.ask(text, stream=stream)
    assert count(hurried, "cancelled_total") == before


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_left_counts_for_each_of_its_answers(server, stream):
    before = count(server, "cancelled_total")
    body = {"model": "scripted", "stream": stream, "n": 2}
    body["messages"] = [{"role": "user", "content": "repeat tired 500 0.05"}]
    impatient = httpx.Timeout(10, read=0.5)
    if stream:
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=impatient) as response:
            next(response.iter_lines())
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=impatient)
    wait_for(lambda: count(server, "cancelled_total") == before + 2)


def test_answers_are_counted_and_not_requests(server):
    """What docs/serving_many.md divides by."""
    answers = count(server, "answer_seconds_count")
    server.ask("hello", n=2)
    server.ask("refuse")
    server.http.get("/health")
    assert count(server, "answer_seconds_count") == answers + 2
