"""Which model a command line names: an endpoint, `URL#NAME`, or one on this machine, by name or folder."""

from collections.abc import Callable
from importlib import resources

from fusionvl.synth.filters.asking import Model
from fusionvl.synth.filters.endpoint import Endpoint
from fusionvl.synth.filters.local_models import local_judge, local_text


def text_model(given: str) -> Model:
    """The model that `closed-book` and `blind` ask.

    Raises:
        ValueError: If an endpoint is given without a model's name, or there is no such local model.
    """
    return _model(given, local_text)


def judge_model(given: str) -> Model:
    """The model that `judge` asks; `nano` is the shipped one.

    Raises:
        ValueError: If an endpoint is given without a model's name, or there is no such local model.
    """
    name = str(resources.files("fusionvl") / "assets" / "nano") if given == "nano" else given
    return _model(name, local_judge)


def _model(given: str, load: Callable[[str], Model]) -> Model:
    if given.startswith(("http://", "https://")):
        url, _, name = given.partition("#")
        if not name:
            raise ValueError(f"{given}: name the endpoint's model too, as {given}#MODEL")
        return Endpoint(url, name)
    try:
        return load(given)
    except OSError as error:
        raise ValueError(f"{given}: no model can be loaded from there ({error})") from error
