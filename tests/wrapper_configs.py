"""Small random multimodal wrappers of every kind that `open_model` reads."""

from typing import Any

import torch
from conftest import SMALL
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

SEES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
BLOCKS = {"depth": 1, "num_heads": 2, "patch_size": 14, "hidden_size": 16, "intermediate_size": 16}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
COHERE = {**SMALL, "model_type": "cohere2", "sliding_window": 16, "head_dim": 8, "logit_scale": 0.3}
CLIP, SIGLIP = ({**SEES, "model_type": name} for name in ("clip_vision_model", "siglip_vision_model"))
SETTINGS: dict[str, dict[str, Any]] = {
    "gemma3": {
        "text_config": {
            **SMALL,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 4,
            "final_logit_softcapping": 2.0,
        },
        "vision_config": SEES,
        "mm_tokens_per_image": 4,
    },
    "qwen2_vl": {
        "text_config": {**SMALL, "rope_parameters": ROPE},
        "vision_config": {"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 32, "patch_size": 14},
    },
    "qwen2_5_vl": {
        "text_config": {
            **SMALL,
            "rope_parameters": ROPE,
            "use_sliding_window": True,
            "sliding_window": 4,
            "max_window_layers": 1,
        },
        "vision_config": {**BLOCKS, "out_hidden_size": 32, "fullatt_block_indexes": [0]},
    },
    "qwen3_vl": {
        "text_config": {**SMALL, "head_dim": 8, "rope_parameters": ROPE},
        "vision_config": {
            **BLOCKS,
            "out_hidden_size": 32,
            "deepstack_visual_indexes": [0],
            "num_position_embeddings": 16,
        },
    },
    "mistral3": {
        "text_config": {**SMALL, "model_type": "mistral", "head_dim": 8},
        "vision_config": {**SEES, "model_type": "pixtral", "head_dim": 8},
    },
    "llava": {"text_config": {**SMALL, "model_type": "llama"}, "vision_config": CLIP},
    "llava_next": {"text_config": {**SMALL, "model_type": "llama"}, "vision_config": CLIP},
    "llava_onevision": {"text_config": {**SMALL, "model_type": "qwen2"}, "vision_config": SIGLIP},
    "aya_vision": {"text_config": COHERE, "vision_config": SIGLIP},
    "cohere2_vision": {"text_config": COHERE, "vision_config": SIGLIP},
    "internvl": {
        "text_config": {**SMALL, "model_type": "qwen2"},
        "vision_config": {**SEES, "model_type": "internvl_vision", "image_size": [28, 28], "patch_size": [14, 14]},
    },
}


def wrapper(kind: str, *, tied: bool = True, **changes: Any):
    """A random wrapper whose norms and biases are random too."""
    settings = {**SETTINGS[kind], **changes}
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(
            CONFIG_MAPPING[kind](**settings, tie_word_embeddings=tied), dtype=torch.float32
        )
        for parameter in model.parameters():
            parameter.mul_(4) if parameter.ndim > 1 else parameter.add_(torch.randn(parameter.shape) / 4)
    model.tie_weights()
    return model.eval()
