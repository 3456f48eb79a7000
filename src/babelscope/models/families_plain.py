"""Tables of families whose MLP has no gate."""

from dataclasses import replace

from babelscope.models.families_gated import LLAMA
from babelscope.models.family import Family

NO_GATE = replace(LLAMA, gate="")
PHI = replace(
    LLAMA,
    norm="model.final_layernorm",
    heads_out="self_attn.dense",
    mid="",
    act="mlp.activation_fn",
    gate="",
    up="mlp.fc1",
    down="mlp.fc2",
)
GPT2 = Family(
    body="transformer",
    layers="transformer.h",
    embed="transformer.wte",
    norm="transformer.ln_f",
    attn_out="attn",
    heads_out="attn.c_proj",
    mid="ln_2",
    mlp="mlp",
    mlp_out="mlp",
    act="mlp.act",
    gate="",
    up="mlp.c_fc",
    down="mlp.c_proj",
    learned=True,
)
GPTJ = replace(GPT2, heads_out="attn.out_proj", mid="", up="mlp.fc_in", down="mlp.fc_out", learned=False)
NEOX = replace(
    GPT2,
    body="gpt_neox",
    layers="gpt_neox.layers",
    embed="gpt_neox.embed_in",
    norm="gpt_neox.final_layer_norm",
    attn_out="attention",
    heads_out="attention.dense",
    mid="post_attention_layernorm",
    up="mlp.dense_h_to_4h",
    down="mlp.dense_4h_to_h",
    learned=False,
)
BLOOM = replace(
    NEOX,
    body="transformer",
    layers="transformer.h",
    embed="transformer.word_embeddings",
    norm="transformer.ln_f",
    # The attention and the MLP return the stream: each adds the residual itself.
    attn_out="self_attention.dense",
    heads_out="self_attention.dense",
    mid="",
    mlp_out="mlp.dense_4h_to_h",
    act="mlp.gelu_impl",
    stream="self_attention",
)
FALCON = replace(
    BLOOM,
    attn_out="self_attention",
    mid="post_attention_layernorm",
    mlp_out="mlp",
    act="mlp.act",
    stream="",
    in_place=True,
)
OPT = Family(
    body="model.decoder",
    layers="model.decoder.layers",
    embed="model.decoder.embed_tokens",
    norm="model.decoder.final_layer_norm",
    attn_out="self_attn",
    heads_out="self_attn.out_proj",
    mid="final_layer_norm",
    mlp="",
    mlp_out="fc2",
    act="activation_fn",
    gate="",
    up="fc1",
    down="fc2",
    flat=True,
    learned=True,
)

PLAIN: dict[str, Family] = {
    "gpt2": GPT2,
    "gpt_bigcode": GPT2,
    "gpt_neo": replace(GPT2, heads_out="attn.attention.out_proj"),
    "gptj": GPTJ,
    "codegen": GPTJ,
    "gpt_neox": NEOX,
    "bloom": BLOOM,
    "falcon": FALCON,
    "mpt": replace(
        GPT2,
        layers="transformer.blocks",
        norm="transformer.norm_f",
        heads_out="attn.out_proj",
        mid="norm_2",
        mlp="ffn",
        # The MLP adds the residual itself.
        mlp_out="ffn.down_proj",
        act="ffn.act",
        up="ffn.up_proj",
        down="ffn.down_proj",
        learned=False,
    ),
    "opt": OPT,
    "xglm": replace(
        OPT,
        body="model",
        layers="model.layers",
        embed="model.embed_tokens",
        norm="model.layer_norm",
        flat=False,
        learned=False,
    ),
    "phi": PHI,
    "starcoder2": replace(NO_GATE, act="mlp.act", up="mlp.c_fc", down="mlp.c_proj"),
    **dict.fromkeys(("nemotron", "arcee", "jais2"), NO_GATE),
    "apertus": replace(NO_GATE, mid="feedforward_layernorm"),
}
"""By `config.model_type`."""
