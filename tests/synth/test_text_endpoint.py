import asyncio
import json
import re
from dataclasses import replace

import openai
import pytest
from endpoint import Handler, serving

from fusionvl.synth import text_endpoint
from fusionvl.synth.kinds import KINDS
from fusionvl.synth.prompts import Prompts
from fusionvl.synth.rows import Row, row_id, seed_of
from fusionvl.synth.steps import DescribeStep, QuestionStep
from fusionvl.synth.text_client import (
    Endpoint,
    LocalModel,
    Price,
    TextRequest,
    message,
    named_model,
    open_client,
)
from fusionvl.synth.text_endpoint import EndpointClient

PROMPTS = Prompts("English")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(text_endpoint, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)


def row(kind="SynthColor", **fields):
    return Row(id=row_id("test", "fruit", kind, "0"), kind=kind, caption="fruit", **fields)


def described(*urls, given=None, retries=2, timeout=20.0, count=1, price=None, **settings):
    """What the step makes of a row, or of several."""
    endpoint = Endpoint("test-model", list(urls), retries=retries, timeout=timeout, **settings)
    step = DescribeStep(EndpointClient(endpoint), PROMPTS, price or Price(), lambda *_: None)

    async def run():
        given_rows = [given or replace(row(), id=f"{number:032x}") for number in range(count)]
        return await asyncio.gather(*(step.run(each, 0) for each in given_rows))

    rows = asyncio.run(run())
    step.close()
    return rows[0] if count == 1 else rows


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.asked])
def test_every_kind_is_described_and_questioned(kind):
    with serving() as server:
        endpoint = EndpointClient(Endpoint("test-model", [server.url]))

        async def run():
            made = await DescribeStep(endpoint, PROMPTS, Price(), lambda *_: None).run(row(kind), 0)
            return await QuestionStep(endpoint, PROMPTS, Price(), lambda *_: None).run(made, 0)

        made = asyncio.run(run())
    assert made.status == "open"
    assert "apple" in made.description
    assert made.description.count("\n") == KINDS[kind].pictures - 1
    assert made.turns
    assert (made.attempts, made.input_tokens, made.output_tokens) == (2, 200, 40)
    assert made.models == {"describe": "test-model", "questions": "test-model"}
    assert made.seeds == {step: seed_of(made.id, step) for step in ("describe", "questions")}
    first, second = server.requests
    assert "Caption: fruit" in first["messages"][1]["content"]
    assert made.description in second["messages"][1]["content"]
    assert first["response_format"]["json_schema"]["schema"]["additionalProperties"] is False
    assert first["seed"] == made.seeds["describe"]


@pytest.mark.parametrize(
    "trouble", [(500, {}), (429, {"Retry-After": "0"}), "close mid-stream", "broken body", "hang"], ids=str
)
def test_what_may_pass_is_tried_again(trouble):
    with serving([trouble]) as server:
        made = described(server.url, timeout=0.5 if trouble == "hang" else 20.0)
    assert (made.status, made.attempts) == ("open", 2)
    assert "apple" in made.description
    assert server.requests[0] == server.requests[1]


