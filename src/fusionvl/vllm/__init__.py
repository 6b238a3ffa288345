"""FUSION as a model of vLLM: `pip install 'fusionvl[vllm]'`, then `vllm serve MODEL` and `vllm.LLM(MODEL)`.

vLLM calls `register` in each of its processes (entry point `vllm.general_plugins`). Its parts, in the order in which a
request meets them: `renderer.py` makes prompts of conversations, `processor.py` hands them to the engine,
`vllm_model.py` encodes pictures and runs the decoder with the interaction layers between its layers.
`required_settings.py` holds vLLM to what that needs. Knows the rooms to its left and vLLM; knows no server and no
engine of ours.
"""

ARCHITECTURE = "FusionForConditionalGeneration"
MODE = "fusionvl"
"""vLLM's name for a way of tokenizing and rendering: ours."""


def register() -> None:
    """Tell vLLM about FUSION; may be called again. Our model is imported when a model of ours is loaded."""
    from vllm.model_executor.models import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP
    from vllm.renderers.registry import RENDERER_REGISTRY
    from vllm.tokenizers.registry import TokenizerRegistry

    import fusionvl.auto  # noqa: F401 - registers configurations with transformers, the released ones' among them
    from fusionvl.vllm.required_settings import FusionSettings

    if ARCHITECTURE in MODELS_CONFIG_MAP:
        return
    ModelRegistry.register_model(ARCHITECTURE, "fusionvl.vllm.vllm_model:FusionInVllm")
    MODELS_CONFIG_MAP[ARCHITECTURE] = FusionSettings
    TokenizerRegistry.register(MODE, "fusionvl.vllm.renderer", "FusionTokenizer")
    RENDERER_REGISTRY.register(MODE, "fusionvl.vllm.renderer", "FusionRenderer")
