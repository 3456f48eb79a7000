"""The table of every model family, joined of its three files, and the forms that a configuration chooses.

What other libraries call a family's places is in `hook_names`; which take no positions, in `upstream.forward`.
"""

from dataclasses import fields, replace
from typing import Any

from transformers import PretrainedConfig

from babelscope.errors import SiteError
from babelscope.models.families_experts import ROUTED
from babelscope.models.families_gated import GATED
from babelscope.models.families_plain import PLAIN
from babelscope.models.family import Family
from babelscope.upstream.config import config_field, config_value

FAMILIES: dict[str, Family] = {**GATED, **PLAIN, **ROUTED}
"""By `config.model_type`; `add_family` puts others beside them."""
ADDED: set[str] = set()
"""Model types that `add_family` put there, whose models are checked when their layout is first asked for."""
PAGE = "docs/families.md"


def add_family(model_type: str, like: Family | str, **changes: Any) -> Family:
    """Give a model type a table of its own, so that its models can be opened, observed and steered.

    model_type: the `config.model_type` of the models.
    like: the table to start from: a Family, or the model type of one in `FAMILIES`, such as "llama".
    changes: fields of `Family` that differ, such as mid="" where attention and MLP run side by side.
    The table is tried by `check_family` on the first model of the type that comes, which refuses a wrong one.
    Returns the table. Raises SiteError for a type that babelscope knows itself, an unknown `like`, or a field that is
    none of Family's.
    """
    if model_type in FAMILIES and model_type not in ADDED:
        raise SiteError(f"model type {model_type!r} has a table already; expected another type; open its models as is")
    if isinstance(like, str) and like not in FAMILIES:
        raise SiteError(f"like={like!r} has no table; expected a Family, or one of {', '.join(sorted(FAMILIES))}")
    names = {field.name: field.type for field in fields(Family)}
    wrong = [name for name in changes if name not in names]
    wrong += [name for name, value in changes.items() if name in names and not _fits(value, names[name])]
    if wrong:
        raise SiteError(
            f"changes {', '.join(f'{name}={changes[name]!r}' for name in wrong)} came; expected fields of Family with "
            f"their types: {', '.join(names)}; see {PAGE}"
        )
    family = replace(FAMILIES[like] if isinstance(like, str) else like, **changes)
    FAMILIES[model_type] = family
    ADDED.add(model_type)
    return family


def _fits(value: Any, kind: Any) -> bool:
    return isinstance(value, bool) if kind is bool else isinstance(value, str)


def family_of(config: PretrainedConfig) -> Family:
    """The family's table for this configuration; raises SiteError for a family, or a form of it, without one."""
    kind = config_value(config, "type")
    if kind not in FAMILIES:
        raise SiteError(f"model type {kind!r} has no table; expected one of {', '.join(sorted(FAMILIES))}")
    return _form(FAMILIES[kind], config) if kind not in ADDED else FAMILIES[kind]


def _form(family: Family, config: Any) -> Family:
    """The table of a form that a family's settings choose."""
    kind = config_value(config, "type")

    def says(*names: str) -> bool:
        return any(config_field(config, name) for name in names)

    parallel = kind in ("gpt_neox", "stablelm") and config_value(config, "parallel")
    if parallel or (kind == "falcon" and says("new_decoder_architecture", "parallel_attn")):
        return replace(family, mid="")
    if kind == "opt":
        return _opt(family, config)
    if kind == "bloom" and says("apply_residual_connection_post_layernorm"):
        family = replace(family, attn_base="input_layernorm", mlp_base="post_attention_layernorm")
    exact = kind == "bloom" and config_value(config, "slow_but_exact")
    if exact and config_value(config, "tensor_parallel") > 1:
        raise SiteError(
            "this bloom has slow_but_exact, which goes around its output projections; expected slow_but_exact=False; "
            "set it in the model's config"
        )
    return family


def _opt(family: Family, config: Any) -> Family:
    if config_field(config, "word_embed_proj_dim") != config_value(config, "hidden"):
        family = replace(family, project="model.decoder.project_out")
    if config_value(config, "norm_first"):
        return replace(family, norm="") if config_field(config, "_remove_final_layer_norm") else family
    # The norm stands after the sum of stream and attention; the MLP and its residual both start from its output.
    after, out = "self_attn_layer_norm", "final_layer_norm"
    return replace(family, norm="", mid="", stream=after, mid_after=after, out_after=out)
