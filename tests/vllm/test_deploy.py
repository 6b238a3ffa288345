"""vLLM knows every option of deploy/ and of docs/serving.md. Nothing is started here."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
import yaml
from vllm import AsyncEngineArgs, envs
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FIXED = re.search(r'exec vllm serve "\$@" (.*)', (DEPLOY / "serve.sh").read_text())[1]


def parsed(arguments):
    """As `vllm serve` parses them; SystemExit for what it does not know."""
    options = make_arg_parser(FlexibleArgumentParser()).parse_args(arguments)
    validate_parsed_serve_args(options)
    return options


def containers():
    """Arguments of the image, by where they stand."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    found = [(name, service["command"]) for name, service in compose.items() if name != "proxy"]
    for document in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()):
        if document["kind"] == "Deployment":
            (container,) = document["spec"]["template"]["spec"]["containers"]
            found += [(document["metadata"]["name"], container["args"])] if "args" in container else []
    return found


def commands_of_the_page():
    """What follows `vllm serve` in its blocks."""
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / "docs" / "serving.md").read_text(), re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines if "vllm serve" in line]
    return [line[line.index("serve") + 1 :] for line in words]


def test_a_wrong_option_would_be_noticed():
    for wrong in (["model", "--no-such-option"], ["model", "--tensor-parallel-size=two"]):
        with pytest.raises(SystemExit):
            parsed(wrong)


def test_options_of_the_containers():
    assert {name for name, _ in containers()} == {"gpu0", "fusionvl-servers"}
    for _, arguments in containers():
        options = parsed([*arguments, *FIXED.split()])
        assert options.model_tag == arguments[0]
        assert options.allowed_media_domains, "or vLLM fetches pictures from anywhere"
        assert options.api_key is None, "keys do not belong into files of the repository"


def test_options_of_the_page():
    commands = commands_of_the_page()
    assert len(commands) > 5
    for arguments in commands:
        assert parsed(arguments).model_tag or "--headless" in arguments


def test_options_of_ray():
    (application,) = yaml.safe_load((DEPLOY / "ray.yaml").read_text())["applications"]
    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    for model in application["args"]["llm_configs"]:
        assert model["engine_kwargs"].keys() <= known
        assert model["engine_kwargs"]["allowed_media_domains"]


def test_variables_of_the_environment():
    texts = [path.read_text() for path in DEPLOY.iterdir()]
    names = set(re.findall(r"\bVLLM_[A-Z_]+\b", "".join(texts)))
    assert "VLLM_API_KEY" in names
    assert names <= envs.environment_variables.keys()
