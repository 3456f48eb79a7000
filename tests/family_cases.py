"""Every family, and forms of it that differ inside, saved to disk; what each site must hold, worked out by hand."""

import atexit
import copy
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import get_args

import torch
from conftest import CONFIGS, tiny_tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel

from babelscope import Site, layout_of, open_model
from babelscope.models import Layout
from babelscope.sites import At

FORMS = {
    **{name: (name, {}) for name in CONFIGS},
    "llama with biases": ("llama", {"mlp_bias": True, "attention_bias": True}),
    "gpt_neox in sequence": ("gpt_neox", {"use_parallel_residual": False}),
    "opt with norms after": ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 16}),
    "bloom with normed residual": ("bloom", {"apply_residual_connection_post_layernorm": True}),
    "qwen3_moe with shares": ("qwen3_moe", {"norm_topk_prob": True}),
}
"""Form → (family, what is set otherwise than in CONFIGS)."""
MOE = ("mixtral", "qwen3_moe", "olmoe")
DTYPES = ("float32", "bfloat16")
SITES = get_args(At)
IDS = torch.randint(3, 300, (3, 7), generator=torch.Generator().manual_seed(1))
MASK = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1], [1] * 7])


@cache
def checkpoint(form: str) -> Path:
    """A folder with a tiny random model of this form, its biases and norms random too, and a tokenizer."""
    family, changes = FORMS[form]
    config = copy.deepcopy(CONFIGS[family])
    config.update(changes)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            parameter.mul_(4) if parameter.ndim > 1 else parameter.add_(torch.randn(parameter.shape) / 4)
    folder = Path(mkdtemp(prefix="babelscope-family-"))
    atexit.register(rmtree, folder)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@cache
def opened(form: str, dtype: str = "float32") -> Layout:
    """The checkpoint as a user opens it. Shared: leave it as it was."""
    model, _ = open_model(str(checkpoint(form)), device="cpu", dtype=dtype)
    return layout_of(model)


