"""Chat completions through the official client and by hand: what comes out, and what is refused."""

import re

import openai
import pytest
from running_server import error_of

QUESTION = [{"role": "user", "content": "one two three"}]


def test_an_answer_in_one_piece(client):
    answer = client.chat.completions.create(model="scripted", messages=QUESTION)
    assert answer.choices[0].message.content == "one two three "
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "scripted"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 3, 10)


def test_a_stream_tells_the_same_and_its_usage(client):
    stream = client.chat.completions.create(
        model="scripted", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "one two three "
    reasons = [chunk.choices[0].finish_reason for chunk in chunks[:-1]]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 10
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_without_usage_ends_with_its_finish_reason(client):
    chunks = list(client.chat.completions.create(model="scripted", messages=QUESTION, stream=True, max_tokens=2))
    assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_an_answer_that_is_cut_says_so(client, name):
    answer = client.chat.completions.create(model="scripted", messages=QUESTION, **{name: 2})
    assert answer.choices[0].message.content == "one two "
    assert answer.choices[0].finish_reason == "length"


def test_several_choices(client):
    answer = client.chat.completions.create(model="scripted", messages=QUESTION, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {"one two three "}
    assert answer.usage.completion_tokens == 9
    assert answer.usage.prompt_tokens == 7, "the prompt counts once"


def test_several_choices_in_a_stream(client):
    texts, reasons = ["", ""], [None, None]
    for chunk in client.chat.completions.create(model="scripted", messages=QUESTION, n=2, stream=True):
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == ["one two three "] * 2
    assert reasons == ["stop"] * 2


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities(client, stream):
    answer = client.chat.completions.create(
        model="scripted", messages=QUESTION, logprobs=True, top_logprobs=2, stream=stream
    )
    parts = list(answer) if stream else [answer]
    told = [token for part in parts if (tokens := part.choices[0].logprobs) for token in tokens.content or ()]
    assert [token.token for token in told] == ["one ", "two ", "three "]
    assert told[0].bytes == list(b"one ")
    assert told[0].logprob == -0.5
    assert [other.logprob for other in told[0].top_logprobs] == [-2.0, -2.0]


def settings_told(server, **body):
    return server.ask("settings", **body).json()["choices"][0]["message"]["content"]


def test_settings_reach_the_model(server):
    told = settings_told(
        server, temperature=0.5, top_p=0.9, seed=3, stop=["a", "b"], max_tokens=5, logprobs=True, num_latents=16, n=2
    )
    assert told == (
        "SamplingSettings(max_new_tokens=5, temperature=0.5, top_p=0.9, seed=3, stop=('a', 'b'), top_logprobs=0, "
        "num_latents=16, n=2)"
    )


def test_latents_may_be_written_as_vllms_clients_write_them(server):
    assert "num_latents=4," in settings_told(server, chat_template_kwargs={"num_latents": 4})
    assert "num_latents=0," in settings_told(server, chat_template_kwargs={"num_latents": 0}, num_latents=0)
    assert "num_latents=None," in settings_told(server, chat_template_kwargs={})
    differ = server.ask(chat_template_kwargs={"num_latents": 4}, num_latents=9)
    assert "twice" in error_of(differ, 400, "invalid_parameter")["message"]
    unknown = server.ask(chat_template_kwargs={"crop": True})
    assert error_of(unknown, 400, "unknown_parameter")["param"] == "chat_template_kwargs.crop"


def test_null_is_the_default(server):
    names = ("stream", "stream_options", "temperature", "top_p", "seed", "stop", "max_tokens", "n", "logprobs",
             "top_logprobs", "num_latents", "chat_template_kwargs")  # fmt: skip
    assert settings_told(server, **dict.fromkeys(names)) == settings_told(server)


def test_greedy_is_the_default_and_one_stop_may_be_a_string(server):
    told = settings_told(server, stop="end")
    assert "temperature=0.0, top_p=1.0, seed=None, stop=('end',), top_logprobs=None" in told


def test_roles_and_turns_and_an_image_reach_the_model(server, data_uri):
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_uri}}, text("what?")]},
        {"role": "assistant", "content": "a box", "refusal": None},
        {"role": "user", "content": [text("messages"), text("please")], "name": "me"},
    ]
    told = server.ask(messages=messages).json()["choices"][0]["message"]["content"]
    assert told == (
        "[('system', ['be brief']), ('user', [(30, 20), 'what?']), ('assistant', ['a box']), "
        "('user', ['messages', 'please'])]"
    )


def text(words):
    return {"type": "text", "text": words}