@pytest.fixture
def sent_as_it_is(monkeypatch):
    """Has the server send what a script says after RAW as the whole body of its answer."""
    behave = Handler.behave

    def raw(handler, behaviour, asked):
        if isinstance(behaviour, str) and behaviour.startswith("RAW"):
            body = behaviour.removeprefix("RAW").encode("utf-8", "surrogateescape")
            handler.send(200, body, {"Content-Type": "text/html"} if body.startswith(b"<") else {})
        else:
            behave(handler, behaviour, asked)

    monkeypatch.setattr(Handler, "behave", raw)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("RAW<html>gateway</html>", "no chat completion: Invalid JSON.*'<html>"),
        ((200, {}), "choices: "),  # an error under the status of success
        ("RAWnull", "no chat completion: .*'null'"),
        ("RAW[]", r"no chat completion: .*'\[\]'"),
        ('RAW"hi"', "no chat completion: .*hi"),
        ('RAW{"choices": [{"index": 0}]}', "choices.0.message: "),
        ('RAW{"choices": [{"index": 0, "message": {"content": [{"type": "text"}]}}]}', "choices.0.message.content: "),
        ('RAW{"choices": "\udcff"}', "no chat completion: Invalid JSON"),
    ],
    ids=str,
)
def test_a_body_that_is_no_answer_is_tried_again_then_an_error(sent_as_it_is, body, fault):
    with serving([body]) as server:
        made = described(server.url)
    assert (made.status, made.attempts) == ("open", 2)
    with serving([body] * 3) as server:
        made = described(server.url)
    assert (made.status, made.attempts) == ("error", 3)
    assert re.search(rf"the answer is broken \(.*{fault}", made.reason)


def test_an_answer_without_counts_is_an_answer(sent_as_it_is):
    message = {"content": '{"description": "A red apple lies on the table."}'}
    body = json.dumps({"choices": [{"message": message}], "usage": {"prompt_tokens": None}})
    with serving([f"RAW{body}"]) as server:
        made = described(server.url)
    assert made.description == "A red apple lies on the table."
    assert (made.attempts, made.input_tokens, made.models) == (1, 0, {"describe": "test-model"})


def test_what_does_not_pass_becomes_an_error():
    with serving([(500, {})] * 3) as server:
        made = described(server.url)
    assert (made.status, made.attempts) == ("error", 3)
    assert made.reason == f"describe: {server.url}: Error code: 500 - test 500"
    assert len(server.requests) == 3


def test_a_request_that_is_refused_is_an_error_at_once():
    with serving([(400, {})]) as server:
        made = described(server.url)
    assert (made.status, made.attempts, len(server.requests)) == ("error", 1, 1)
    assert "Error code: 400" in made.reason


@pytest.mark.parametrize(("status", "words"), [(401, "refuses the key"), (404, "knows no such model")])
def test_what_no_request_would_pass_stops_the_run(status, words):
    with serving([(status, {})]) as server, pytest.raises(ValueError, match=f"{words}.*TEST_KEY"):
        described(server.url, api_key_variable="TEST_KEY")


def test_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sesame")
    with serving() as server:
        described(server.url, api_key_variable="TEST_KEY")
    assert server.keys == ["Bearer sesame"]


def test_retry_after_is_kept_by_all_requests():
    with serving([(429, {"Retry-After": "1"})]) as server:
        described(server.url)
    first, second = server.times
    assert second - first >= 1.0


def test_several_endpoints_share_the_work_and_stand_in_for_each_other():
    with serving(latency=0.05) as one, serving(latency=0.05) as two:
        described(one.url, two.url, count=16)
    assert len(one.requests) == len(two.requests) == 8
    with serving(latency=0.05) as alive:
        made = described(one.url, alive.url, count=8)  # the first one is gone by now
    assert [each.status for each in made] == ["open"] * 8, [each.reason for each in made]
    assert len(alive.requests) == 8


def test_an_endpoint_that_failed_rests_and_one_request_finds_out_whether_it_is_back(monkeypatch):
    with serving() as ill, serving() as well:
        client = EndpointClient(Endpoint("test-model", [ill.url, well.url], retries=0))
        ill.script = [(500, {})]

        async def ask(count):
            requests = [TextRequest((message("user", "hi"),), schema={}, schema_name="Description")] * count
            return await asyncio.gather(*map(client.complete, requests))

        async def run():
            await ask(1)
            await ask(4)
            assert (len(ill.requests), len(well.requests)) == (1, 5)
            for server in client._servers:
                server.rests_until = 0.0
            await ask(4)  # at once: the one that goes to it has not come back yet
            assert len(ill.requests) == 2
            await ask(8)
            assert len(ill.requests) == 6

        asyncio.run(run())


