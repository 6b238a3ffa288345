"""The page in front of another server: what passes, what comes back, and what is refused on the way."""

import asyncio
import contextlib
import http.server
import json
import threading
import time

import httpx
import openai
import pytest
from running_server import error_of, running, running_app, wait_for
from starlette.requests import Request

from fusionvl.serve.address import server_root
from fusionvl.serve.page_for import create_page_for
from fusionvl.serve.settings import Limits, ServerSettings
from fusionvl.serve.streaming import event_stream

KEY = "a-key-of-the-other-server"


class Other(http.server.BaseHTTPRequestHandler):
    """A server of another make; writes down what it is asked, and streams for as long as somebody reads."""

    protocol_version = "HTTP/1.1"
    asked = []
    gone = threading.Event()

    def do_GET(self):
        self.write_down()
        self.reply(b'{"object": "list", "data": [{"id": "other", "object": "model"}]}')

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.write_down(body)
        text = json.loads(body)["messages"][0]["content"]
        if text == "refuse":
            self.reply(b'{"error": {"message": "no", "type": "x", "param": null, "code": "y"}}', 418, Retry_After="7")
        elif text == "break":
            self.reply(b"data: {}\n\n", Content_Type="text/event-stream", Content_Length="1000")
            self.close_connection = True
        else:
            self.stream()

    def write_down(self, body=b""):
        self.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))

    def stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for number in range(500):
            try:
                self.wfile.write(b'data: {"number": %d}\n\n' % number)
            except OSError:
                self.gone.set()
                return
            time.sleep(0.02)

    def reply(self, body, status=200, **headers):
        self.send_response(status)
        for key, value in {"Content_Type": "application/json", "Content_Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Server-Secret", "inner.example")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def page_for(url, **settings):
    with running_app(create_page_for(server_root(url), ServerSettings(**settings))) as server:
        wait_for(lambda: server.http.get("/health").status_code == 200)
        yield server


@pytest.fixture(scope="module")
def page():
    Other.asked, Other.gone = [], threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
        with page_for(f"http://127.0.0.1:{other.server_port}/v1/", allowed_hosts=("127.0.0.1",)) as server:
            yield server
        other.shutdown()


def test_the_page_is_served_and_models_are_the_others(page):
    assert "<title>" in page.http.get("/").text
    answer = page.http.get("/v1/models", headers={"Authorization": f"Bearer {KEY}", "Cookie": "a=b"})
    assert [model["id"] for model in answer.json()["data"]] == ["other"]
    path, headers, _ = Other.asked[-1]
    assert path == "/v1/models"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert "cookie" not in headers
    assert "Server-Secret" not in answer.headers


def test_a_question_passes_as_it_is_and_its_answer_streams(page):
    """The first event is here long before the last is made; and who leaves stops the other server, too."""
    body = b'{"messages":  [{"role": "user", "content": "hi"}], "chat_template_kwargs": {"num_latents": 4}}'
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    with page.http.stream("POST", "/v1/chat/completions", content=body, headers=headers) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert next(answer.iter_lines()) == 'data: {"number": 0}'
    path, sent, content = Other.asked[-1]
    assert (path, content) == ("/v1/chat/completions", body)
    assert (sent["content-type"], sent["accept"]) == ("application/json", "text/event-stream")
    assert Other.gone.wait(20)


def asked(page, text, **options):
    return page.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": text}]}, **options)


def test_refusals_come_back_as_they_are(page):
    answer = asked(page, "refuse")
    assert answer.status_code == 418
    assert answer.json()["error"]["message"] == "no"
    assert answer.headers["Retry-After"] == "7"


def test_an_answer_that_breaks_off_ends_with_an_error(page):
    *_, last = [line for line in asked(page, "break").text.split("\n\n") if line]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "model_unavailable"


def test_the_gate_is_the_same(page):
    before = len(Other.asked)
    error_of(asked(page, "hi", headers={"Origin": "http://evil.example"}), 403, "origin_not_allowed")
    error_of(asked(page, "hi", headers={"Host": "evil.example"}), 400, "host_not_allowed")
    big = page.http.post("/v1/chat/completions", content=b" " * (Limits().body_bytes + 1))
    error_of(big, 413, "body_too_large")
    for path in ("/v1/explain", "/v1/files", "/v1/models/../../secret", "/openapi.json"):
        error_of(page.http.post(path) if path != "/openapi.json" else page.http.get(path), 404, "not_found")
    assert len(Other.asked) == before


def test_a_server_that_does_not_answer_is_told_without_its_address():
    with page_for("http://127.0.0.1:9") as page:
        error = error_of(page.http.get("/v1/models"), 503, "model_unavailable")
        assert "127.0.0.1" not in error["message"]


def test_it_stands_before_this_packages_own_server_with_its_key():
    with (
        running(api_key=KEY) as behind,
        page_for(behind.url) as page,
        openai.OpenAI(base_url=f"{page.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        chunks = client.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": "one two"}], stream=True
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two "
        error_of(httpx.get(f"{page.url}/v1/models"), 401, "invalid_api_key")


def test_a_stream_whose_client_leaves_before_it_begins_is_closed_all_the_same():
    """A generator that nobody has asked for anything does not run, and cannot clean up."""
    closed = []

    async def values():
        try:
            yield {"first": 1}
            yield {"second": 2}
        finally:
            closed.append(True)

    async def stays():
        await asyncio.sleep(60)

    async def left():
        return {"type": "http.disconnect"}

    async def send(message):
        await asyncio.sleep(60)

    async def ask():
        response = await event_stream(Request({"type": "http"}, stays), values())
        assert closed == []
        await response({"type": "http"}, left, send)
        assert closed == [True]

    asyncio.run(ask())
