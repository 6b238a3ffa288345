"""Runs a server in a thread, on a free port; and asks it things."""

import contextlib
import os
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import httpx
from fastapi import FastAPI
from scripted_model import load_scripted

from fusionvl.serve.app import create_app
from fusionvl.serve.server import DrainingServer, listen
from fusionvl.serve.settings import Limits, ServedModel, ServerSettings, WorkerSettings

SCRIPTED = ServerSettings(models=(ServedModel("scripted", "scripted"),))
JSON_ERROR_KEYS = {"message", "type", "param", "code"}


@dataclass
class Server:
    """A running server.

    Attributes:
        url: Of its root.
        app: For a look inside.
        log_path: Where scripted models write what they do.
        http: A client.
    """

    url: str
    app: FastAPI
    log_path: Path
    http: httpx.Client

    def ask(self, text="hello", model="scripted", **body):
        """Post a chat request of one text, or of the `messages` given."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **body}
        return self.http.post("/v1/chat/completions", json=body)

    def log(self):
        """What the scripted models did."""
        return self.log_path.read_text().splitlines() if self.log_path.exists() else []

    def wait_for_log(self, beginning, seconds=20):
        """The first line that begins so; fails when it does not come."""
        return wait_for(lambda: next((line for line in self.log() if line.startswith(beginning)), None), seconds)


def wait_for(look, seconds=20):
    """What `look` returns once it is true."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"{look} came to nothing in {seconds} seconds"
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def running(settings=SCRIPTED, loader=load_scripted, limits=None, workers=None, ready=True, fetcher=None, **changes):
    """A server in a thread; `limits`, `workers` and further changes are of the settings."""
    settings = replace(
        settings,
        limits=Limits(**{"answer_seconds": 30, **(limits or {})}),
        workers=WorkerSettings(**{"silence_seconds": 30, **(workers or {})}),
        **changes,
    )
    log_path = Path(tempfile.mkdtemp()) / f"{time.monotonic_ns()}.log"
    with mock.patch.dict(os.environ, FUSIONVL_SCRIPT_LOG=str(log_path)):
        app = create_app(settings, loader, fetcher)
        listener = listen("127.0.0.1", 0)
        drain = DrainingServer(app, drain_seconds=5)
        thread = threading.Thread(target=drain.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=60) as http:
            try:
                if ready:
                    wait_for(lambda: http.get("/ready").status_code == 200, 300)
                yield Server(url, app, log_path, http)
            finally:
                drain.should_exit = True
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
