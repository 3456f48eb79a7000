"""Tables of families with a mixture of experts, all of them fused in one module a layer."""

from dataclasses import replace

from babelscope.models.families_gated import LLAMA
from babelscope.models.family import Family

EXPERTS = replace(
    LLAMA,
    act="mlp.experts.act_fn",
    gate="mlp.experts",
    up="mlp.experts",
    down="mlp.experts",
    experts="mlp.experts",
    router="mlp.gate",
)
SHARES = replace(EXPERTS, renormalise="norm_topk_prob")
SHARED = replace(SHARES, shared="mlp.shared_expert", shared_gate="mlp.shared_expert_gate")

ROUTED: dict[str, Family] = {
    "mixtral": EXPERTS,
    "qwen3_moe": SHARES,
    "olmoe": SHARES,
    "qwen2_moe": SHARED,
    "qwen3_next": replace(SHARED, renormalise="norm_topk_prob", mixer="linear_attn"),
    "phimoe": replace(EXPERTS, router="mlp.router", routing="sparsemixer"),
    "gpt_oss": replace(EXPERTS, act="", router="mlp.router", interleaved=True, routing="chosen"),
}
"""By `config.model_type`."""