def test_harmless_parameters_are_accepted(server):
    answer = server.ask(
        "hi", user="me", metadata={"a": "b"}, store=True, tools=[], tool_choice="none", presence_penalty=0,
        response_format={"type": "text"}, modalities=["text"], logit_bias={}, service_tier="auto", stream=False,
        parallel_tool_calls=True,
    )  # fmt: skip
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"tools": [{"type": "function"}]}, "unsupported_parameter", "tools"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "unsupported_parameter", "response_format"),
        ({"response_format": {"type": "json_object"}}, "unsupported_parameter", "response_format"),
        ({"audio": {"voice": "x"}}, "unsupported_parameter", "audio"),
        ({"modalities": ["text", "audio"]}, "unsupported_parameter", "modalities"),
        ({"presence_penalty": 0.5}, "unsupported_parameter", "presence_penalty"),
        ({"logit_bias": {"1": 1}}, "unsupported_parameter", "logit_bias"),
        ({"temprature": 1}, "unknown_parameter", "temprature"),
        ({"temprature": None}, "unknown_parameter", "temprature"),
        ({"temperature": 2.1}, "invalid_parameter", "temperature"),
        ({"temperature": "1"}, "invalid_parameter", "temperature"),
        ({"temperature": True}, "invalid_parameter", "temperature"),
        ({"top_p": 0}, "invalid_parameter", "top_p"),
        ({"max_tokens": 0}, "invalid_parameter", "max_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "invalid_parameter", None),
        ({"n": 9}, "invalid_parameter", "n"),
        ({"n": 2**31}, "invalid_parameter", "n"),
        ({"n": 0}, "invalid_parameter", "n"),
        ({"seed": 2**63}, "invalid_parameter", "seed"),
        ({"stop": ["a"] * 5}, "invalid_parameter", "stop"),
        ({"stop": ""}, "invalid_parameter", "stop"),
        ({"top_logprobs": 3}, "invalid_parameter", None),
        ({"logprobs": True, "top_logprobs": 21}, "invalid_parameter", "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "invalid_parameter", None),
        ({"messages": []}, "invalid_parameter", "messages"),
        ({"messages": [{"content": "no role"}]}, "missing_parameter", "messages.0.role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_parameter", "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "missing_parameter", "messages.0.content"),
        ({"messages": [{"role": "user", "content": None}]}, "invalid_parameter", "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "unsupported_content", None),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "unsupported_content", None),
        ({"messages": [{"role": "user", "content": "x", "size": 1}]}, "unknown_parameter", "messages.0.size"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "size": 1}]}]},
            "unknown_parameter",
            "messages.0.content.0.size",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "x"}}]}]},
            "unsupported_content",
            "messages.0.content.0",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "missing_parameter",
            "messages.0.content.0.image_url.url",
        ),
        ({"messages": [{"role": "user", "content": "x" * 32_001}]}, "prompt_too_long", "messages"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(server, body, code, param):
    error = error_of(server.ask(**body), 400, code)
    assert error["type"] == "invalid_request_error"
    if param is not None:
        assert error["param"] == param


def test_two_images_and_a_late_image_are_refused(server, data_uri):
    image = {"type": "image_url", "image_url": {"url": data_uri}}
    error = error_of(server.ask([image, image, text("which?")]), 400, "too_many_images")
    assert error["param"] == "messages.0.content.1"
    late = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    error_of(server.ask(messages=[*late, {"role": "user", "content": [image]}]), 400, "unsupported_content")
    for role in ("system", "assistant"):
        error_of(server.ask(messages=[{"role": role, "content": [image]}]), 400, "unsupported_content")


def test_what_the_model_refuses_is_the_clients_fault(server):
    assert "it says refuse" in error_of(server.ask("refuse this"), 400, "invalid_request")["message"]


@pytest.mark.parametrize("command", ["fail", "stumble"])
def test_what_goes_wrong_in_the_model_is_not_and_its_details_are_for_the_log(server, caplog, command):
    message = error_of(server.ask(command), 500, "generation_failed")["message"]
    assert "secret" not in message
    assert "secret details of /the/servers/folder" in caplog.text
    assert server.ask("hello").status_code == 200, "and the model goes on"


def test_a_stream_that_fails_midway_says_so(client):
    stream = client.chat.completions.create(
        model="scripted", messages=[{"role": "user", "content": "fail"}], stream=True
    )
    told = []
    with pytest.raises(openai.APIError, match="The model failed on this request"):
        told.extend(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == "half "


def test_the_clients_classes_of_errors(client):
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="other", messages=QUESTION)
    assert raised.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="scripted", messages=QUESTION, tools=[{"type": "function"}])
    assert raised.value.code == "unsupported_parameter"
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "fail"}])


def test_models(client):
    assert [model.id for model in client.models.list()] == ["scripted"]
    assert client.models.retrieve("scripted").id == "scripted"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/models/..%2f..%2fetc%2fpasswd", 404, "not_found"),
        ("GET", "/../../etc/passwd", 404, "not_found"),
        ("POST", "/v1/chat/completions", 400, "invalid_json"),
        ("POST", "/v1/files", 404, "not_found"),
        ("GET", "/metrics", 404, "not_found"),
    ],
)
def test_every_refusal_has_the_one_shape(server, method, path, status, code):
    error_of(server.http.request(method, path), status, code)


def test_the_schema_can_be_read(server):
    schema = server.http.get("/openapi.json").json()
    assert {"/v1/chat/completions", "/v1/models/{name}", "/health"} <= schema["paths"].keys()
    schemas = schema["components"]["schemas"]
    assert {"messages", "stream", "num_latents"} <= schemas["ChatRequest"]["properties"].keys()
    named = set(re.findall(r"#/components/schemas/(\w+)", str(schema)))
    assert named
    assert named <= schemas.keys()


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"text"', b"[" * 100_000, b"\xff\xfe", b'{"model": NaN}', b"9" * 5000],
    ids=lambda body: body[:12],
)
def test_bodies_that_are_no_requests(server, body):
    answer = server.post(body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] in ("invalid_json", "invalid_parameter", "missing_parameter")


def test_lone_surrogates_are_refused_and_repeated_safely(server):
    for body in (b'{"model": "\\ud800", "messages": []}', b'{"\\ud800": 1}'):
        assert server.post(body).status_code == 400
