"""The engine room: one object that answers questions about images. Command line, training, scoring and serving use it.

Knows models, processors and caches; knows no HTTP and no data sets.
"""

from fusionvl.engine.engine import Answer, FusionEngine

__all__ = ["Answer", "FusionEngine"]