@cache
@torch.no_grad()
def plain_logits(form: str, dtype: str, padded: bool) -> torch.Tensor:
    """Hugging Face's own, from a model that babelscope never touched."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(checkpoint(form), dtype=getattr(torch, dtype))
    return model.eval()(input_ids=IDS, attention_mask=MASK if padded else None).logits


def site(at: At, layer: int = 1) -> Site:
    return Site(None if at in ("embed", "logits") else layer, at)


def lacking(form: str) -> dict[str, str]:
    """Places that a form does not have → why, in a word of the error."""
    lacks = {} if FORMS[form][0] in MOE else {"router": "dense"}
    return {**lacks, "resid_mid": "side by side"} if form == "gpt_neox" else lacks


def sites_of(form: str) -> list[At]:
    return [at for at in SITES if at not in lacking(form)]


@torch.no_grad()
def read_all(layout: Layout, ids: torch.Tensor = IDS, layer: int = 1) -> dict[str, torch.Tensor]:
    """Every site of a layer in one pass; `routes`: the experts chosen."""
    seen: dict[str, torch.Tensor] = {}

    def keep(at: str):
        def see(value, sign, routes):
            seen[at] = value.clone()
            if routes is not None:
                seen["routes"] = routes

        return see

    with ExitStack() as stack:
        for at in SITES:
            if at == "router" and not layout.n_experts:
                continue
            if at == "resid_mid" and not (layout.family.mid or layout.family.stream):
                continue
            stack.enter_context(layout.watch(site(at, layer), keep(at)))
        layout.model(input_ids=ids, use_cache=False)
    return seen


def norm_before_mlp(form: str) -> str:
    family = FORMS[form][0]
    names = {"gemma2": "pre_feedforward_layernorm", "gemma3_text": "pre_feedforward_layernorm", "gpt2": "ln_2"}
    return {**names, "opt": "final_layer_norm"}.get(family, "post_attention_layernorm")


FINAL_NORM = {"gpt2": "ln_f", "bloom": "ln_f", "gpt_neox": "final_layer_norm", "opt": "final_layer_norm"}


@cache
@torch.no_grad()
def by_hand(form: str) -> dict[str, torch.Tensor]:
    """What each site of layer 1 must hold, each worked out from the sites before it and the weights."""
    layout = opened(form)
    got, layer = read_all(layout), layout.layer(1)
    family = FORMS[form][0]
    rows, biases, act = layout.neuron_rows(1), layout.neuron_biases(1), layout.act(1)
    gemma, after = family.startswith("gemma"), form == "opt with norms after"
    normed, parallel = form == "bloom with normed residual", form == "gpt_neox"
    norm = layer.get_submodule(norm_before_mlp(form))
    heads = layer.get_submodule(layout.family.heads_out)
    added = layer.post_attention_layernorm(got["attn_out"]) if gemma else got["attn_out"]
    start = layer.input_layernorm(got["resid_in"]) if normed else got["resid_in"]
    middle = layer.self_attn_layer_norm(start + added) if after else start + added
    stream = got["resid_in"] if parallel else got["resid_mid"]
    x = stream if after else norm(stream)
    want = {
        # Gemma's embedding scales by the root of the width.
        "embed": layout.model.get_input_embeddings().weight[IDS] * (layout.d_hidden**0.5 if gemma else 1),
        "resid_in": read_all(layout, layer=0)["resid_out"],
        "attn_heads": heads_by_hand(layout),
        "attn_out": heads(got["attn_heads"].flatten(2)),
        "resid_mid": middle,
        **mlp_by_hand(layout, x, rows, biases, act, got),
    }
    gain = layer.post_feedforward_layernorm(got["mlp_out"]) if gemma else got["mlp_out"]
    base = x if normed else start + added if parallel else got["resid_mid"]
    want["resid_out"] = layer.final_layer_norm(base + gain) if after else base + gain
    want["logits"] = head_by_hand(form, layout)
    return {at: want[at] for at in sites_of(form)}


def mlp_by_hand(layout: Layout, x, rows, biases, act, got) -> dict[str, torch.Tensor]:
    if not layout.n_experts:
        up = x @ rows["up"][0].T + (biases["up"][0] if "up" in biases else 0)
        before = x @ rows["gate"][0].T + (biases["gate"][0] if "gate" in biases else 0) if layout.gated else up
        inner = got["mlp_gate"] * up if layout.gated else got["mlp_gate"]
        bias = layout.layer(1).get_submodule(layout.family.down).bias
        out = got["mlp_inner"] @ rows["down"][0] + (0 if bias is None else bias)
        return {"mlp_gate": act(before), "mlp_inner": inner, "mlp_out": out}
    config, routes = layout.model.config, got["routes"]
    shares = torch.softmax(got["router"].float(), dim=-1).gather(-1, routes)
    if getattr(config, "norm_topk_prob", True):
        shares = shares / shares.sum(-1, keepdim=True)
    gate, up = (torch.einsum("btd,btknd->btkn", x, rows[name][routes]) for name in ("gate", "up"))
    out = torch.einsum("btk,btkn,btknd->btd", shares, got["mlp_inner"], rows["down"][routes])
    router = x @ layout.layer(1).mlp.gate.weight.T
    assert torch.equal(routes.sort(-1).values, router.topk(routes.shape[-1]).indices.sort(-1).values)
    return {"router": router, "mlp_gate": act(gate), "mlp_inner": got["mlp_gate"] * up, "mlp_out": out}


def heads_by_hand(layout: Layout) -> torch.Tensor:
    """Patterns of the eager implementation times the values, [batch, token, head, d_head]."""
    model = layout.model
    implementation, values = model.config._attn_implementation, []
    model.set_attn_implementation("eager")
    attention = layout.layer(1).get_submodule(layout.family.heads_out.rpartition(".")[0])
    name = {"gpt2": "c_attn", "bloom": "query_key_value", "gpt_neox": "query_key_value", "phi3": "qkv_proj"}
    projection = attention.get_submodule(name.get(model.config.model_type, "v_proj"))
    handle = projection.register_forward_hook(lambda _, __, out: values.append(out))
    pattern = model(input_ids=IDS, output_attentions=True, use_cache=False).attentions[1]
    handle.remove()
    model.set_attn_implementation(implementation)
    return torch.einsum("bhts,bshd->bthd", pattern, split_values(layout, values[0]))


def split_values(layout: Layout, projected: torch.Tensor) -> torch.Tensor:
    """Value vectors of every head from what the projection gave, repeated for grouped queries."""
    heads, kind = layout.n_heads, layout.model.config.model_type
    if kind in ("bloom", "gpt_neox"):
        return projected.unflatten(-1, (heads, 3, -1))[..., 2, :]
    if kind == "gpt2":
        return projected.chunk(3, dim=-1)[2].unflatten(-1, (heads, -1))
    groups = layout.model.config.num_key_value_heads if kind != "opt" else heads
    width = layout.width("attn_heads") // heads
    return projected[..., -groups * width :].unflatten(-1, (groups, width)).repeat_interleave(heads // groups, dim=2)


def head_by_hand(form: str, layout: Layout) -> torch.Tensor:
    """Final norm and head on the last layer's output; the site stands before a soft cap."""
    body, last = layout.body, read_all(layout, layer=2)["resid_out"]
    if form == "opt with norms after":
        return layout.model.get_output_embeddings()(body.project_out(last))
    return layout.model.get_output_embeddings()(body.get_submodule(FINAL_NORM.get(FORMS[form][0], "norm"))(last))
