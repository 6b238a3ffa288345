"""The documents name things that exist."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from fusionvl import cli

ROOT = Path(__file__).parents[1]
ROWS = re.findall(r"\| `(src/fusionvl/\S+\.py)` \| `(\w+)` \|", (ROOT / "docs" / "paper_map.md").read_text())
LINKS = [
    (page, link)
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())
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


def test_the_quick_start_of_the_readme_works(monkeypatch, capsys):
    """Its first `fusionvl ask` command, word for word, and its Python block."""
    monkeypatch.chdir(ROOT)
    readme = (ROOT / "README.md").read_text()
    command = re.search(r"^fusionvl (ask examples/.*)$", readme, re.MULTILINE)
    assert cli.main(shlex.split(command[1])) == 0
    assert capsys.readouterr().out.split("\n")[1::2][:2] == ["triangle", "teal"]
    exec(re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1], {})  # the block is part of this repository
    assert capsys.readouterr().out == "triangle\n"


def test_the_example_of_the_batching_page_works(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(re.search(r"```python\n(.*?)```", (ROOT / "docs" / "batching.md").read_text(), re.DOTALL)[1], {})
    shown = capsys.readouterr().out
    assert "Piece(text='triangle'" in shown
    assert "Finish(reason='stop'" in shown
    assert "\nteal\n" in shown