def test_nobody_answers():
    with serving() as server:
        url = server.url
    made = described(url, retries=1)
    assert (made.status, made.attempts) == ("error", 2)
    assert "connection failed" in made.reason


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("no choice", "the answer is empty"),
        ("empty choice", "the answer is empty"),
        ("Sure! Here it is.", "the answer holds no JSON object"),
        ('{"description": "A red apple lies on the tab}', "no valid JSON"),
        ('{"description": "short"}', "description: String should have at least 20 characters"),
        ('{"caption": "A red apple lies on the table."}', "description: Field required; caption: Extra inputs"),
        ('cut {"description": "A red apple" }', "cut off at the token limit"),
    ],
)
def test_an_answer_that_does_not_fit_is_repaired_once_then_rejected(answer, fault):
    with serving([answer]) as server:
        made = described(server.url)
    assert (made.status, made.attempts) == ("open", 2)
    assert made.seeds.keys() == {"describe", "describe.repair"}
    assert server.requests[0]["seed"] != server.requests[1]["seed"]
    repair = server.requests[1]["messages"]
    if "choice" in answer:
        assert repair == server.requests[0]["messages"]
    else:
        assert [message["role"] for message in repair] == ["system", "user", "assistant", "user"]
        assert repair[2]["content"] == answer
        assert fault in repair[3]["content"]
    with serving([answer, answer]) as server:
        made = described(server.url)
    assert made.status == "rejected"
    assert fault in made.reason
    assert made.input_tokens == 200  # what was paid for is counted


def test_json_with_something_around_it_is_taken():
    with serving(['```json\n{"description": "A red apple lies on the table."}\n```']) as server:
        assert described(server.url).description == "A red apple lies on the table."


def test_a_caption_in_another_language_goes_as_it_is_and_the_prompt_names_the_language():
    given = replace(row(), caption="一只红苹果 на столе")
    with serving() as server:
        described(server.url, given=given)
    system, user = (message["content"] for message in server.requests[0]["messages"])
    assert "一只红苹果 на столе" in user
    assert "Write in English, whatever language" in system


def test_what_is_asked_depends_on_the_row_alone():
    asked = []
    for _ in range(2):
        with serving() as server:
            described(server.url)
        asked.append(server.requests[0])
    assert asked[0] == asked[1]


def test_pictures_travel_in_the_message(tmp_path):
    path = tmp_path / "red.png"
    path.write_bytes(b"pixels")
    assert message("user", "What?", [path]) == {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,cGl4ZWxz"}},
            {"type": "text", "text": "What?"},
        ],
    }
    with pytest.raises(ValueError, match=r"red.txt: a picture for a language model ends in .jpg"):
        message("user", "What?", [tmp_path / "red.txt"])


def test_free_text_is_asked_for_without_a_schema():
    with serving(["A cup."]) as server:
        client = open_client(Endpoint("m", [server.url]))
        assert asyncio.run(client.complete(TextRequest((message("user", "What?"),)))).text == "A cup."
    assert "response_format" not in server.requests[0]


def test_models_by_name():
    assert named_model("http://a/v1#m", max_tokens=5) == Endpoint("m", ["http://a/v1"], temperature=0, max_tokens=5)
    local = {"temperature": 0.0, "max_tokens": 5, "dtype": "auto", "devices": ["auto"]}
    assert named_model("org/model", max_tokens=5) == LocalModel("org/model", **local)
    assert named_model("package:a/b.gguf", max_tokens=5) == LocalModel("package:a", gguf_file="b.gguf", **local)
    with pytest.raises(ValueError, match="name the endpoint's model too, as http://a/v1#MODEL"):
        named_model("http://a/v1", max_tokens=5)
    with pytest.raises(ValueError, match="base_urls names no endpoint"):
        open_client(Endpoint("m", []))
