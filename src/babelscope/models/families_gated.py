"""Tables of families whose MLP has a gate; most differ from Llama's in a few names."""

from dataclasses import replace

from babelscope.models.family import Family

LLAMA = Family(
    body="model",
    layers="model.layers",
    embed="model.embed_tokens",
    norm="model.norm",
    attn_out="self_attn",
    heads_out="self_attn.o_proj",
    mid="post_attention_layernorm",
    mlp="mlp",
    mlp_out="mlp",
    act="mlp.act_fn",
    gate="mlp.gate_proj",
    up="mlp.up_proj",
    down="mlp.down_proj",
)
SANDWICH = replace(
    LLAMA,
    mid="pre_feedforward_layernorm",
    attn_norm="post_attention_layernorm",
    mlp_norm="post_feedforward_layernorm",
)
"""Norms before and after attention and MLP."""
AFTER = replace(SANDWICH, mid="mlp")
"""Norms only after attention and MLP, which read the stream itself."""
FUSED = replace(LLAMA, act="mlp.activation_fn", gate="mlp.gate_up_proj", up="mlp.gate_up_proj")
COHERE = replace(LLAMA, mid="", logits_times="logit_scale")
CAP = "final_logit_softcapping"

GATED: dict[str, Family] = {
    **dict.fromkeys(
        (
            "llama",
            "mistral",
            "ministral",
            "ministral3",
            "qwen2",
            "qwen3",
            "gemma",
            "smollm3",
            "seed_oss",
            "hunyuan_v1_dense",
            "ernie4_5",
            "helium",
            "olmo",
            "stablelm",
        ),
        LLAMA,
    ),
    "gemma2": replace(SANDWICH, softcap=CAP),
    "gemma3_text": replace(SANDWICH, softcap=CAP),
    "vaultgemma": replace(LLAMA, mid="pre_feedforward_layernorm", softcap=CAP),
    "phi3": FUSED,
    "glm": FUSED,
    "glm4": replace(FUSED, attn_norm="post_self_attn_layernorm", mlp_norm="post_mlp_layernorm"),
    "olmo2": AFTER,
    "olmo3": AFTER,
    "exaone4": AFTER,
    "cohere": COHERE,
    "cohere2": COHERE,
    "granite": replace(LLAMA, scale="residual_multiplier", logits_over="logits_scaling"),
    "bitnet": replace(LLAMA, inner_norm="mlp.ffn_sub_norm"),
    "qwen3_5_text": replace(LLAMA, mixer="linear_attn"),
    "lfm2": replace(
        LLAMA,
        norm="model.embedding_norm",
        heads_out="self_attn.out_proj",
        mid="ffn_norm",
        mlp="feed_forward",
        mlp_out="feed_forward",
        act="",
        gate="feed_forward.w1",
        up="feed_forward.w3",
        down="feed_forward.w2",
        mixer="conv",
    ),
}
"""By `config.model_type`."""
