"""What vLLM must do for a FUSION to be answered exactly, enforced when a model is loaded.

A latent token reads the end of its question, which comes later in the prompt: so a prompt is read in one step, and no
part of one is worth keeping for another question. Knows vLLM's configuration; knows no model and no request.
"""

import logging
from typing import TYPE_CHECKING

from vllm.config import CUDAGraphMode, ModelConfig
from vllm.model_executor.models.config import VerifyAndUpdateConfig

from fusionvl.vllm import MODE

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_LOG = logging.getLogger("vllm.fusionvl")

DEFAULT_MAX_MODEL_LEN = 8192  # unless a user sets another
DECODERS = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""Decoders whose layers in vLLM take (positions, hidden states, residual), with nothing between them; by our name."""


class WholePrompts(ModelConfig):
    """A model's configuration that says no to reading prompts in parts.

    vLLM asks these two before it fills in what a user left open: so a user's own wish can be told from a default.
    """

    @property
    def is_chunked_prefill_supported(self) -> bool:
        """Latent tokens and the end of their question must be in one step."""
        return False

    @property
    def is_prefix_caching_supported(self) -> bool:
        """What a latent token leaves in the cache depends on the question behind it."""
        return False


class FusionSettings(VerifyAndUpdateConfig):
    """vLLM calls these two when it has read a FUSION's configuration."""

    @staticmethod
    def verify_and_update_model_config(model_config: ModelConfig) -> None:
        """Choose our renderer, and a context that a prompt can be read from in one step.

        Raises:
            ValueError: When vLLM has no such decoder, or was asked for a tokenizer of another kind.
        """
        decoder = model_config.hf_config.text_config.model_type
        if decoder not in DECODERS:
            raise ValueError(
                f"FUSION runs in vLLM with the decoders {', '.join(sorted(DECODERS))}, not with {decoder!r}: "
                f"use `fusionvl serve`"
            )
        if model_config.tokenizer_mode not in ("auto", "hf", MODE):
            raise ValueError(f"FUSION has a tokenizer mode of its own: leave out {model_config.tokenizer_mode!r}")
        if model_config.tokenizer != model_config.model:
            raise ValueError("FUSION's tokenizer is the one in its folder: leave out --tokenizer")
        model_config.tokenizer_mode = MODE
        model_config.__class__ = WholePrompts
        if model_config.original_max_model_len is None:
            model_config.max_model_len = _default_context(model_config)

    @staticmethod
    def verify_and_update_config(vllm_config: "VllmConfig") -> None:
        """Refuse what cannot be exact, and set what must be.

        Raises:
            ValueError: With the option to leave out.
        """
        _refuse(vllm_config)
        scheduler, context = vllm_config.scheduler_config, vllm_config.model_config.max_model_len
        scheduler.disable_chunked_mm_input = True
        scheduler.long_prefill_token_threshold = 0
        # The item that a picture's tokens, latent tokens and question ends make up may be as long as the context.
        scheduler.verify_max_model_len(context)
        scheduler.max_num_encoder_input_tokens = scheduler.max_num_batched_tokens
        scheduler.encoder_cache_size = scheduler.max_num_batched_tokens
        if multimodal := vllm_config.model_config.multimodal_config:
            multimodal.mm_processor_cache_gb = 0  # keyed by picture alone; our features depend on the question
        compilation = vllm_config.compilation_config
        if compilation.cudagraph_mode == CUDAGraphMode.FULL:
            # A graph of a whole mixed batch would skip `forward`, and with it the interaction layers.
            compilation.cudagraph_mode = CUDAGraphMode.FULL_DECODE_ONLY


def _default_context(model_config: ModelConfig) -> int:
    """A context that memory can be reserved for, in which a prompt is computed as under transformers."""
    longest = model_config.max_model_len
    # Beyond this length vLLM turns every prompt, also a short one, by the factors that are meant for long ones.
    first_factors = (model_config.hf_config.text_config.rope_parameters or {}).get("original_max_position_embeddings")
    is_longrope = (model_config.hf_config.text_config.rope_parameters or {}).get("rope_type") == "longrope"
    context = min(longest, DEFAULT_MAX_MODEL_LEN, first_factors if is_longrope and first_factors else longest)
    if context < longest:
        _LOG.info(
            "A FUSION prompt is read in one step, for which memory is reserved: the context is %d of %d tokens, "
            "--max-model-len sets another",
            context,
            longest,
        )
    return context


def _refuse(vllm_config: "VllmConfig") -> None:
    parallel = vllm_config.parallel_config
    wanted = {
        "prompts read in parts (--enable-chunked-prefill)": vllm_config.scheduler_config.enable_chunked_prefill,
        "parts of other prompts (--enable-prefix-caching)": vllm_config.cache_config.enable_prefix_caching,
        "pipeline parallelism (--pipeline-parallel-size)": parallel.pipeline_parallel_size > 1,
        "context parallelism (--decode-context-parallel-size, --prefill-context-parallel-size)": (
            parallel.decode_context_parallel_size > 1 or parallel.prefill_context_parallel_size > 1
        ),
        "two batches in flight (--enable-dbo, --ubatch-size)": parallel.use_ubatching,
        "speculative decoding (--speculative-config)": vllm_config.speculative_config is not None,
        "moving keys and values between engines (--kv-transfer-config)": vllm_config.kv_transfer_config is not None,
        "encoders in engines of their own (--ec-transfer-config)": vllm_config.ec_transfer_config is not None,
        "prompts given as embeddings (--enable-prompt-embeds)": vllm_config.model_config.enable_prompt_embeds,
    }
    if refused := [what for what, is_wanted in wanted.items() if is_wanted]:
        raise ValueError(f"FUSION cannot be answered exactly with {'; '.join(refused)}: leave it out")
