"""The engine room: one object that answers questions about images. Command line, training, scoring and serving use it.

Knows models, processors and caches; knows no HTTP and no data sets. Names load when they are first used, so that a
command's options (`options.py`) cost no import of torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionvl.engine.engine import Answer, FusionEngine

__all__ = ["Answer", "FusionEngine"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from fusionvl.engine import engine

        return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
