"""The application on a real Ray cluster of two nodes on this machine; what a killed replica did is done by another."""

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest
from running_server import error_of, wait_for
from scripted_model import load_scripted

from fusionvl import cli
from fusionvl.serve.settings import Limits, RaySettings, ServedModel, ServerSettings, WorkerSettings

SRC = Path(__file__).parents[2] / "src"
SETTINGS = ServerSettings(
    models=(ServedModel("scripted", "scripted"),),
    drain_seconds=10,
    limits=Limits(answer_seconds=100, requests_per_key=50),
    workers=WorkerSettings(max_batch=4, silence_seconds=30),
)
SPREAD = RaySettings(min_replicas=2, max_replicas=2, cpus=5)  # one on each node: a node has eight

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_raylet_start_wait_time_s", "200")  # a busy machine takes its time
        ray = pytest.importorskip("ray")
        from ray.cluster_utils import Cluster

        log = tmp_path_factory.mktemp("ray") / "script.log"
        path = os.pathsep.join([str(SRC), str(Path(__file__).parent)])
        patch.setenv("PYTHONPATH", path)  # for what the command deploys
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 8, "include_dashboard": False})
        try:
            made.add_node(num_cpus=8)
            env = {"PYTHONPATH": path, "FUSIONVL_SCRIPT_LOG": str(log)}
            ray.init(address=made.address, runtime_env={"env_vars": env}, log_to_driver=False)
            made.log = log
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


@pytest.fixture(scope="module")
def http(cluster):
    """A client of the application, deployed."""
    from fusionvl.serve.ray_app import application_of, deploy

    cluster.port = free_port()
    url = deploy(application_of(SETTINGS, SPREAD, load_scripted), "127.0.0.1", cluster.port)
    with httpx.Client(base_url=url, timeout=120) as client:
        wait_for(lambda: client.get("/ready").status_code == 200, 60)
        yield client


def free_port():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return taken.getsockname()[1]


def body(text, **settings):
    return {"model": "scripted", "messages": [{"role": "user", "content": text}], **settings}


def ask(http, text, **settings):
    response = http.post("/v1/chat/completions", json=body(text, **settings))
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]


