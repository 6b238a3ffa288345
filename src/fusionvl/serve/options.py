"""The options of `fusionvl serve`, and the typed settings they mean. Knows argparse and settings; starts nothing."""

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path

from fusionvl.engine.options import positive
from fusionvl.engine.sources import check_source, shipped_model
from fusionvl.serve.settings import (
    Limits,
    RaySettings,
    ServerSettings,
    WorkerSettings,
    parse_models,
    read_api_keys,
)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


def add_serve_options(serve: argparse.ArgumentParser) -> None:
    """Add the server's options to its command."""
    serve.add_argument(
        "models", metavar="MODEL", nargs="*", help="hub name or folder, or NAME=PATH (default: the shipped model)"
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    serve.add_argument("--port", type=port_number, default=8000, help="0 takes a free one")
    serve.add_argument("--api-key-file", metavar="PATH", type=Path, help="keys, one a line; requests must bring one")
    serve.add_argument(
        "--allowed-host",
        metavar="NAME",
        action="append",
        help="a name requests may call the server by; any, unless it listens to this machine only",
    )
    serve.add_argument(
        "--allow-private-networks", action="store_true", help="let image URLs lead to private addresses"
    )
    serve.add_argument(
        "--memory-gb", metavar="GB", type=positive_number, help="of all loaded models together (default: any)"
    )
    serve.add_argument("--max-batch", metavar="N", type=positive, default=8, help="answers decoded together")
    serve.add_argument("--max-waiting", metavar="N", type=positive, default=64, help="answers that may wait")
    serve.add_argument("--requests-per-key", metavar="N", type=positive, default=16, help="at the same time")
    serve.add_argument("--max-new-tokens", metavar="N", type=positive, default=512, help="when a request says none")
    serve.add_argument("--answer-seconds", metavar="S", type=positive_number, default=120.0, help="a request may take")
    serve.add_argument(
        "--drain-seconds", metavar="S", type=number_from_zero, default=30.0, help="for running answers at the end"
    )
    serve.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    serve.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    serve.add_argument("--quantize", choices=["int8", "int4"], help="hold the weights in fewer bits: less memory")
    _add_ray_options(serve.add_argument_group("on a Ray cluster"))


def _add_ray_options(serve: argparse._ArgumentGroup) -> None:
    serve.add_argument(
        "--ray",
        metavar="ADDRESS",
        nargs="?",
        const="local",
        help="deploy on the cluster at HOST:PORT (auto: this machine's) and return; alone: run on a new one here",
    )
    serve.add_argument("--replicas", metavar="N|MIN-MAX", default="1", help="of each model, as the load asks")
    serve.add_argument("--replica-cpus", metavar="N", type=float, default=1.0, help="each takes")
    serve.add_argument("--replica-gpus", metavar="N", type=float, default=0.0, help="each takes; 0.5 shares one")
    serve.add_argument("--http-replicas", metavar="N", type=positive, default=1, help="processes that speak HTTP")


def port_number(text: str) -> int:
    """Parse a port, as an argparse type.

    Raises:
        argparse.ArgumentTypeError: When there is no such port.
    """
    number = int(text)
    if not 0 <= number < 2**16:
        raise argparse.ArgumentTypeError(f"must be a port, from 0 to 65535, not {number}")
    return number


def positive_number(text: str) -> float:
    """Parse a number above 0, as an argparse type.

    Raises:
        argparse.ArgumentTypeError: When it is not, or not finite.
    """
    number = number_from_zero(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"must be more than 0, not {text}")
    return number


def number_from_zero(text: str) -> float:
    """Parse a number of at least 0, as an argparse type.

    Raises:
        argparse.ArgumentTypeError: When it is less, or not finite: Python reads `nan` and `inf`, too.
    """
    number = float(text)
    if not math.isfinite(number) or number < 0:
        raise argparse.ArgumentTypeError(f"must be a finite number and not below 0, not {text}")
    return number


def parse_serve_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a list of arguments, as after `fusionvl serve`; for those who have no command line.

    Raises:
        ValueError: When they cannot be parsed.
    """
    parser = argparse.ArgumentParser(prog="fusionvl serve", exit_on_error=False, allow_abbrev=False)
    add_serve_options(parser)
    try:
        options, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    if unknown:
        raise ValueError(f"fusionvl serve knows no {' '.join(unknown)}")
    return options


def ray_settings_from(options: argparse.Namespace) -> RaySettings:
    """The typed settings of the cluster's options.

    Raises:
        ValueError: When they cannot be used, or an option means nothing on a cluster.
    """
    if options.memory_gb is not None:
        raise ValueError("--memory-gb is for one machine: on a cluster every model has replicas of its own")
    if not 0 < options.port < 2**16:
        raise ValueError(f"--port must be a port on a cluster, not {options.port}")
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", options.replicas)
    if found is None:
        raise ValueError(f"--replicas is N or MIN-MAX, not {options.replicas}")
    return RaySettings(
        min_replicas=int(found[1]),
        max_replicas=int(found[2] or found[1]),
        ingress_replicas=options.http_replicas,
        cpus=options.replica_cpus,
        gpus=options.replica_gpus,
    )


def settings_from(options: argparse.Namespace) -> ServerSettings:
    """The typed settings of the command line.

    Raises:
        ValueError: When models or keys cannot be used.
    """
    models = parse_models(options.models, shipped_model())
    for model in models:
        check_source(model.source)
    hosts = options.allowed_host or (_LOOPBACK_NAMES if options.host in LOOPBACK else ())
    return ServerSettings(
        models=models,
        api_keys=read_api_keys(options.api_key_file) if options.api_key_file else (),
        allowed_hosts=tuple(hosts),
        allow_private_networks=options.allow_private_networks,
        drain_seconds=options.drain_seconds,
        limits=Limits(
            waiting=options.max_waiting,
            requests_per_key=options.requests_per_key,
            max_new_tokens=options.max_new_tokens,
            answer_seconds=options.answer_seconds,
        ),
        workers=WorkerSettings(
            device=options.device,
            dtype=options.dtype,
            quantize=options.quantize,
            max_batch=options.max_batch,
            memory_bytes=None if options.memory_gb is None else int(options.memory_gb * 1e9),
        ),
    )
