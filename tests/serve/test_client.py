"""Talking to a real server from a terminal and from a script."""

import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image
from running_server import running

from fusionvl import cli
from fusionvl.serve.client import RemoteModel

ROOT = Path(__file__).parents[2]
KEY = "a-key-of-at-least-16-characters"


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (40, 30), "red").save(path)
    return path


@pytest.fixture
def chat(monkeypatch, capsys):
    """Types lines into `fusionvl chat`; returns its exit code, what it printed, and its errors."""

    def type_in(lines, *arguments):
        left = iter([*lines, "/quit"])
        monkeypatch.setattr("builtins.input", lambda prompt: next(left))
        code = cli.main(["chat", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return type_in


def test_a_conversation_and_its_commands(server, chat, picture, tmp_path):
    other = tmp_path / "other.png"
    Image.new("RGB", (50, 20)).save(other)
    lines = ["messages", "messages", "/reset", "messages", f"/image {other}", "messages", "/image none.png", "/what"]
    code, printed, errors = chat(lines, picture, "--url", server.url)
    assert code == 0
    first, second, after_reset, of_other = [line for line in printed.splitlines() if line.startswith("[(")]
    assert first == "[('user', [(40, 30), 'messages'])]"
    assert second == f"[('user', [(40, 30), 'messages']), ('assistant', [{first!r}]), ('user', ['messages'])]"
    assert after_reset == first
    assert of_other == "[('user', [(50, 20), 'messages'])]"
    assert "none.png" in errors
    assert printed.count("/reset") == 2, "the greeting, and the reply to a command that does not exist"


def test_errors_are_sentences_and_the_talk_goes_on(server, chat):
    code, printed, errors = chat(["refuse", "fail", "hello again"], "--url", server.url, "--max-new-tokens", 9)
    assert code == 0
    assert "it says refuse" in errors
    assert "The model failed on this request" in errors
    assert "hello again" in printed


def test_what_cannot_be_talked_to(server, chat, monkeypatch):
    def refused(*arguments):
        code, _, errors = chat([], *arguments)
        assert code == 2
        assert errors.count("\n") == 1
        return errors

    assert "does not answer" in refused("--url", "http://127.0.0.1:9")
    assert "http://" in refused("--url", "127.0.0.1:8000")
    for url in ("http://127.0.0.1:9\x01", "http://[::1", f"http://{'a' * 70}", "http://xn--a"):
        assert f"{url!r} is no address of a server" in refused("--url", url)
    assert "no model other, but scripted" in refused("--url", server.url, "--model", "other")
    assert "FUSIONVL_NO_KEY holds no key" in refused("--url", server.url, "--api-key-env", "FUSIONVL_NO_KEY")
    assert "--device" in refused("--url", server.url, "--device", "cpu")
    assert "--url" in refused("--api-key-env", "HOME")


def test_a_key_is_sent(chat, monkeypatch):
    with running(api_key=KEY) as server:
        monkeypatch.setenv("FUSIONVL_TEST_KEY", KEY)
        keyed = ("--url", server.url, "--api-key-env", "FUSIONVL_TEST_KEY")
        assert "Authorization: Bearer" in chat([], "--url", server.url)[2]
        assert "hello you" in chat(["hello you"], *keyed)[1]


def test_settings_are_sent(server):
    with RemoteModel(server.url, max_new_tokens=9, num_latents=4) as model:
        told = "".join(model.stream([{"role": "user", "content": [{"type": "text", "text": "settings"}]}]))
    assert "max_new_tokens=9," in told
    assert "num_latents=4," in told


class Other(http.server.BaseHTTPRequestHandler):
    """A server of another make: two models, and answers that break off, in one way or the other."""

    def do_GET(self):
        if self.path.startswith("/page/"):
            self.reply(b"<html>", "text/html")
            return
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "x"} for name in ("one", "two")]
        self.reply(json.dumps({"object": "list", "data": models}).encode(), "application/json")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        choice = {"index": 0, "delta": {"content": "half"}, "finish_reason": None}
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "one", "choices": [choice]}
        promised = 1000 if body["model"] == "two" else 0  # more than comes
        self.reply(f"data: {json.dumps(chunk)}\n\n".encode(), "text/event-stream", promised)

    def reply(self, content, media_type, more=0):
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(content) + more))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def other():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_of_several_models_one_is_chosen(chat, other):
    assert "choose one with --model" in chat([], "--url", other)[2]
    assert "does not answer as OpenAI's API does" in chat([], "--url", f"{other}/page")[2]


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_stream_that_breaks_off_is_told(other, name):
    with RemoteModel(f"{other}/v1/", model=name) as model:
        stream = model.stream([{"role": "user", "content": [{"type": "text", "text": "hello"}]}])
        assert next(stream) == "half"
        with pytest.raises(ValueError, match="broke off in the middle of its answer"):
            list(stream)


def test_the_example_runs(shipped_server):
    command = [sys.executable, "examples/client.py", shipped_server.url, "examples/triangle.png"]
    questions = ["what shape is in the image?", "what color is the shape?"]
    done = subprocess.run([*command, *questions], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "triangle\nteal\n"
