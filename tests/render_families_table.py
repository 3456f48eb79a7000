"""Write docs/families.md from what the tests measure: `python tests/render_families_table.py [--check]`."""

import sys
from contextlib import ExitStack
from pathlib import Path

import torch
from conftest import CONFIGS
from family_cases import (
    DTYPES,
    FORMS,
    IDS,
    MOE,
    SITES,
    by_hand,
    lacking,
    opened,
    plain_logits,
    read_all,
    site,
    sites_of,
)
from family_configs import NEW, family_model

from babelscope import check_family, layout_of, read_site
from babelscope.errors import SiteError
from babelscope.hook_names import PLAIN_MLP
from babelscope.models import FAMILIES, Layout
from babelscope.models.wrappers import WRAPPERS
from babelscope.sites import NEURON_SITES

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
HEAD = """# Model families and their sites

This page is written by `tests/render_families_table.py` from tiny random checkpoints (3 layers, width 32), saved to
disk and opened with `open_model`; a test fails if it no longer matches.

`r`: what is read there equals a hand computation from the sites before it and the weights, within 1e-4 in float32.
`w`: what is written there is what later readers see, and it moves the logits. The last columns give the largest
difference from Hugging Face's own logits while every site of every layer is looked at, and written back unchanged.

"""
SUMS = """
The families below are proven by `check_family`, which works each site out from the sites before it, the weights and the
table's norms and factors (`r`: its identity holds in every layer; for `attn_heads`, and LFM2's `mlp_inner`, that of
what the projection after it gives; `w` as above, in the middle layer).

"""
NOTES = """
Where a cell has a letter in brackets, the place does not exist:

- (a) a dense model has no router;
- (b) attention and MLP run side by side: both read `resid_in`, nothing stands between them;
- (c) the activation function is no module, so that nothing shows its output: `mlp_inner` is the same times the
  up-projection, and the family's neurons cannot be trained one by one.

What the places are, where families differ:

- `attn_out` and `mlp_out` are what attention and MLP give, before a norm that follows them (Gemma 2 and 3, OLMo 2 and
  3, EXAONE 4, GLM 4), before Granite's `residual_multiplier`, and before the residual is added, which BLOOM does inside
  both and MPT inside the MLP. So resid_mid = resid_in + norm(attn_out), or resid_in + residual_multiplier · attn_out.
- `embed` is the embedding module's output: scaled in Gemma and XGLM, before `embedding_multiplier` in Granite, before
  the norm in BLOOM, before `project_in` and positions in OPT, before positions in GPT-2, GPT-Neo and XGLM.
- `logits` is what the head gives: before the soft cap of Gemma 2 and VaultGemma, Cohere's `logit_scale` and Granite's
  `logits_scaling`. `Layout.logits`, losses and lenses apply them.
- `resid_mid` is the sum of stream and attention, where it exists; after the norm that follows the sum in an OPT with
  `do_layer_norm_before=False`. A write there changes what the MLP reads and what its output is added to. In most
  families the second is done by adding the change to the block's output, so it is exact to rounding.
- Layers without attention (Qwen3-Next, Qwen3.5, LFM2) have neither `attn_heads` nor `attn_out`, and say so by layer;
  what they have in its place is added to `resid_mid` alike. All other sites are there.
- `attn_heads` is what the output projection reads: after the gate of Qwen3-Next and Qwen3.5, and after BitNet's norm.
- `mlp_inner` is what the down projection reads: after the norm that BitNet has there. Its neurons share that norm, so
  they cannot be trained one by one.
- `router` holds the scores before they choose; a write there chooses and weighs the experts anew, as the family does:
  by a softmax over all, over the chosen (gpt-oss), or by Phi-MoE's own rule.
- Neurons of a mixture of experts are `[batch, token, top_k, neuron]`: those of the experts that a router chooses. The
  shared expert of Qwen2-MoE and Qwen3-Next, which every token goes through, is part of `mlp_out`; its neurons are not
  counted. While neuron sites are open the experts run in transformers' grouped form, its default; another choice
  (`experts_implementation`) comes back when they close.
- Of a model whose first layers have dense MLPs and whose later ones have experts (`mlp_only_layers`,
  `decoder_sparse_step`; made by `babelscope.adaptation.late_experts`), the dense layers have neither `router` nor
  neuron sites, and say so; all other sites are there.
- gpt-oss stores gate and up in alternating columns, with biases, and multiplies (up + 1) with the clamped gate's part:
  `mlp_gate` is that part, `mlp_inner` the product, and `neuron_rows` gives views in which a neuron's rows are together.
- Where an MLP has no gate, `mlp_gate` equals `mlp_inner`.

Families, by `config.model_type`: {families}.

## Multimodal wrappers

`bs.open_model` opens the text model inside a wrapper's folder, without the rest of its weights, as an ordinary causal
model, for {wrappers}. `bs.text_part(model)` gives that of a wrapper in memory; it shares the wrapper's weights, and
compares the logits of both on a few tokens. On text the two give the same logits bit for bit, padded or not, and the
same answers. Qwen-VL's text part is opened as the Qwen model that it is on text alone. The heads of Aya Vision and
Cohere Vision do not apply `logit_scale`, so the text part opened from them does not either.

## Another family

`bs.add_family` gives a model type a table: the fields of `babelscope.models.Family` by likeness to one that is there,
and by what differs:

    bs.add_family("my_type", "llama", mid="pre_mlp_norm", mlp_norm="post_mlp_norm")
    model, tokenizer = bs.open_model("…")

The first time a model of that type is looked at, `bs.check_family(model)` tries the table on it: every identity above
in every layer, with logits equal bit for bit while every site is looked at. A table that does not fit is refused with
the identity that fails, the layer, and by how much. A refusal of an unknown type names the table whose modules are all
there, if one is. Models with per-layer embeddings (Gemma 3n), or with experts that are not fused, have no table
that fits.
"""
NAMES = """
## The same places elsewhere

Layer 5, by module (`output`, or `input` where the site is what the module reads), as `Layout.place` and
`adapters.nnsight` have it, and by hook of TransformerLens, as `Site.transformer_lens` has it. A dash: no module, or no
hook, holds it. `Site.from_hook_name` reads TransformerLens's names back, and whole names of modules
(`model.layers.5.mlp`) for the place of their output.

"""
WHY = {"dense": "(a)", "side by side": "(b)"}


