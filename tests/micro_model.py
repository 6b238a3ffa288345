"""The smallest model that has every part, as the `model` of a recipe."""

MICRO_MODEL = {
    "vocab_size": 300,
    "vision": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    },
    "decoder": {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    },
    "fusion": {"num_interaction_layers": 1, "interaction_heads": 2},
}
RATES = {"vision_tower": 1e-3, "mapping": 1e-3, "interaction_layers": 1e-3, "decoder": 1e-3}
