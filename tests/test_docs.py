"""The documents name things that exist."""

import importlib
import re
from pathlib import Path

import pytest

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