def can_be_read(form: str) -> set[str]:
    got, want = read_all(opened(form)), by_hand(form)
    return {at for at, value in want.items() if torch.allclose(got[at], value, rtol=1e-4, atol=1e-4)}


def can_be_written(form: str, at: str) -> bool:
    layout, seen = opened(form), []

    def write(value: torch.Tensor) -> torch.Tensor:
        return value * 0 + 1

    with (
        layout.edit(site(at), write),
        layout.watch(site(at), lambda value, *_: seen.append(value)),
        torch.no_grad(),
    ):
        moved = layout.model(input_ids=IDS).logits
    return bool((seen[0] == 1).all()) and not torch.allclose(moved, plain_logits(form, "float32", False), atol=1e-2)


def logit_difference(form: str, dtype: str) -> float:
    layout = opened(form, dtype)
    with ExitStack() as stack, torch.no_grad():
        for at in sites_of(form):
            for layer in range(1 if at in ("embed", "logits") else layout.n_layers):
                stack.enter_context(layout.edit(site(at, layer), torch.clone))
        found = layout.model(input_ids=IDS).logits
    return float((found - plain_logits(form, dtype, False)).abs().max())


def row(form: str) -> str:
    readable, lacks = can_be_read(form), lacking(form)
    cells = []
    for at in SITES:
        if at in lacks:
            cells.append(WHY[lacks[at]])
        else:
            cells.append(("r" if at in readable else "") + ("w" if can_be_written(form, at) else "") or "no")
    return " | ".join([form, *cells, *(f"{logit_difference(form, dtype):g}" for dtype in DTYPES)])


def refused(layout: Layout, at: str) -> str:
    """The letter of why a new form has no such place in its middle layer; empty where it has."""
    try:
        layout.check(site(at))
    except SiteError as err:
        return next(letter for word, letter in {**WHY, "is no module": "(c)"}.items() if word in str(err))
    return ""


