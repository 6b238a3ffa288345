"""`import fusionvl` makes transformers' Auto classes know FUSION, whatever is imported first."""

import subprocess
import sys

import pytest

CHECK = """
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
import fusionvl
assert fusionvl.FusionConfig in PROCESSOR_MAPPING
assert fusionvl.FusionConfig in AutoModelForImageTextToText._model_mapping
assert AutoConfig.for_model("fusionvl").model_type == "fusionvl"
"""


@pytest.mark.parametrize(
    "first",
    [
        "import fusionvl",
        "import transformers, fusionvl",
        "from transformers import AutoProcessor; import fusionvl",
        "import fusionvl; from transformers import pipeline",
        "import fusionvl; import transformers.processing_utils",
        "from fusionvl.model import FusionModel",
        "from fusionvl.processing import FusionProcessor",
        "from fusionvl import FusionEngine",
    ],
)
def test_registered_in_every_order(first):
    finished = subprocess.run([sys.executable, "-c", f"{first}\n{CHECK}"], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
