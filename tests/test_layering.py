"""The house rules, held by reading the source: imports go one way, modules are small and say what they are."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
PACKAGE = SRC / "fusionvl"
MODULES = sorted(PACKAGE.rglob("*.py"))

# What each room may import from besides itself.
_FLOW = ("data", "processing", "model", "engine")
MAY_IMPORT = {room: set(_FLOW[:position]) for position, room in enumerate(_FLOW)}
# Under all rooms: how a run is kept on disk, what it was made with, how a table is written.
FOUNDATION = {"run_folder": {"provenance"}, "provenance": set[str](), "text_table": set[str]()}
MAY_IMPORT["vllm"] = {"data", "processing", "model", "auto"}  # auto: vLLM finds configurations through transformers
MAY_IMPORT |= {room: set(_FLOW) for room in ("train", "eval", "serve")}
MAY_IMPORT["eval"].add("auto")  # any model of transformers is scored for comparison, a FUSION among them
MAY_IMPORT["synth"] = {"data", "auto"}  # auto: a local judge may be a FUSION
MAY_IMPORT["ablation"] = {*_FLOW, "train", "eval", "synth"}  # trains variants and scores them: the rooms to its left
MAY_IMPORT["auto"] = {"processing", "model"}  # registers their classes with transformers
# The package's face and its command line (with demo and terminal) see every room; no room sees them.
FACES = {"__init__", "__main__", "cli", "demo", "terminal"}

DRAWERS = {"utils", "util", "common", "builder", "helpers", "helper", "misc"}
MAX_LINES = 500


def room_of(module: str) -> str:
    """`fusionvl.model.losses` -> `model`; `fusionvl` itself -> `__init__`."""
    return [*module.split("."), "__init__"][1]


def module_name(path: Path, src: Path = SRC) -> str:
    return ".".join(path.relative_to(src).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yields (line, module of ours) for every import, at the top, in functions, or under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                base = ".".join([*parents, base] if base else parents)
            # `from fusionvl import model` imports a room; `from fusionvl.data import Sample` imports from one.
            names = [f"fusionvl.{alias.name}" for alias in node.names] if base == "fusionvl" else [base]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "fusionvl")


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """Returns one sentence per import that goes the wrong way."""
    room = room_of(module)
    found = []
    for line, name in imported_modules(ast.parse(source), module, is_package):
        target = room_of(name)
        if room in FACES:
            # The command line is for people: only __main__ is there to call it.
            right = target not in {"cli", "__main__"} or (room, target) == ("__main__", "cli")
        elif room in FOUNDATION:
            right = target in {room, *FOUNDATION[room]}
        else:
            right = target in {room, "__version__", *FOUNDATION, *MAY_IMPORT[room]}
        if not right:
            found.append(f"{module}:{line} imports {name}, but {room} is not to the right of {target}")
    return found


def ids(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_imports_go_one_way(path):
    module = module_name(path)
    room = room_of(module)
    assert room in MAY_IMPORT or room in FACES or room in FOUNDATION, (
        f"{module} is in no room; add it to the flow in this test and the docs"
    )
    assert violations(path.read_text(encoding="utf-8"), module, path.name == "__init__.py") == []


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_module_is_small_and_says_what_it_is(path):
    source = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)), f"{ids(path)} opens without a docstring"
    lines = len(source.splitlines())
    assert lines <= MAX_LINES, f"{ids(path)} has {lines} lines; split it where two halves have names"
    assert path.stem not in DRAWERS, f"{ids(path)}: a function lives with what it is about, not in a drawer"
    assert path.parent.name not in DRAWERS, f"{ids(path)}: a room is named after what is in it"


def test_the_modules_are_found():
    assert {"data/sample.py", "data/llava.py"} <= {ids(path) for path in MODULES}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fusionvl.data.sample", "from fusionvl.processing import x"),
        ("fusionvl.data.sample", "import fusionvl.model.losses"),
        ("fusionvl.data.sample", "from ..model import losses"),
        ("fusionvl.data.sample", "from .. import model"),
        ("fusionvl.data.sample", "from fusionvl import model"),
        ("fusionvl.data.sample", "def f():\n    from fusionvl.engine import FusionEngine"),
        ("fusionvl.data.sample", "if TYPE_CHECKING:\n    import fusionvl.train"),
        ("fusionvl.processing.collate", "from fusionvl.model.configuration import FusionConfig"),
        ("fusionvl.model.modeling", "from fusionvl.engine import FusionEngine"),
        ("fusionvl.engine.engine", "from fusionvl.serve.server import app"),
        ("fusionvl.train.run", "from fusionvl.eval.metrics import exact_match"),
        ("fusionvl.eval.own_run", "from fusionvl.serve import server"),
        ("fusionvl.serve.server", "from fusionvl.train import run"),
        ("fusionvl.synth.pipeline", "from fusionvl.processing import FusionProcessor"),
        ("fusionvl.eval.own_run", "from fusionvl.cli import main"),
        ("fusionvl.run_folder", "from fusionvl.data.sample import Sample"),
        ("fusionvl.provenance", "from fusionvl.run_folder import claim"),
        ("fusionvl.eval.own_run", "from fusionvl import FusionEngine"),
        ("fusionvl.eval.own_run", "import fusionvl"),
        ("fusionvl", "from fusionvl.cli import main"),
    ],
)
def test_wrong_ways_are_seen(module, source):
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fusionvl.data.llava", "from fusionvl.data.sample import Sample"),
        ("fusionvl.data.llava", "from .sample import Sample"),
        ("fusionvl.model.modeling", "from fusionvl.processing.collate import collate\nimport torch"),
        ("fusionvl.engine.engine", "from fusionvl.model import FusionConfig\nfrom fusionvl import __version__"),
        ("fusionvl.train.run", "from fusionvl.engine import FusionEngine\nfrom fusionvl.data import Sample"),
        ("fusionvl.synth.pipeline", "from ..data import Sample"),
        ("fusionvl.data.llava", "from fusionvl.run_folder import write_whole"),
        ("fusionvl.cli", "from fusionvl.train.run import run\nfrom fusionvl import FusionEngine"),
        ("fusionvl.__main__", "from fusionvl.cli import main"),
        ("fusionvl", "from fusionvl.model.configuration import FusionConfig"),
    ],
)
def test_right_ways_pass(module, source):
    assert violations(source, module) == []


def test_relative_imports_of_a_room_are_resolved_from_the_room():
    assert violations("from .sample import Sample", "fusionvl.data", is_package=True) == []
    assert len(violations("from ..model import losses", "fusionvl.data", is_package=True)) == 1


def test_importing_the_package_does_not_load_torch():
    code = "import sys, fusionvl; print(sorted({'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert out.stdout.strip() == "[]", "import what is heavy when it is first used"
