import http.server
import importlib
import json
import math
import sys
import threading
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
TINY = (
    "--preset", "nano", "--vision-width", "32", "--vision-mlp", "64", "--decoder-width", "32", "--decoder-mlp", "64",
    "--decoder-layers", "3", "--interaction-layers", "2", "--num-latents", "4", "--device", "cpu", "--threads", "1",
    "--quick", "--requests", "1", "--max-batch", "4",
)  # fmt: skip


@pytest.fixture(scope="module")
def benchmark(run_script, tmp_path_factory):
    file = tmp_path_factory.mktemp("serving") / "results.json"
    run = run_script("serving.py", *TINY, "--json", str(file))
    assert run.returncode == 0, run.stderr
    return run, json.loads(file.read_text())


@pytest.fixture
def script(monkeypatch):
    """The benchmark as a module of this process: starting another one would take most of the time."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module("serving")
    for name in set(sys.modules) - before:
        if str(SCRIPTS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.slow
class TestOfAnEngine:
    def test_prints_every_section_system_and_ratio(self, benchmark):
        run, results = benchmark
        for section in ("CHECK", "LOADS", "RATIOS", "STALL"):
            assert f"\n{section}" in run.stdout
        systems = ("one at a time", "batch of one", "batching")
        assert set(results["loads"]) == {f"{name}, {many}" for name in systems for many in ("1 client", "8 clients")}
        assert "batching, 8 clients / one at a time, 8 clients" in results["ratios"]
        assert "round 1 of 1" in run.stderr

    def test_every_number_is_finite_and_no_time_is_negative(self, benchmark, numbers):
        _, results = benchmark
        assert all(math.isfinite(number) and number >= 0 for number in numbers(results))
        assert all(load["first_p95_ms"] >= load["first_p50_ms"] > 0 for load in results["loads"].values())

    def test_what_is_compared_answers_the_same(self, benchmark):
        _, results = benchmark
        assert results["check"] == {"asked": 8, "equal": 8}


class SmallServer(http.server.BaseHTTPRequestHandler):
    """Lists one model; streams three pieces and the usage, or refuses."""

    asked: list[dict] = []
    refuses = False

    def do_GET(self):
        self._send(200, json.dumps({"data": [{"id": "tiny"}]}))

    def do_POST(self):
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if self.refuses:
            self._send(429, json.dumps({"error": {"message": "the line is full"}}))
            return
        chunks = [{"choices": [{"delta": {"content": text}}]} for text in ("", "a", " b", " c")]
        chunks.append({"choices": [], "usage": {"completion_tokens": 5}})
        self._send(200, "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n")

    def _send(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        """Nothing to log."""


class TestOfAServer:
    @pytest.fixture
    def handler(self):
        return type("Handler", (SmallServer,), {"asked": []})

    @pytest.fixture
    def url(self, handler):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
        server.server_close()

    def test_loads_it(self, script, url, handler, tmp_path):
        script.main(["--url", url, "--quick", "--requests", "1", "--json", str(tmp_path / "file")])
        loads = json.loads((tmp_path / "file").read_text())["loads"]
        assert set(loads) == {"server, 1 client", "server, 8 clients"}
        assert len(handler.asked) == 1 + 1 + 8, "a warm-up, then one question of each client"
        body = handler.asked[0]
        assert (body["model"], body["stream"]) == ("tiny", True)
        assert body["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/jpeg;base64,")
        rates = loads["server, 8 clients"]
        assert rates["tokens_per_s"] == pytest.approx(5 * rates["requests_per_s"])

    def test_a_refusal_ends_it(self, script, url, handler):
        handler.refuses = True
        with pytest.raises(RuntimeError, match=r"The server answered 429.*the line is full"):
            script.main(["--url", url, "--quick"])


def test_refuses_impossible_numbers(script, capsys):
    with pytest.raises(SystemExit) as end:
        script.main(["--requests", "0"])
    assert end.value.code == 2
    assert "--requests, --per-picture, --max-batch and --repeats must be at least 1" in capsys.readouterr().err