def new_row(form: str) -> str:
    """A form of a family that only `check_family` proves."""
    layout, cells = layout_of(family_model(form)), []
    proven = {identity.name.split(" ")[0] for identity in check_family(layout.model) if identity.holds}
    plain = layout.model(input_ids=IDS, use_cache=False).logits
    for at in SITES:
        letter = refused(layout, at)
        if letter:
            cells.append(letter)
            continue
        value = read_site(layout.model, IDS, site(at))
        expected = layout.model.get_input_embeddings()(IDS)
        shown_by = {"attn_heads": "attn_out", "mlp_inner": "mlp_inner" if layout.family.act else "mlp_out"}.get(at, at)
        readable = torch.equal(value, expected) if at == "embed" else shown_by in proven
        with layout.edit(site(at), lambda value: value * 0 + 1):
            seen = read_site(layout.model, IDS, site(at))
            moved = layout.model(input_ids=IDS, use_cache=False).logits
        written = bool((seen == 1).all()) and not torch.allclose(moved, plain, atol=1e-3)
        cells.append(("r" if readable else "") + ("w" if written else "") or "no")
    differences = [changed_by_looking(layout_of(family_model(form, getattr(torch, dtype)))) for dtype in DTYPES]
    return " | ".join([form, *cells, *(f"{difference:g}" for difference in differences)])


def changed_by_looking(layout: Layout) -> float:
    """Largest difference of the logits while every site of every layer is written back unchanged."""
    plain = layout.model(input_ids=IDS, use_cache=False).logits
    with ExitStack() as stack:
        for at in SITES:
            for layer in range(1 if at in ("embed", "logits") else layout.n_layers):
                try:
                    layout.check(site(at, layer))
                except SiteError:
                    continue
                stack.enter_context(layout.edit(site(at, layer), torch.clone))
        looked = layout.model(input_ids=IDS, use_cache=False).logits
    return float((looked - plain).abs().max())


def module_name(form: str, at: str) -> str:
    place = opened(form).place
    if FORMS[form][0] in MOE and at in NEURON_SITES:
        return "–"
    path, side = place(site(at, 2))
    short = path.removeprefix(f"{opened(form).family.layers}.2").lstrip(".")
    return f"`{short}` {side}" if short else f"the block's {side}"


def hook_name(form: str, at: str) -> str:
    family = FORMS[form][0]
    if at in (("mlp_gate", "mlp_inner") if family in MOE else () if family in PLAIN_MLP else ("mlp_gate",)):
        return "–"
    return f"`{site(at, 5).transformer_lens(family)}`"


def names() -> str:
    """One table a kind of name, families that share all names in one row."""
    tables = []
    for title, name in (("module", module_name), ("TransformerLens", hook_name)):
        rows: dict[str, list[str]] = {}
        for form in CONFIGS:
            cells = ["–" if at in lacking(form) else name(form, at) for at in SITES]
            rows.setdefault(" | ".join(cells), []).append(form)
        lines = [" | ".join([title, *(f"`{at}`" for at in SITES)]), *(f"{', '.join(v)} | {k}" for k, v in rows.items())]
        rule = "|".join(["---"] * (len(SITES) + 1))
        tables.append("\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])]))
    return NAMES + "\n\n".join(tables) + "\n"


def table(rows: list[str]) -> str:
    titles = ["family", *(f"`{at}`" for at in SITES), *(f"logits, {dtype}" for dtype in DTYPES)]
    lines = [" | ".join(titles), "|".join(["---"] * len(titles)), *rows]
    return "\n".join(f"| {line} |" if "---" not in line else f"|{line}|" for line in lines) + "\n"


def page() -> str:
    by_sums = torch.no_grad()(lambda: table([new_row(form) for form in NEW]))()
    known = ", ".join(f"`{name}`" for name in sorted(FAMILIES))
    wrappers = ", ".join(f"`{name}`" for name in WRAPPERS)
    notes = NOTES.format(families=known, wrappers=wrappers)
    return HEAD + table([row(form) for form in FORMS]) + SUMS + by_sums + notes + names()


def main() -> int:
    text = page()
    if "--check" in sys.argv:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
