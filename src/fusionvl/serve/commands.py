"""The command of the serving room: `fusionvl serve [MODEL | NAME=PATH]`. Thin: parse, call, print.

Rooms are imported inside the functions, so that `--help` is instant.
"""

import argparse
import functools
import ipaddress
import logging
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from fusionvl.engine.options import add_loading_options, engine_from, positive
from fusionvl.engine.sources import check_source, shipped_model
from fusionvl.serve.settings import Limits, ServerSettings, read_api_key

if TYPE_CHECKING:
    from starlette.applications import Starlette

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
_FOR_A_MODEL = (
    "model", "api_key_file", "allow_private_networks", "max_waiting", "max_new_tokens", "dtype", "device", "quantize",
)  # fmt: skip


def add_serve_command(serve: argparse.ArgumentParser) -> None:
    """Add the server's options to its command."""
    serve.add_argument(
        "model", metavar="MODEL", nargs="?", help="hub name or folder, or NAME=PATH (default: the shipped model)"
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    serve.add_argument("--port", type=port_number, default=8000, help="0 takes a free one")
    serve.add_argument("--api-key-file", metavar="PATH", type=Path, help="a key of 16 characters or more to ask for")
    serve.add_argument(
        "--allowed-host", metavar="NAME", action="append", default=[], help="a name requests may call the server by"
    )
    serve.add_argument(
        "--allow-private-networks", action="store_true", help="let image URLs lead to private addresses"
    )
    serve.add_argument("--max-waiting", metavar="N", type=positive, default=64, help="answers that may wait")
    serve.add_argument("--max-new-tokens", metavar="N", type=positive, default=512, help="when a request says none")
    serve.add_argument("--answer-seconds", metavar="S", type=positive_number, default=120.0, help="a request may take")
    serve.add_argument(
        "--drain-seconds", metavar="S", type=number_from_zero, default=30.0, help="for running answers at the end"
    )
    add_loading_options(serve)
    serve.add_argument(
        "--page-for", metavar="URL", help="no model: the page, in front of another OpenAI-compatible server"
    )
    serve.set_defaults(run=functools.partial(_serve, serve))


def port_number(text: str) -> int:
    """A port; an argparse type."""
    number = int(text)
    if not 0 <= number < 2**16:
        raise argparse.ArgumentTypeError(f"must be a port, from 0 to 65535, not {number}")
    return number


def positive_number(text: str) -> float:
    """A finite number above 0; an argparse type."""
    number = number_from_zero(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"must be more than 0, not {text}")
    return number


def number_from_zero(text: str) -> float:
    """A finite number of at least 0; an argparse type. Python reads `nan` and `inf`, too."""
    number = float(text)
    if not math.isfinite(number) or number < 0:
        raise argparse.ArgumentTypeError(f"must be a finite number and not below 0, not {text}")
    return number


def parse_model(argument: str | None) -> tuple[str, str]:
    """Name and source of a model: NAME=PATH, or a hub name or folder, which is called by its last part.

    Raises:
        ValueError: When there is no such folder, or the name cannot be used in a URL.
    """
    name, equals, source = (argument if argument is not None else f"nano={shipped_model()}").partition("=")
    if not equals:
        name, source = Path(name).name, name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or not source:
        raise ValueError(f"{argument}: a model is NAME=PATH or a path; names are letters, digits, '.', '_', '-'")
    check_source(source)
    return name, source


def settings_from(options: argparse.Namespace) -> ServerSettings:
    """The typed settings of the command line.

    Raises:
        ValueError: When the key cannot be used, or a web page could reach the server under a name of its own.
    """
    own_names = (*_LOOPBACK_NAMES, options.host) if _is_this_machine(options.host) else ()
    hosts = options.allowed_host or own_names
    if not hosts and options.api_key_file is None:
        key = "" if options.page_for else "--api-key-file PATH, or "
        raise ValueError(
            f"--host {options.host} lets others in, and web pages through their browsers: add {key}--allowed-host "
            f"NAME for each name the server is called by"
        )
    return ServerSettings(
        api_key=read_api_key(options.api_key_file) if options.api_key_file else None,
        allowed_hosts=tuple(hosts),
        allow_private_networks=options.allow_private_networks,
        limits=Limits(
            waiting=options.max_waiting,
            max_new_tokens=options.max_new_tokens,
            answer_seconds=options.answer_seconds,
        ),
    )


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _serve(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    from fusionvl.data.extras import import_extra

    for module in ("starlette", "uvicorn", "httpx", "pydantic"):
        import_extra(module, extra="serve", needed_for="fusionvl serve")
    from fusionvl.serve.server import run_server

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("fusionvl.serve").setLevel(logging.INFO)
    name, app = _page(parser, options) if options.page_for is not None else _model(options)
    run_server(
        app, options.host, options.port, options.drain_seconds, lambda at: print(f"Serving {name} at {at}", flush=True)
    )


def _model(options: argparse.Namespace) -> tuple[str, "Starlette"]:
    from fusionvl.serve.app import create_app

    name, options.model = parse_model(options.model)
    return name, create_app(name, functools.partial(engine_from, options), settings_from(options))


def _page(parser: argparse.ArgumentParser, options: argparse.Namespace) -> tuple[str, "Starlette"]:
    from fusionvl.serve.address import server_root
    from fusionvl.serve.page_for import create_page_for

    if given := [name for name in _FOR_A_MODEL if getattr(options, name) != parser.get_default(name)]:
        names = ", ".join("MODEL" if name == "model" else f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"--page-for has no model and no key of its own: leave out {names}")
    url = server_root(options.page_for)
    return f"the page for {url}", create_page_for(url, settings_from(options))
