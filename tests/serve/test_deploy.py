"""The files in deploy/ name what exists: options, ports, paths, metrics, sources. No image is built here."""

import argparse
import json
import re
from pathlib import Path

import pytest
import yaml

from fusionvl.serve.app import router
from fusionvl.serve.metrics import Metrics
from fusionvl.serve.options import add_serve_options, parse_serve_arguments, ray_settings_from
from fusionvl.serve.settings import Limits

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
PATHS = {route.path for route in router.routes}
PORT = 8000


def entrypoint():
    return json.loads(re.search(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE, re.MULTILINE)[1])


def options_of(arguments):
    """As the image's command parses them; fails on an option that does not exist."""
    program, command, *fixed = entrypoint()
    assert (program, command) == ("fusionvl", "serve")
    return parse_serve_arguments([*fixed, *arguments])


def documents(name):
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def of_kind(kind):
    (found,) = [document for document in documents("kubernetes.yaml") if document["kind"] == kind]
    return found


def test_a_wrong_option_would_be_noticed():
    with pytest.raises(ValueError, match="--no-such-option"):
        options_of(["--no-such-option", "1"])
    with pytest.raises(ValueError, match="invalid"):
        options_of(["--max-batch", "many"])


def test_the_image_listens_where_it_says_and_is_nobodys_root():
    options = options_of([])
    assert (options.host, options.port) == ("0.0.0.0", PORT)
    assert f"EXPOSE {PORT}" in DOCKERFILE
    assert f"http://127.0.0.1:{PORT}/health" in DOCKERFILE
    assert "/health" in PATHS
    (user,) = re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)
    assert f"--uid {user} " in DOCKERFILE


def test_what_is_copied_and_installed_exists():
    sources = [source for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE) for source in line.split()[:-1]]
    assert {"pyproject.toml", "constraints.txt", "src"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists()
    pyproject = (ROOT / "pyproject.toml").read_text()
    for extra in ("serve", "ray"):
        assert re.search(rf"^{extra} = \[", pyproject, re.MULTILINE)
    for needed in re.findall(r'"?(README.md|LICENSE)"?', pyproject):
        assert needed in sources, "the package cannot be built without it"


def test_compose():
    (compose,) = documents("compose.yaml")
    service = compose["services"]["fusionvl"]
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    options = options_of(service["command"])
    assert str(options.api_key_file) == "/run/secrets/api_keys"
    assert list(compose["secrets"]) == service["secrets"]
    assert service["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert int(service["stop_grace_period"].removesuffix("s")) > options.drain_seconds + 5


def test_kubernetes():
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = options_of(container["args"])
    assert options.allowed_host is None, "probes call a pod by its address"
    assert container["ports"] == [{"name": "http", "containerPort": PORT}]
    for probe, path in (("startupProbe", "/ready"), ("readinessProbe", "/ready"), ("livenessProbe", "/health")):
        assert container[probe]["httpGet"] == {"path": path, "port": "http"}
        assert path in PATHS
    (_, pause) = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] > int(pause) + options.drain_seconds + 5
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    assert str(options.api_key_file.parent) == mounts["api-keys"]
    assert str(pod["securityContext"]["runAsUser"]) in DOCKERFILE
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert of_kind("Service")["spec"]["selector"].items() <= labels.items()
    assert of_kind("Service")["spec"]["ports"][0]["targetPort"] == "http"


def test_what_pods_are_counted_by_is_measured():
    scaler = of_kind("HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == of_kind("Deployment")["metadata"]["name"]
    names = [metric["pods"]["metric"]["name"] for metric in scaler["metrics"] if metric["type"] == "Pods"]
    registered = {metric.name for metric in Metrics(pool=None).registry.collect()}
    assert names
    assert set(names) <= registered


def test_rayservice():
    pytest.importorskip("ray")
    from ray.serve.schema import ServeDeploySchema

    (service,) = documents("rayservice.yaml")
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (application,) = config.applications
    assert config.http_options.port == PORT
    module, _, name = application.import_path.partition(":")
    source = (ROOT / "src" / (module.replace(".", "/") + ".py")).read_text()
    assert re.search(rf"^def {name}\(args: ", source, re.MULTILINE)
    options = parse_serve_arguments(application.args["arguments"])
    assert options.host == config.http_options.host
    spread = ray_settings_from(options)
    assert (spread.min_replicas, spread.max_replicas, spread.cpus) == (2, 8, 2.0)
    wanted = re.search(r'"ray\[.*\]>=([\d.]+)', (ROOT / "pyproject.toml").read_text())[1]
    assert service["spec"]["rayClusterConfig"]["rayVersion"].startswith(wanted)


def test_options_of_the_cluster():
    parser = argparse.ArgumentParser()
    add_serve_options(parser)

    def spread(*arguments):
        return ray_settings_from(parser.parse_args(["--ray", "auto", *arguments]))

    assert (spread().min_replicas, spread().max_replicas) == (1, 1)
    assert (spread("--replicas", "3").min_replicas, spread("--replicas", "3").max_replicas) == (3, 3)
    counts = (["--replicas", "few"], ["--replicas", "0"], ["--replicas", "4-2"])
    for wrong in (*counts, ["--replica-gpus", "-1"], ["--replica-cpus", "nan"], ["--replica-cpus", "inf"]):
        with pytest.raises(ValueError, match="replica"):
            spread(*wrong)
    with pytest.raises(ValueError, match="--memory-gb"):
        spread("--memory-gb", "3")
    with pytest.raises(ValueError, match="--port"):
        spread("--port", "0")
    assert Limits().waiting == parser.parse_args([]).max_waiting
