"""The command of the serving room: `fusionvl serve [MODEL ...]`. Thin: parse, call, print.

Rooms are imported inside the functions, so that `--help` is instant.
"""

import argparse
import logging

from fusionvl.serve.options import add_serve_options, ray_settings_from, settings_from


def add_serve_command(serve: argparse.ArgumentParser) -> None:
    """Add the server's options to its command."""
    add_serve_options(serve)
    serve.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> None:
    from fusionvl.data.extras import import_extra

    for module in ("fastapi", "uvicorn", "httpx", "prometheus_client", "pydantic", "python_multipart"):
        import_extra(module, extra="serve", needed_for="fusionvl serve")
    if options.ray is not None:
        _serve_on_ray(options)
        return
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


def _serve_on_ray(options: argparse.Namespace) -> None:
    from fusionvl.data.extras import import_extra

    import_extra("ray", extra="ray", needed_for="fusionvl serve --ray")
    from fusionvl.serve.ray_app import application_of, deploy, join, stay

    settings, spread = settings_from(options), ray_settings_from(options)
    join(options.ray)
    url = deploy(application_of(settings, spread), options.host, options.port)
    names = ", ".join(model.name for model in settings.models)
    print(f"Serving {names} at {url}", flush=True)
    if options.ray == "local":
        stay()
    else:
        print("It runs on; the same command with other options updates it, `serve shutdown` ends it")
