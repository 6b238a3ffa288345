"""Bodies made to be much work: what they cost is counted, in bytes read, texts parsed and complaints written."""

import asyncio
import json

import pydantic_core
import pytest
from pydantic import ValidationError
from running_server import error_of, running, wait_for
from starlette.requests import Request

from fusionvl.serve import protocol
from fusionvl.serve.errors import ApiError
from fusionvl.serve.gate import Gate
from fusionvl.serve.settings import MIB, ServerSettings


def unknown_keys(size):
    """A request with as many unknown keys as so many bytes hold."""
    keys = b",".join(b'"k%d":1' % number for number in range(size // 12))
    return b'{"model":"scripted","messages":[{"role":"user","content":"hi"}],%b}' % keys


def parts_with_unknown_keys(messages, parts, keys):
    extra = {f"k{number}": number for number in range(keys)}
    content = [{"type": "text", "text": "x", **extra}] * parts
    return json.dumps({"model": "scripted", "messages": [{"role": "user", "content": content}] * messages}).encode()


HOSTILE = {
    "20 MB of unknown keys": (unknown_keys(19 * MIB), 413, "body_too_large"),
    "512 x 64 parts with 8 unknown keys": (parts_with_unknown_keys(512, 64, 8), 413, "body_too_large"),
    "a list of 10 million numbers": (b'{"model":[' + b"1," * (9 * MIB) + b"1]}", 413, "body_too_large"),
    "10 million nested lists": (b"[" * (10 * MIB), 413, "body_too_large"),
    "as many unknown keys as pass": (unknown_keys(280_000), 400, "unknown_parameter"),
    "as many wrong parts as pass": (parts_with_unknown_keys(30, 64, 8), 400, "unknown_parameter"),
    "a deep list": (b"[" * 90_000, 400, "invalid_json"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_are_refused_and_the_server_goes_on(server, name):
    body, status, code = HOSTILE[name]
    error = error_of(server.post(body), status, code)
    assert len(error["message"]) < 400
    assert server.ask("hi").status_code == 200


def read(body, chunk=64 * 1024):
    """Read a body through the gate's bounds; how many bytes were taken until the refusal."""
    sent = [body[start : start + chunk] for start in range(0, len(body), chunk)]
    taken = []

    async def receive():
        taken.append(sent[len(taken)])
        return {"type": "http.request", "body": taken[-1], "more_body": len(taken) < len(sent)}

    async def app(scope, receive, send):
        await Request(scope, receive).body()

    with pytest.raises(ApiError) as refused:
        asyncio.run(Gate(app, ServerSettings())({"type": "http", "path": "/", "headers": []}, receive, None))
    assert refused.value.code == "body_too_large"
    return sum(map(len, taken))


@pytest.mark.parametrize("name", [name for name, (_, status, _) in HOSTILE.items() if status == 413])
def test_what_is_much_work_is_not_even_read(name):
    """The 100,000th quote or comma ends the reading; in these bodies it comes early."""
    assert read(HOSTILE[name][0]) < MIB


@pytest.mark.parametrize("name", ["as many unknown keys as pass", "as many wrong parts as pass"])
def test_the_first_thing_wrong_is_the_only_one_written_down(name):
    given = pydantic_core.from_json(HOSTILE[name][0])
    with pytest.raises(ValidationError) as refused:
        protocol.ChatRequest.model_validate(given)
    assert refused.value.error_count() == 1


def test_wrong_lists_end_at_their_first_wrong_member():
    parts = [{"type": "audio"}] * 64
    messages = [{"role": "user", "content": parts}] * 512
    with pytest.raises(ValidationError) as refused:
        protocol.ChatRequest.model_validate({"model": "x", "messages": messages})
    assert refused.value.error_count() == 1
    assert protocol.refusal(refused.value).param == "messages.0.content.0"


def test_a_large_picture_is_little_work(server):
    """What the bound is for is not what people send: 10 MB of base64 hold no mark at all."""
    url = "data:image/png;base64," + "A" * (13 * MIB)
    body = {"content": [{"type": "image_url", "image_url": {"url": url}}]}
    error_of(server.ask(body["content"]), 400, "image_type_unsupported")


def test_a_number_of_choices_beyond_the_bound_builds_nothing(monkeypatch):
    """2**31 choices took 20 GB."""
    built = []
    monkeypatch.setattr("fusionvl.serve.chat.ChatCompletion", lambda request: built.append(request))
    with running() as server:
        for n in (9, 2**31, 2**70):
            assert error_of(server.ask(n=n), 400, "invalid_parameter")["param"] == "n"
        wait_for(lambda: not server.uvicorn.server_state.tasks)
    assert built == []
