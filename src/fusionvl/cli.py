"""The command line: one thin function per command, parse, call, print.

Knows every room's front door. Rooms are imported inside the commands, so that `--help` is instant; bad input ends
with one sentence and exit code 2.
"""

import argparse
import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from fusionvl import __version__
from fusionvl.ablation.commands import add_ablate_command
from fusionvl.engine.commands import add_explain_command
from fusionvl.engine.options import (
    add_engine_options,
    check_image,
    engine_from,
    positive,
    quiet_bitsandbytes,
    quiet_transformers,
)
from fusionvl.eval.commands import add_eval_commands, with_action
from fusionvl.serve.commands import add_serve_command
from fusionvl.synth.commands import add_synth_commands
from fusionvl.terminal import shown

_VALUE = re.compile(r"\w[\w.-]*=")  # of a recipe: KEY=VALUE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    warnings.filterwarnings("ignore", module=r"PIL\b")  # of a picture that is usable nevertheless: nobody asked
    options = _parse(with_action(sys.argv[1:] if arguments is None else arguments))
    try:
        code = options.run(options) or 0
        sys.stdout.flush()
        return code
    except (ValueError, ModuleNotFoundError) as error:
        print(shown(f"fusionvl {options.command}: {error}"), file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader went away: `fusionvl ask ... | head`
        _drop_output()
        return 1
    except OSError as error:  # a disk that is full or gone, a folder that may not be written
        print(shown(f"fusionvl {options.command}: {error}"), file=sys.stderr)
        _drop_output()
        return 2
    except KeyboardInterrupt:
        return 130


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command; values of a recipe may stand anywhere, also where argparse expects no more."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    values = [part for part in rest if _VALUE.match(part)] if hasattr(options, "overrides") else []
    unknown = [part for part in rest if part not in values]
    if unknown and (options.command != "train" or any(part.startswith("-") for part in unknown)):
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if options.command == "train":
        given = [*options.overrides, *rest]
        options.overrides = [part for part in given if _VALUE.match(part)]
        recipes = [part for part in given if part not in options.overrides]
        if len(recipes) != 1:
            parser.error(f"train needs one RECIPE, not {', '.join(recipes) or 'none'}")
        options.recipe = recipes[0]
    elif values:
        options.overrides = [*options.overrides, *values]
    return options


def _drop_output() -> None:
    """What is still buffered cannot be written; Python would try again as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Shows what it does not understand escaped."""

    def error(self, message: str) -> NoReturn:
        super().error(shown(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fusionvl", description="Multimodal models in which vision and language meet everywhere (FUSION)."
    )
    parser.add_argument("--version", action="version", version=f"fusionvl {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    ask = commands.add_parser("ask", help="ask questions about an image")
    ask.add_argument("image", metavar="IMAGE", help="path of an image file")
    ask.add_argument("questions", metavar="QUESTION", nargs="+", help="one or more questions, each on its own")
    add_engine_options(ask)
    ask.set_defaults(run=_ask)

    chat = commands.add_parser("chat", help="talk about an image; /image PATH, /reset and /quit inside")
    chat.add_argument("image", metavar="IMAGE", nargs="?", help="path of an image file")
    add_engine_options(chat)
    chat.add_argument("--url", metavar="URL", help="ask a server instead; --model is its name there")
    chat.add_argument("--api-key-env", metavar="NAME", help="environment variable that holds the server's key")
    chat.set_defaults(run=_chat)

    add_explain_command(commands.add_parser("explain", help="draw what the model looked at for a question"))

    demo = commands.add_parser("demo", help="answer questions about real images with the shipped model")
    demo.set_defaults(run=_demo)

    info = commands.add_parser("info", help="describe a model: family, parameters, token counts")
    info.add_argument("model", metavar="MODEL", nargs="?", help="hub name or folder (default: the shipped model)")
    info.set_defaults(run=_info)

    convert = commands.add_parser("convert", help="save a released checkpoint in the layout of this package")
    convert.add_argument("source", metavar="SRC", help="hub name or folder")
    convert.add_argument("target", metavar="DST", type=Path, help="folder to write; must not exist")
    convert.add_argument("--vision-heads", type=int, help="attention heads of a vision tower with an unknown name")
    convert.add_argument("--weights-only", action="store_true", help="convert a folder that has no tokenizer")
    convert.set_defaults(run=_convert)

    train = commands.add_parser("train", help="train a model from a recipe; goes on where it stopped")
    train.add_argument(
        "overrides",
        metavar="RECIPE [KEY=VALUE ...]",
        nargs="*",
        help="a YAML file, for instance recipes/nano.yaml, and values to replace in it: seed=1; "
        "stages.max_steps=9 for all stages, stages.2.max_steps=9 for one",
    )
    train.add_argument("--model", metavar="NAME", help="which of the recipe's models: 8b of recipes/fusion.yaml")
    train.add_argument("--output", type=Path, help="folder of the run (default: runs/NAME)")
    train.add_argument(
        "--stage", metavar="1|1.5|2|all", default="all", help="one stage, on the result of the one before"
    )
    train.set_defaults(run=_train)

    data = commands.add_parser("data", help="look at training data").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    verify = data.add_parser("verify", help="read every row of a mixture once and report what is in it")
    verify.add_argument("mixture", metavar="MIXTURE", type=Path, help="a YAML file, or a data file or folder alone")
    verify.add_argument("--model", metavar="NAME_OR_PATH", help="whose tokens to count (default: the shipped model)")
    verify.add_argument("--max-length", metavar="N", type=positive, help="tokens a row may have")
    verify.add_argument("--image-folder", type=Path, help="where images lie (default: as the mixture says)")
    verify.add_argument("--output", type=Path, default=Path("runs/verify"), help="folder of report.json and a plot")
    verify.add_argument("--processes", type=positive, default=1)
    verify.add_argument("--seed", type=int, default=0, help="of the strategy random:N")
    verify.set_defaults(run=_verify)

    add_synth_commands(commands.add_parser("synth", help="make training data"))

    add_eval_commands(commands.add_parser("eval", help="score a model on benchmarks"))
    add_serve_command(commands.add_parser("serve", help="answer over HTTP, as OpenAI's API does"))
    add_ablate_command(commands.add_parser("ablate", help="train with one idea switched off at a time, and compare"))
    return parser


def _no_transformers_bars() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    quiet_bitsandbytes()


def _ask(options: argparse.Namespace) -> None:
    check_image(options)
    from fusionvl.terminal import print_answer

    engine = engine_from(options)
    for question in options.questions:
        if len(options.questions) > 1:
            print(f"> {question}")
        print_answer(engine, options.image, question, options.num_latents, options.max_new_tokens)


def _chat(options: argparse.Namespace) -> None:
    if options.image is not None:
        check_image(options)
    from fusionvl.terminal import chat

    if options.url is not None:
        _chat_with_server(options)
        return
    if options.api_key_env is not None:
        raise ValueError("--api-key-env is for a server: give its --url, too")
    engine = engine_from(options)
    settings = {"num_latents": options.num_latents, "max_new_tokens": options.max_new_tokens}
    chat(lambda messages: engine.stream(messages, **settings), options.image, engine.format)


def _chat_with_server(options: argparse.Namespace) -> None:
    from fusionvl.data.extras import import_extra

    import_extra("openai", extra="serve", needed_for="fusionvl chat --url")
    from fusionvl.serve.client import RemoteModel
    from fusionvl.terminal import chat

    if (options.device, options.dtype, options.quantize) != ("auto", "auto", None):
        raise ValueError("--device, --dtype and --quantize are the server's to choose: leave them out with --url")
    key = os.environ.get(options.api_key_env) if options.api_key_env else None
    if options.api_key_env and not key:
        raise ValueError(f"the environment variable {options.api_key_env} holds no key")
    with RemoteModel(options.url, key, options.model, options.max_new_tokens, options.num_latents) as model:
        chat(model.stream, options.image)


def _demo(options: argparse.Namespace) -> None:
    from fusionvl.demo import demo

    quiet_transformers()
    demo()


def _info(options: argparse.Namespace) -> None:
    from fusionvl.engine.describe import describe

    quiet_transformers()
    description = describe(options.model)
    width = 2 + max(map(len, description))
    for name, value in description.items():
        print(f"{name:<{width}}{value}")


def _convert(options: argparse.Namespace) -> None:
    from fusionvl.engine.convert import convert

    quiet_transformers()
    convert(options.source, options.target, options.vision_heads, with_processor=not options.weights_only)
    print(f"Saved {options.source} as {options.target}")


def _train(options: argparse.Namespace) -> None:
    from fusionvl.train.encoder_recipe import is_encoder_recipe
    from fusionvl.train.processes import part, rank
    from fusionvl.train.recipe_loading import load_recipe
    from fusionvl.train.run import train

    logging.basicConfig(format="%(message)s")
    logging.getLogger("fusionvl").setLevel(logging.INFO if rank() == 0 else logging.WARNING)
    _no_transformers_bars()
    if is_encoder_recipe(options.recipe):
        return _pretrain(options)
    recipe = load_recipe(options.recipe, options.overrides, options.model)
    folder = train(recipe, options.output or Path("runs") / recipe.name, options.stage)
    if rank() == 0:
        print(f"The trained model is in {folder}: fusionvl ask IMAGE QUESTION --model {folder}")
    part()


def _pretrain(options: argparse.Namespace) -> None:
    from fusionvl.train.encoder_pretraining import pretrain
    from fusionvl.train.encoder_recipe import load_encoder_recipe

    if options.model is not None or options.stage != "all":
        raise ValueError(f"{options.recipe} describes one encoder and one stage: leave out --model and --stage")
    recipe = load_encoder_recipe(options.recipe, options.overrides)
    folder = pretrain(recipe, options.output or Path("runs") / recipe.name)
    print(f"The trained encoder is in {folder}: model.vision={folder} in a recipe of `fusionvl train`")


def _verify(options: argparse.Namespace) -> int:
    from fusionvl.data.mixture import open_mixture
    from fusionvl.data.verification import verify_mixture
    from fusionvl.engine.sources import check_source, shipped_model
    from fusionvl.processing.measuring import TokenCounter
    from fusionvl.run_folder import writing

    model = str(options.model or shipped_model())
    check_source(model)
    mixture = open_mixture(options.mixture, seed=options.seed, image_folder=options.image_folder)
    quiet_transformers()
    counter = TokenCounter(model, options.max_length)
    _ = counter.processor  # one that cannot be loaded, and a wrong place for the output, show before hours of reading
    with writing(options.output):
        options.output.mkdir(parents=True, exist_ok=True)
    report = verify_mixture(mixture, counter, processes=options.processes)
    print(shown(report.as_text()))  # names of rows and files are somebody else's
    report.write(options.output)
    print(f"Written: {options.output / 'report.json'}, {options.output / 'lengths.png'}")
    return 1 if report.corrupt else 0


if __name__ == "__main__":
    sys.exit(main())
