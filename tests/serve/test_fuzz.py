"""Random requests: whatever comes, the reply is an answer or a refusal in the one shape, never a mistake of ours."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running_server import JSON_ERROR_KEYS, running

from fusionvl.serve import protocol
from fusionvl.serve.errors import STATUS_OF_CODE
from fusionvl.serve.protocol import ChatRequest

FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=True)
    | st.text(st.characters(), max_size=20),  # lone surrogates among them
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
words = st.text(max_size=30) | st.sampled_from(
    ["<image>", "<|im_start|>", "refuse", "fail", "\x00", "../../etc/passwd"]
)
urls = st.sampled_from(
    [
        "data:image/png;base64,iVBORw0KGgo=",
        "data:,",
        "file:///etc/passwd",
        "http://127.0.0.1:1/",
        "http://[::1]/",
        "/x",
    ]
) | st.text(max_size=20)
part = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": words}),
    st.fixed_dictionaries({"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": urls})}),
    st.dictionaries(st.sampled_from(["type", "text", "image_url"]), anything, max_size=3),
)
message = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "developer", "tool"]) | anything,
        "content": words | st.lists(part, max_size=3) | anything,
    },
    optional={"name": anything},
)
# Values that are often right, so that one wrong one among them is reached.
often_right = {
    "stream": st.booleans(),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0.01, 1),
    "seed": st.integers(-(2**63), 2**63 - 1),
    "stop": words | st.lists(words, max_size=5),
    "max_tokens": st.integers(-1, 50),
    "n": st.integers(0, 10),
    "logprobs": st.booleans(),
    "top_logprobs": st.integers(-1, 21),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
}
optional = {
    name: often_right[name] | anything if name in often_right else anything
    for name in {*ChatRequest.model_fields, *protocol._CANNOT, *protocol._WITHOUT_EFFECT} - {"model", "messages"}
}
requests = st.fixed_dictionaries(
    {"model": st.just("scripted") | words, "messages": st.lists(message, max_size=3) | anything}, optional=optional
)


@pytest.fixture(scope="module")
def server():
    with running(limits={"fetch_seconds": 1.0}) as server:
        yield server


def check(response):
    if response.status_code == 200:
        if response.headers["Content-Type"].startswith("text/event-stream"):
            events = [line for line in response.text.split("\n\n") if line]
            assert events[-1] == "data: [DONE]"
            told = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
            assert all("choices" in event or event["error"]["code"] == "generation_failed" for event in told)
        return
    error = response.json()["error"]
    assert set(error) == JSON_ERROR_KEYS
    assert STATUS_OF_CODE[error["code"]] == response.status_code
    # `fail` is the scripted model's way to stumble, and the only 5xx there may be.
    assert response.status_code < 500 or error["code"] == "generation_failed", response.text


@FUZZ
@given(body=requests | anything)
def test_chat_requests(server, body):
    headers = {"Content-Type": "application/json"}
    check(server.http.post("/v1/chat/completions", content=json.dumps(body), headers=headers))


@FUZZ
@given(
    body=st.binary(max_size=200), kind=st.sampled_from(["application/json", "text/plain", "multipart/form-data", ""])
)
def test_bodies_of_any_bytes(server, body, kind):
    for path in ("/v1/chat/completions", "/v1/explain"):
        check(server.http.post(path, content=body, headers={"Content-Type": kind}))


@FUZZ
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]),
    path=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30),
    prefix=st.sampled_from(["/", "/v1/", "/v1/models/", "/v1/models/../../", "/examples/"]),
)
def test_paths(server, method, path, prefix):
    response = server.http.request(method, prefix + path.replace("#", "").replace("?", ""))
    if method == "HEAD":
        assert response.status_code in (200, 404, 405)
    elif response.status_code != 200:
        check(response)


def test_the_server_is_well_after_all_this(server):
    assert server.ask("hello").status_code == 200
    assert server.app.state.line.waiting == 0
