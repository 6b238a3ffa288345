"""`import fusionvl.auto`, or any public name, makes the Auto classes know FUSION, whatever is imported first."""

import subprocess
import sys

import pytest

CHECK = """
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
config = AutoConfig.for_model("fusionvl")
assert type(config) in PROCESSOR_MAPPING and type(config) in IMAGE_PROCESSOR_MAPPING
assert type(config) in AutoModelForImageTextToText._model_mapping and type(config) in AutoModel._model_mapping
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "first",
    [
        "import fusionvl.auto",
        "import transformers, fusionvl.auto",
        "from transformers import AutoProcessor; import fusionvl.auto",
        "import fusionvl.auto; from transformers import pipeline",
        "import fusionvl, transformers.processing_utils; fusionvl.FusionConfig",
        "from fusionvl import FusionProcessor",
        "from fusionvl import FusionEngine",
        "from fusionvl.processing import FusionProcessor; import fusionvl.auto",
    ],
)
def test_registered_in_every_order(first):
    finished = run(f"{first}\n{CHECK}")
    assert finished.returncode == 0, finished.stderr


def test_the_package_alone_imports_nothing_heavy():
    finished = run("import sys, fusionvl\nprint([name for name in ('torch', 'transformers') if name in sys.modules])")
    assert finished.stdout.strip() == "[]", finished.stderr
