"""What vLLM is held to, and what is refused with a sentence."""

import pytest
from vllm.config import CUDAGraphMode
from vllm.engine.arg_utils import EngineArgs

from fusionvl.vllm.required_settings import DEFAULT_MAX_MODEL_LEN


def configure(folder, **options):
    return EngineArgs(model=str(folder), dtype="float32", **options).create_engine_config()


def test_a_prompt_is_read_in_one_step(shipped):
    config = configure(shipped)
    scheduler, context = config.scheduler_config, config.model_config.max_model_len
    assert not scheduler.enable_chunked_prefill
    assert scheduler.disable_chunked_mm_input
    assert scheduler.max_num_batched_tokens >= context
    assert scheduler.max_num_encoder_input_tokens >= context
    assert scheduler.encoder_cache_size >= context
    assert not config.cache_config.enable_prefix_caching
    assert config.model_config.multimodal_config.mm_processor_cache_gb == 0


def test_a_long_context_is_asked_for(make_model):
    long = make_model(decoder={"max_position_embeddings": 131_072})
    assert configure(long).model_config.max_model_len == DEFAULT_MAX_MODEL_LEN
    config = configure(long, max_model_len=32_768)
    assert config.model_config.max_model_len == 32_768
    assert config.scheduler_config.max_num_batched_tokens >= 32_768


def test_by_default_positions_are_turned_as_in_transformers(make_model):
    """Beyond the first length of a LongRoPE, vLLM would turn short prompts, too, by the factors of long ones."""
    factors = {"short_factor": [1.0] * 16, "long_factor": [2.0] * 16}
    scaling = {"rope_type": "longrope", "rope_theta": 10000.0, **factors}
    lengths = {"max_position_embeddings": 4096, "original_max_position_embeddings": 256}
    folder = make_model("phi3", decoder={**lengths, "rope_parameters": scaling})
    assert configure(folder).model_config.max_model_len == 256
    assert configure(folder, max_model_len=1024).model_config.max_model_len == 1024


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"enable_chunked_prefill": True}, "--enable-chunked-prefill"),
        ({"enable_prefix_caching": True}, "--enable-prefix-caching"),
        ({"pipeline_parallel_size": 2}, "--pipeline-parallel-size"),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}, "--speculative-config"),
        ({"enable_prompt_embeds": True}, "--enable-prompt-embeds"),
        (
            {"kv_transfer_config": {"kv_connector": "ExampleConnector", "kv_role": "kv_both"}},
            "--kv-transfer-config",
        ),
    ],
)
def test_refused(shipped, options, named):
    with pytest.raises(ValueError, match="cannot be answered exactly") as refusal:
        configure(shipped, **options)
    assert named in str(refusal.value)


def test_another_tokenizer_is_refused(shipped, make_model):
    with pytest.raises(ValueError, match="leave out --tokenizer"):
        configure(shipped, tokenizer=str(make_model()))


def test_a_budget_below_the_context_is_refused(shipped):
    with pytest.raises(ValueError, match="max_num_batched_tokens"):
        configure(shipped, max_model_len=1024, max_num_batched_tokens=512)


def test_a_decoder_that_vllm_would_run_otherwise_is_refused(make_model):
    folder = make_model(decoder={"model_type": "gemma", "head_dim": 32})
    with pytest.raises(ValueError, match=r"not with 'gemma': use `fusionvl serve`"):
        configure(folder)


def test_a_graph_of_a_mixed_batch_would_skip_the_interaction_layers(shipped):
    config = configure(shipped, compilation_config={"cudagraph_mode": "FULL"})
    assert config.compilation_config.cudagraph_mode.mixed_mode() != CUDAGraphMode.FULL