def stream(http, text, told):
    """The chunks of a streamed answer; `told` is set at the first text."""
    chunks = []
    with http.stream("POST", "/v1/chat/completions", json=body(text, stream=True)) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: {"):
                chunks.append(json.loads(line.removeprefix("data: ")))
                if "choices" in chunks[-1] and chunks[-1]["choices"][0]["delta"].get("content"):
                    told.set()
    return chunks


def log(cluster):
    return cluster.log.read_text().splitlines()


def replicas():
    return {process.pid for process in psutil.process_iter(["cmdline"]) if is_replica(process)}


def is_replica(process):
    return "ray::ServeReplica:fusionvl:model-scripted" in " ".join(process.info["cmdline"] or ())


def test_every_endpoint_answers(http, png):
    assert http.get("/health").json() == {"status": "ok"}
    assert [model["id"] for model in http.get("/v1/models").json()["data"]] == ["scripted"]
    assert "<!doctype html>" in http.get("/").text.lower()
    assert ask(http, "good morning")["message"]["content"] == "good morning "
    error_of(http.post("/v1/chat/completions", json=body("refuse this")), 400, "invalid_request")
    error_of(http.post("/v1/chat/completions", json=body("fail")), 500, "generation_failed")
    error_of(http.post("/v1/chat/completions", json={**body("a"), "model": "none"}), 404, "model_not_found")
    assert "seed=None" in ask(http, "settings")["message"]["content"]
    assert "seed=None" not in ask(http, "settings", temperature=1.0)["message"]["content"]
    wait_for(lambda: 'fusionvl_replicas{model="scripted"} 2.0' in http.get("/metrics").text)
    assert 'fusionvl_answer_tokens_total{model="scripted"}' in http.get("/metrics").text

    file = http.post("/v1/files", files={"file": ("a.png", png)}, data={"purpose": "vision"}).json()
    parts = [{"type": "file", "file": {"file_id": file["id"]}}, {"type": "text", "text": "messages"}]
    assert "(30, 20)" in ask(http, parts)["message"]["content"]
    assert http.delete(f"/v1/files/{file['id']}").json()["deleted"]
    error_of(http.get(f"/v1/files/{file['id']}"), 404, "file_not_found")


def test_a_client_that_leaves_stops_its_answer(cluster, http):
    with http.stream("POST", "/v1/chat/completions", json=body("repeat leaving 400 0.05", stream=True)) as response:
        next(response.iter_lines())
    wait_for(lambda: any(line.startswith("cancelled after") for line in log(cluster)), 20)


def test_a_killed_replica_loses_no_request(cluster, http):
    """Two replicas of four places each, five requests on their way, among them a stream that has told something."""
    before = replicas()
    assert len(before) == 2
    told = threading.Event()
    words = [f"w{number}" for number in range(4)]
    with ThreadPoolExecutor(5) as threads:
        streamed = threads.submit(stream, http, "repeat streamed 60 0.1", told)
        assert told.wait(60)
        whole = [threads.submit(ask, http, f"repeat {word} 30 0.1") for word in words]
        wait_for(lambda: all(f"begin repeat {word} 30 0.1" in log(cluster) for word in words), 60)
        (victim,) = [int(line.split()[1]) for line in log(cluster) if line.endswith("answers repeat streamed 60 0.1")]
        os.kill(victim, signal.SIGKILL)
        for word, answer in zip(words, whole, strict=True):
            assert answer.result()["message"]["content"] == f"{word} " * 30
            assert answer.result()["finish_reason"] == "stop"
        chunks = streamed.result()
    assert not any("error" in chunk for chunk in chunks), chunks[-1]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "streamed " * 60
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert log(cluster).count("begin repeat streamed 60 0.1") == 2, "it was asked again, once"
    wait_for(lambda: len(replicas() - {victim}) == 2, 120)
    assert ask(http, "still here")["message"]["content"] == "still here "


@contextlib.contextmanager
def asking_all_the_time(look):
    """Calls `look` in a loop beside the block; its errors come out at the end."""
    is_over = threading.Event()

    def go_on():
        count = 0
        while not is_over.is_set():
            look()
            count += 1
        return count

    with ThreadPoolExecutor(1) as thread:
        counted = thread.submit(go_on)
        try:
            yield
        finally:
            is_over.set()
        assert counted.result() > 1


def test_an_update_loses_no_request(cluster, http):
    from fusionvl.serve.ray_app import application_of, deploy

    before = replicas()
    shorter = replace(SETTINGS, limits=replace(SETTINGS.limits, max_new_tokens=3))
    with asking_all_the_time(lambda: ask(http, "repeat word 2 0.05")):
        deploy(application_of(shorter, SPREAD, load_scripted), "127.0.0.1", cluster.port)
        wait_for(lambda: ask(http, "repeat word 5 0.01")["finish_reason"] == "length", 60)
    wait_for(lambda: len(replicas()) == 2 and not replicas() & before, 60)


def test_the_command_replaces_it_by_the_shipped_model(cluster, http):
    options = ["--ray", cluster.address, "--port", str(cluster.port), "--replicas", "1-2", "--device", "cpu"]
    command = [sys.executable, "-m", "fusionvl", "serve", *options]
    with asking_all_the_time(lambda: http.get("/health").raise_for_status()):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"http://127.0.0.1:{cluster.port}" in done.stdout
    (model,) = wait_for(
        lambda: [one["id"] for one in http.get("/v1/models").json()["data"] if one["id"] != "scripted"], 60
    )
    picture = base64.b64encode((SRC.parent / "examples" / "triangle.png").read_bytes()).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
        {"type": "text", "text": "what shape is in the image?"},
    ]
    assert ask(http, parts, model=model)["message"]["content"] == "triangle"
    explained = http.post("/v1/explain", json={**body(parts), "model": model})
    assert explained.status_code == 200, explained.text


def test_a_model_that_cannot_be_loaded_is_told(cluster, http):
    """The last test: the application of the others is gone after it."""
    from fusionvl.serve.ray_app import application_of, deploy

    broken = replace(SETTINGS, models=(ServedModel("broken", "broken"),))
    with pytest.raises(ValueError, match="The folder broken cannot be loaded"):
        deploy(application_of(broken, RaySettings(), load_scripted), "127.0.0.1", cluster.port)


@pytest.mark.parametrize(("address", "reason"), [("127.0.0.1:9", "No Ray cluster answers"), ("small", "HOST:PORT")])
def test_no_cluster_is_told(address, reason, capsys):
    assert cli.main(["serve", "--ray", address]) == 2
    assert reason in capsys.readouterr().err
