"""The engine's command: `fusionvl explain`. Thin: parse, call, print.

Heavy imports stand inside the functions, so that `--help` is instant.
"""

import argparse
from pathlib import Path

from fusionvl.engine.options import add_engine_options, check_image, engine_from


def add_explain_command(explain: argparse.ArgumentParser) -> None:
    """Add arguments and action to the command."""
    explain.add_argument("image", metavar="IMAGE", help="path of an image file")
    explain.add_argument("question", metavar="QUESTION")
    explain.add_argument("--output", metavar="PNG", type=Path, default=Path("explain.png"), help="what to write")
    add_engine_options(explain)
    explain.set_defaults(run=_explain)


def _explain(options: argparse.Namespace) -> None:
    output: Path = options.output
    if output.suffix.lower() != ".png":
        raise ValueError(f"--output must end in .png, not {output.name!r}")
    if not output.parent.is_dir():
        raise ValueError(f"There is no folder {output.parent} to write {output.name} into")
    check_image(options)
    from fusionvl.engine.explain import explain

    explanation = explain(
        engine_from(options),
        options.image,
        options.question,
        num_latents=options.num_latents,
        max_new_tokens=options.max_new_tokens,
    )
    explanation.draw().save(output)
    print(explanation.answer)
    for sentence in explanation.missing:
        print(sentence)
    print(f"Written: {output}")
