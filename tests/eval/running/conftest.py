"""Stand-ins that started processes import too, and the server that speaks the OpenAI protocol."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
