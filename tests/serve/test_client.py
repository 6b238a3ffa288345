"""Talking to a real server from a terminal and from a script."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from running_server import running

from fusionvl import cli
from fusionvl.serve.client import RemoteModel
from fusionvl.serve.settings import ServedModel

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
    assert "The model stumbled" in errors
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
        assert f"{url + '/v1'!r} is no address of a server" in refused("--url", url)
    assert "no model other, but scripted" in refused("--url", server.url, "--model", "other")
    assert "FUSIONVL_NO_KEY holds no key" in refused("--url", server.url, "--api-key-env", "FUSIONVL_NO_KEY")
    assert "--device" in refused("--url", server.url, "--device", "cpu")
    assert "--url" in refused("--api-key-env", "HOME")


def test_keys_and_several_models(chat, monkeypatch):
    models = (ServedModel("one", "one"), ServedModel("two", "two"))
    with running(models=models, api_keys=(KEY,), ready=False) as server:
        monkeypatch.setenv("FUSIONVL_TEST_KEY", KEY)
        keyed = ("--url", server.url, "--api-key-env", "FUSIONVL_TEST_KEY")
        assert "choose one with --model" in chat([], *keyed)[2]
        assert "Authorization: Bearer" in chat([], "--url", server.url)[2]
        assert "hello you" in chat(["hello you"], *keyed, "--model", "two")[1]


def test_a_stream_that_breaks_off_is_told(server):
    with RemoteModel(f"{server.url}/v1/") as model:
        stream = model.stream([{"role": "user", "content": [{"type": "text", "text": "crash"}]}])
        with pytest.raises(ValueError, match="process ended while it answered"):
            list(stream)


def test_the_example_runs(shipped_server):
    command = [sys.executable, "examples/client.py", shipped_server.url, "examples/triangle.png"]
    questions = ["what shape is in the image?", "what color is the shape?"]
    done = subprocess.run([*command, *questions], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "triangle\nteal\n"
