"""Makes transformers' Auto classes know FUSION: `AutoModelForImageTextToText`, `AutoProcessor`, `pipeline`, ...

Importing transformers' model classes takes seconds, `import fusionvl` must not. So registration waits: it happens when
the Auto classes are first imported after `import fusionvl`, or at once when they already are. Knows which class goes
under which Auto class, nothing else.
"""

import functools
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

_AUTO_MODULES = "transformers.models.auto."
_WATCHED = ("transformers.", "fusionvl.")


@functools.cache
def register() -> None:
    """Register FUSION's classes, once per process."""
    from transformers import AutoImageProcessor, AutoProcessor

    from fusionvl.model import FusionConfig  # registers itself and the models
    from fusionvl.processing import FusionImageProcessorPil, FusionProcessor

    AutoImageProcessor.register(FusionConfig, image_processor_classes={"pil": FusionImageProcessorPil})
    AutoProcessor.register(FusionConfig, FusionProcessor)


def register_with_auto_classes() -> None:
    """Register now if the Auto classes are loaded, else as soon as one is."""
    if any(name.startswith(_AUTO_MODULES) for name in sys.modules):
        register()
    elif not any(isinstance(finder, _AfterAutoClasses) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterAutoClasses())


class _AfterAutoClasses(importlib.abc.MetaPathFinder):
    """Imports modules as usual and registers FUSION once an Auto class is there and no module is half done."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(_WATCHED):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            self._watch(spec.loader)
        return spec

    def _watch(self, loader: importlib.machinery.SourceFileLoader) -> None:
        run_module = loader.exec_module

        def run_and_register(module: ModuleType) -> None:
            run_module(module)
            if self in sys.meta_path and _auto_classes_are_complete(just_run=module.__name__):
                sys.meta_path.remove(self)
                register()

        loader.exec_module = run_and_register  # type: ignore[method-assign]


def _auto_classes_are_complete(just_run: str) -> bool:
    """Whether an Auto module is loaded and no module of transformers or ours is still half imported."""
    if not any(name.startswith(_AUTO_MODULES) for name in sys.modules):
        return False
    ours = [module for name, module in list(sys.modules.items()) if name.startswith(_WATCHED) and name != just_run]
    return not any(getattr(module.__spec__, "_initializing", False) for module in ours)
