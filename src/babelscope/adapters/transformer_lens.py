"""The same places in TransformerLens: names of hooks, and a steering as hooks of `run_with_hooks`.

TransformerLens is imported by whoever boots the bridge (`TransformerBridge.boot_transformers`), best from a folder:
booting from a model in memory changes that model. `model` here is another copy, opened with `open_model`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerBase

from babelscope.axes import Int, Tensor
from babelscope.errors import SiteError
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.sites import Site
from babelscope.steering import Operations
from babelscope.steering.single import changes_of_pass

Hook = tuple[str, Callable[..., Tensor]]
"""A name and a function of value and hook, as `run_with_hooks(fwd_hooks=…)` takes them."""


def hook_name(model: CausalModel, site: Site) -> str:
    """The hook at a site of this model, e.g. `blocks.5.hook_resid_post`.

    Raises SiteError where the model, or TransformerLens, has no such place.
    """
    layout = layout_of(model)
    layout.check(site)
    kind = model.config.model_type
    if site.at == "resid_mid" and kind == "opt" and layout.family.stream:
        raise SiteError(f"site '{site}': TransformerLens reads this opt before the norm; expected another site")
    return site.transformer_lens(kind)


def steering_hooks(
    model: CausalModel,
    operations: Operations,
    input_ids: Int[Tensor, "batch token"],
    *,
    attention_mask: Int[Tensor, "batch token"] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> list[Hook]:
    """A steering of one pass over these tokens as hooks: `bridge.run_with_hooks(ids, fwd_hooks=steering_hooks(…))`.

    The ids must be the ones that the bridge is given; its own `to_tokens` puts a BOS first.
    Raises SiteError where TransformerLens has no hook, or none that can be written (`router`, `resid_mid`).
    """
    layout = layout_of(model)
    changes = changes_of_pass(layout, operations, input_ids, attention_mask=attention_mask, tokenizer=tokenizer)
    return [(_writable(model, site), partial(_call, change)) for site, change in changes.items()]


def _writable(model: CausalModel, site: Site) -> str:
    if site.at in ("router", "resid_mid"):
        raise SiteError(
            f"site '{site}': what is written at TransformerLens's hook does not reach all that follows; "
            "expected another site, such as attn_out; or use steer"
        )
    return hook_name(model, site)


def _call(change: Callable[[Tensor], Tensor], value: Tensor, hook: Any) -> Tensor:
    """TransformerLens names its second argument."""
    return change(value)
