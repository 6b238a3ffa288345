"""The same application on a Ray cluster: a deployment that speaks HTTP, one for each model, one for the files.

    serve.run(application_of(settings, RaySettings(min_replicas=2, max_replicas=8)))

`application` is the import path for Ray's own configuration files (deploy/rayservice.yaml). Knows Ray Serve; what the
deployments do is in the modules beside it.
"""

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Mapping
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from fusionvl.serve.app import create_app
from fusionvl.serve.engine_loader import load_engine
from fusionvl.serve.options import LOOPBACK, parse_serve_arguments, ray_settings_from, settings_from
from fusionvl.serve.ray_pool import RayFiles, RayPool
from fusionvl.serve.ray_replica import FileKeeper, ModelReplica
from fusionvl.serve.settings import RaySettings, ServerSettings
from fusionvl.serve.worker import Loader

APP_NAME = "fusionvl"
_INGRESS_REQUESTS = 1000  # of one process at a time; the application's own limits are narrower
_START_ATTEMPTS = 3
_HEALTH_PERIOD_SECONDS = 5.0
_SECONDS_TO_ANSWER = 10.0


class Ingress:
    """The application in a replica: everything but models and files.

    Args:
        settings: Of the server.
        models: The models' deployments, by the models' names.
        files: The files' deployment.
    """

    def __init__(
        self, settings: ServerSettings, models: Mapping[str, DeploymentHandle[Any]], files: DeploymentHandle[Any]
    ) -> None:
        self._settings = settings
        self._models = models
        self._files = files

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve once, in the replica."""
        names = {name: deployment_name(name) for name in self._models}
        pool = RayPool(self._models, names, serve.get_replica_context().app_name)
        return create_app(self._settings, pool=pool, files=RayFiles(self._files))


def deployment_name(model: str) -> str:
    """What a model's deployment is called in Ray's own tools."""
    return f"model-{model}"


def application_of(settings: ServerSettings, spread: RaySettings, loader: Loader = load_engine) -> serve.Application:
    """The application, to be given to `serve.run`; running it again replaces the replicas one after another.

    Args:
        settings: Models, keys, limits.
        spread: How many replicas, and what each takes.
        loader: Loads a model in its replica; every node must be able to import it.
    """
    workers, limits = settings.workers, settings.limits
    # A request that waits stays at the caller, where it can still go to whichever replica is free first.
    model = serve.deployment(
        max_ongoing_requests=workers.max_batch,
        max_queued_requests=limits.waiting,
        autoscaling_config={
            "min_replicas": spread.min_replicas,
            "max_replicas": spread.max_replicas,
            "target_ongoing_requests": max(1.0, workers.max_batch / 2),
        },
        ray_actor_options={"num_cpus": spread.cpus, "num_gpus": spread.gpus},
        health_check_period_s=_HEALTH_PERIOD_SECONDS,
        health_check_timeout_s=workers.silence_seconds,
        graceful_shutdown_timeout_s=settings.drain_seconds,
        max_constructor_retry_count=_START_ATTEMPTS,
    )(ModelReplica)
    models = {
        one.name: model.options(name=deployment_name(one.name)).bind(loader, one.source, workers, limits)
        for one in settings.models
    }
    files = serve.deployment(name="files", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=_INGRESS_REQUESTS)(
        FileKeeper
    )
    ingress = serve.deployment(
        name="http",
        num_replicas=spread.ingress_replicas,
        max_ongoing_requests=_INGRESS_REQUESTS,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=settings.drain_seconds,
        max_surge_percent=100,  # old ones answer until the new ones do
    )(serve.ingress()(Ingress))
    return ingress.bind(settings, models, files.bind(limits))


def application(args: dict[str, Any]) -> serve.Application:
    """For Ray's configuration files: `args: {arguments: [NAME=PATH, --replicas, 1-4, ...]}`, as for `fusionvl serve`.

    Raises:
        ValueError: When the arguments cannot be used.
    """
    if set(args) - {"arguments"}:
        raise ValueError(f"args holds arguments, a list as for fusionvl serve, not {', '.join(sorted(args))}")
    options = parse_serve_arguments([str(argument) for argument in args.get("arguments", [])])
    return application_of(settings_from(options), ray_settings_from(options))


def join(address: str) -> None:
    """Join a cluster: HOST:PORT, `auto` for the one this machine is part of, `local` for a new one of this machine.

    Raises:
        ValueError: When there is none.
    """
    if address not in ("auto", "local"):
        _check_answers(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here reports to nobody
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"No Ray cluster could be joined ({address}): {' '.join(str(error).split())}") from error


def deploy(app: serve.Application, host: str, port: int) -> str:
    """Run an application on the cluster joined; returns when its replicas answer.

    Args:
        app: Of `application_of`.
        host: Address at which each node with a replica listens; a loopback address is the head's only.
        port: Of each.

    Returns:
        The URL.

    Raises:
        ValueError: When a deployment cannot be started; the reason is in it.
    """
    location = "HeadOnly" if host in LOOPBACK else "EveryNode"
    serve.start(proxy_location=location, http_options={"host": host, "port": port})
    try:
        serve.run(app, name=APP_NAME)
    except RuntimeError as error:
        raise ValueError(f"Ray Serve could not start the application: {_reason(error)}") from error
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _reason(error: RuntimeError) -> str:
    """The last error of a replica that could not be started, from its trace; else what Ray Serve says."""
    deployments = serve.status().applications[APP_NAME].deployments.values()
    traces = "\n".join(deployment.message for deployment in deployments)
    errors = re.findall(r"^\w+(?:Error|Exception): (.+)$", traces, re.MULTILINE)
    return errors[-1] if errors else " ".join(str(error).split())


def stay() -> None:
    """Wait for a signal, then end the application and the cluster that was started for it."""
    asked = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: asked.set())
    asked.wait()
    serve.shutdown()
    ray.shutdown()


def _check_answers(address: str) -> None:
    """Ray itself tries an address where nothing listens for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--ray takes HOST:PORT, as `ray start` prints it, auto or local, not {address}")
    try:
        socket.create_connection((host, int(port)), _SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise ValueError(f"No Ray cluster answers at {address}: {error}. Start one with `ray start --head`") from error
