"""Runs a server in a thread, on a free port; and asks it things."""

import contextlib
import threading
import time
from dataclasses import dataclass

import httpx
from scripted_engine import ScriptedEngine
from starlette.applications import Starlette

from fusionvl.serve.app import create_app
from fusionvl.serve.connection import ConnectionLimits
from fusionvl.serve.server import DrainingServer, listen
from fusionvl.serve.settings import Limits, ServerSettings

JSON_ERROR_KEYS = {"message", "type", "param", "code"}


@dataclass
class Server:
    """A running server.

    Attributes:
        url: Of its root.
        app: For a look inside.
        uvicorn: What runs it.
        engine: The scripted one, unless another was asked for.
        http: A client.
    """

    url: str
    app: Starlette
    uvicorn: DrainingServer
    engine: ScriptedEngine
    http: httpx.Client

    @property
    def address(self):
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def ask(self, text="hello", model="scripted", **body):
        """Post a chat request of one text, or of the `messages` given."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **body}
        return self.http.post("/v1/chat/completions", json=body)

    def post(self, content):
        """Post a chat request of these bytes."""
        headers = {"Content-Type": "application/json"}
        return self.http.post("/v1/chat/completions", content=content, headers=headers)

    def in_background(self, text, **body):
        """Ask without waiting; returns a function that waits for the answer."""
        answers = []
        thread = threading.Thread(target=lambda: answers.append(self.ask(text, **body)))
        thread.start()

        def answer():
            thread.join(60)
            return answers[0]

        return answer

    def wait_for_log(self, beginning, seconds=20):
        """The first line of the scripted engine that begins so; fails when it does not come."""
        return wait_for(lambda: next((line for line in self.engine.log if line.startswith(beginning)), None), seconds)


def wait_for(look, seconds=20):
    """What `look` returns once it is true."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"{look} came to nothing in {seconds} seconds"
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def running(model="scripted", load=None, limits=None, connections=None, fetcher=None, ready=True, **settings):
    """A server in a thread; `limits` and further settings are those of `ServerSettings`."""
    engine = ScriptedEngine()
    settings = ServerSettings(limits=Limits(**{"answer_seconds": 30, **(limits or {})}), **settings)
    app = create_app(model, load or (lambda: engine), settings, fetcher)
    with running_app(app, connections) as server:
        server.engine = engine
        try:
            if ready:
                wait_for(lambda: server.http.get("/health").status_code == 200, 300)
            yield server
        finally:
            engine.released.set()


@contextlib.contextmanager
def running_app(app, connections=None):
    """Any application in a thread, without an engine."""
    listener = listen("127.0.0.1", 0)
    uvicorn = DrainingServer(app, drain_seconds=5, connections=connections or ConnectionLimits())
    thread = threading.Thread(target=uvicorn.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(base_url=url, timeout=60) as http:
        try:
            yield Server(url, app, uvicorn, None, http)
        finally:
            uvicorn.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "the server did not end"


def error_of(response, status, code):
    """The error of a response, after a look at its shape."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == JSON_ERROR_KEYS
    assert error["code"] == code, error
    assert error["message"]
    return error
