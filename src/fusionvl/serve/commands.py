"""The command of the serving room: `fusionvl serve [MODEL ...]`. Thin: parse, call, print.

Rooms are imported inside the functions, so that `--help` is instant.
"""

import argparse
import logging
from pathlib import Path

from fusionvl.engine.options import positive
from fusionvl.engine.sources import check_source, shipped_model
from fusionvl.serve.settings import Limits, ServerSettings, WorkerSettings, parse_models, read_api_keys

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


def add_serve_command(serve: argparse.ArgumentParser) -> None:
    """Add the server's options to its command."""
    serve.add_argument(
        "models", metavar="MODEL", nargs="*", help="hub name or folder, or NAME=PATH (default: the shipped model)"
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    serve.add_argument("--port", type=int, default=8000, help="0 takes a free one")
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
    serve.add_argument("--memory-gb", metavar="GB", type=float, help="of all loaded models together (default: any)")
    serve.add_argument("--max-batch", metavar="N", type=positive, default=8, help="answers decoded together")
    serve.add_argument("--max-waiting", metavar="N", type=positive, default=64, help="answers that may wait")
    serve.add_argument("--requests-per-key", metavar="N", type=positive, default=16, help="at the same time")
    serve.add_argument("--max-new-tokens", metavar="N", type=positive, default=512, help="when a request says none")
    serve.add_argument("--answer-seconds", metavar="S", type=float, default=120.0, help="a request may take")
    serve.add_argument("--drain-seconds", metavar="S", type=float, default=30.0, help="for running answers at the end")
    serve.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    serve.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    serve.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> None:
    from fusionvl.data.extras import import_extra

    for module in ("fastapi", "uvicorn", "httpx", "prometheus_client", "pydantic", "python_multipart"):
        import_extra(module, extra="serve", needed_for="fusionvl serve")
    from fusionvl.serve.app import create_app
    from fusionvl.serve.server import run_server

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("fusionvl.serve").setLevel(logging.INFO)
    settings = settings_from(options)
    names = ", ".join(model.name for model in settings.models)
    run_server(
        create_app(settings),
        options.host,
        options.port,
        settings.drain_seconds,
        lambda url: print(f"Serving {names} at {url}", flush=True),
    )


def settings_from(options: argparse.Namespace) -> ServerSettings:
    """The typed settings of the command line.

    Raises:
        ValueError: When models or keys cannot be used.
    """
    models = parse_models(options.models, shipped_model())
    for model in models:
        check_source(model.source)
    hosts = options.allowed_host or (_LOOPBACK_NAMES if options.host in _LOOPBACK else ())
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
            max_batch=options.max_batch,
            memory_bytes=None if options.memory_gb is None else int(options.memory_gb * 1e9),
        ),
    )
