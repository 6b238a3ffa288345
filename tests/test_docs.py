"""The documents name things that exist."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from fusionvl import cli
from fusionvl.eval.commands import with_action

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ROWS = re.findall(r"\| `(src/fusionvl/\S+\.py)` \| `(\w+)` \|", (ROOT / "docs" / "paper_map.md").read_text())
LINKS = [(page, link) for page in PAGES for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())]
# Lines of code blocks; before `fusionvl` may stand a folder, a prompt, a variable or torchrun.
COMMANDS = [
    (page, command)
    for page in PAGES
    for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    for command in re.findall(
        r"^(?:\S*/|\$ |\w+=\S+ |\S*torchrun .*-m )?fusionvl (.+)", block.replace("\\\n", ""), re.MULTILINE
    )
]


def test_the_paper_map_has_every_idea():
    assert len(ROWS) >= 10


@pytest.mark.parametrize(("path", "name"), ROWS)
def test_names_of_the_paper_map_exist(path, name):
    assert (ROOT / path).is_file()
    module = importlib.import_module(path.removeprefix("src/").removesuffix(".py").replace("/", "."))
    assert hasattr(module, name) or any(hasattr(value, name) for value in vars(module).values())


@pytest.mark.parametrize(("page", "link"), LINKS, ids=lambda value: getattr(value, "name", value))
def test_links_lead_somewhere(page, link):
    assert (page.parent / link).exists()


def test_the_commands_of_the_documents_are_found():
    assert sum(page.name == "README.md" for page, _ in COMMANDS) >= 15
    training = "train recipes/fusion.yaml --model 8b  # the paper's, sharded over GPUs (FSDP2)"
    assert (ROOT / "README.md", training) in COMMANDS


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=lambda value: getattr(value, "name", value))
def test_commands_of_the_documents_parse(page, command):
    """With the real parser, which ends the process when it does not know an argument; nothing is run."""
    assert callable(cli._parse(with_action(shlex.split(command, comments=True))).run)


def test_the_quick_start_of_the_readme_works(monkeypatch, capsys):
    """Its first `fusionvl ask` command, word for word, and its Python block."""
    monkeypatch.chdir(ROOT)
    readme = (ROOT / "README.md").read_text()
    command = re.search(r"^fusionvl (ask examples/.*)$", readme, re.MULTILINE)
    assert cli.main(shlex.split(command[1])) == 0
    assert capsys.readouterr().out.split("\n")[1::2][:2] == ["triangle", "teal"]
    exec(re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1], {})  # the block is part of this repository
    assert capsys.readouterr().out == "triangle\n"


def test_the_examples_of_the_engine_work(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "index.md").read_text(), re.DOTALL)
    streamed, told = [block for block in blocks if "FusionEngine" in block]
    exec(streamed, {})
    assert capsys.readouterr().out == "triangle\nteal"
    exec(told, {})
    shown = capsys.readouterr().out
    assert "Piece(index=1, text='triangle', logprobs=(TokenLogprob(" in shown
    assert "Finish(index=0, reason='stop'" in shown
