"""Whether a family, or one of its layers, has a site, and in one line why not."""

from collections.abc import Collection

from babelscope.axes import Int, Tensor
from babelscope.errors import PrerequisiteError, SiteError
from babelscope.models.family import Family
from babelscope.sites import Site


def check_site(
    site: Site, family: Family, kind: str, *, layers: int, routed: bool, lacking: Collection[int] = ()
) -> None:
    """Raise SiteError unless a model has this site.

    kind: its model type; routed: whether it has experts; lacking: layers without attention.
    """
    if site.layer is not None and site.layer >= layers:
        raise SiteError(f"site '{site}': {kind} has layers 0–{layers - 1}; give a layer in that range")
    if site.at == "router" and not routed:
        raise SiteError(f"site '{site}': {kind} is dense; expected a model with experts")
    if site.at == "resid_mid" and family.parallel:
        raise SiteError(
            f"site '{site}': this {kind} runs attention and MLP side by side, nothing stands between them; "
            "use resid_in, which both read"
        )
    if site.at in ("attn_heads", "attn_out") and site.layer in lacking:
        with_attention = ", ".join(str(index) for index in range(layers) if index not in lacking)
        raise SiteError(
            f"site '{site}': layer {site.layer} of this {kind} has {family.mixer} in the attention's place; expected a "
            f"layer with attention; give one of {with_attention}"
        )
    if site.at == "mlp_gate" and not (family.act or family.interleaved):
        raise SiteError(
            f"site '{site}': the activation function of {kind} is no module, so nothing shows its output; expected "
            "another site; use mlp_inner, the same times the up-projection"
        )


def no_experts(what: str, layer: int, kind: str, routed: Collection[int]) -> SiteError:
    """The one line for a layer whose MLP is dense where others have experts."""
    return SiteError(
        f"{what}: layer {layer} of this {kind} has a dense MLP, others have experts, whose neurons alone are counted; "
        f"expected a layer with experts; give one of {', '.join(map(str, routed))}"
    )


def check_ids(ids: Int[Tensor, "batch token"], kind: str, *, rows: int, positions: int | None) -> None:
    """Raise PrerequisiteError for tokens without a row in the embedding, or more than there are positions.

    kind: the model type; positions: how many there are, None where there is no end to them.
    """
    last, longest = int(ids.max()) if ids.numel() else 0, ids.shape[1]
    if last >= rows:
        raise PrerequisiteError(
            f"token {last} came; this {kind} has {rows} of them; expected the tokenizer that the model was trained "
            "with; save that beside it, or resize the model's embeddings"
        )
    if positions is not None and longest > positions:
        raise PrerequisiteError(
            f"a text of {longest} tokens came; this {kind} has {positions} positions; expected at most as many; "
            "lower max_length, or shorten the text"
        )


def check_room(longest: int, new_tokens: int, kind: str, positions: int | None) -> None:
    """Raise PrerequisiteError where the longest prompt and its answer are more than there are positions.

    The last token of an answer is not read, so it needs none.
    """
    room = new_tokens if positions is None else positions + 1 - longest
    if new_tokens > room:
        raise PrerequisiteError(
            f"{new_tokens} new tokens were asked for after a prompt of {longest}; this {kind} has {positions} "
            f"positions, with room for {max(0, room)} new ones; expected at most as many; "
            f"{'lower new_tokens, or ' if room > 0 else ''}shorten the prompt"
        )
