"""The application on a real Ray cluster of two nodes on this machine; what a killed replica did is done by another."""

import contextlib
import json
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from scripted_model import load_scripted
from serving import error_of, wait_for

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

    url = deploy(application_of(SETTINGS, SPREAD, load_scripted), "127.0.0.1", free_port())
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
    metrics = http.get("/metrics").text
    assert 'fusionvl_replicas{model="scripted"} 2.0' in metrics
    assert 'fusionvl_answer_tokens_total{model="scripted"}' in metrics

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
