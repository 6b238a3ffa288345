"""The pages made from the code are those of the code, and all pages make a site."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date(reference):
    pages = reference.pages()
    assert sorted(pages) == sorted(path.name for path in reference.FOLDER.iterdir())
    for name, text in pages.items():
        written = (reference.FOLDER / name).read_text(encoding="utf-8")
        assert written == text, f"{name} is not what the code says: run python scripts/reference.py"


def test_commands_and_keys_are_found(reference):
    commands, keys = reference.pages().values()
    for name in ("ask", "serve", "train", "data verify", "synth filter", "eval run", "ablate"):
        assert f"\n## fusionvl {name}\n" in commands
    assert "| `--port PORT` | `8000` |" in commands
    assert "| `seed` | whole number | `0` |" in keys
    assert "| `lora` | [Lora](#lora) or null | `null` |" in keys
    assert "| `kind` | `procedural` | `procedural` |" in keys


def test_the_pages_make_a_site(tmp_path):
    """Links and anchors lead somewhere, and every page is in the navigation."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "reference" / "commands" / "index.html").is_file()
