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

from babelscope.models import FAMILIES
from babelscope.sites import NEURON_SITES, PLAIN_MLP

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
HEAD = """# Model families and their sites

This page is written by `tests/render_families_table.py` from tiny random checkpoints (3 layers, width 32), saved to
disk and opened with `open_model`; a test fails if it no longer matches.

`r`: what is read there equals a hand computation from the sites before it and the weights, within 1e-4 in float32.
`w`: what is written there is what later readers see, and it moves the logits. The last columns give the largest
difference from Hugging Face's own logits while every site of every layer is looked at, and written back unchanged.

"""
NOTES = """
Where a cell has a letter in brackets, the place does not exist:

- (a) a dense model has no router;
- (b) with `use_parallel_residual`, attention and MLP of GPT-NeoX both read `resid_in`; nothing stands between them.

What the places are, where families differ:

- `attn_out` and `mlp_out` are what attention and MLP give, before Gemma's norms after them and before the residual is
  added, which BLOOM does inside both.
- `embed` is the embedding module's output: scaled in Gemma, before the norm in BLOOM, before `project_in` and positions
  in OPT.
- `logits` stands before Gemma 2's soft cap.
- `resid_mid` is the sum of stream and attention, where it exists; after the norm that follows the sum in an OPT with
  `do_layer_norm_before=False`. A write there changes what the MLP reads and what its output is added to. In most
  families the second is done by adding the change to the block's output, so it is exact to rounding.
- `router` holds the scores before the softmax; a write there chooses and weighs the experts anew.
- Neurons of a mixture of experts are `[batch, token, top_k, neuron]`. While their sites are open the experts run in
  transformers' grouped form, its default; another choice (`experts_implementation`) comes back when they close.
- GPT-2, GPT-NeoX, BLOOM and OPT have no gate: `mlp_gate` equals `mlp_inner`.

Families, by `config.model_type`: {families}. Any other is refused with the list of its modules.
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


def page() -> str:
    titles = ["family", *(f"`{at}`" for at in SITES), *(f"logits, {dtype}" for dtype in DTYPES)]
    table = [" | ".join(titles), "|".join(["---"] * len(titles)), *(row(form) for form in FORMS)]
    lines = "\n".join(f"| {line} |" if "---" not in line else f"|{line}|" for line in table)
    return HEAD + lines + "\n" + NOTES.format(families=", ".join(f"`{name}`" for name in FAMILIES)) + names()


def main() -> int:
    text = page()
    if "--check" in sys.argv:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
