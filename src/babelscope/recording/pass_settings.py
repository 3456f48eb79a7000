"""What a pass reads and how, checked before it runs, and how large its result would be."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.stream import BINS, STREAM_SITES
from babelscope.corpus import Texts, as_corpus, expected_tokens
from babelscope.errors import SiteError, refuse_no_number, refuse_one_text
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.sites import USUAL_SITES, WHOLE_MODEL, At, Site, check_at


@dataclass(frozen=True)
class PassSettings:
    """What is read and how: everything that decides the sums."""

    sites: dict[At, tuple[int | None, ...]]
    tokens_per_language: int | None
    shards: int
    part: tuple[int, int]
    batch_tokens: int
    batch_size: int | None
    max_length: int
    turns: tuple[int, int] = (0, 1)
    """(i, n): of the batches, those numbered i, i + n, i + 2n …"""

    def __post_init__(self) -> None:
        for name, pair in (("part", self.part), ("turns", self.turns)):
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise SiteError(f"{name} {pair!r} came; expected two numbers, such as (0, 4); correct it")
            refuse_no_number({f"{name}[{index}]": value for index, value in enumerate(pair)}, SiteError, whole=True)
        (i, n), (turn, turns) = self.part, self.turns
        numbers = {name: getattr(self, name) for name in ("tokens_per_language", "shards", "batch_size", "max_length")}
        uneven = [f"{name} {value!r}" for name, value in numbers.items() if not isinstance(value, Integral | None)]
        if uneven:
            raise SiteError(f"a pass cannot have {', '.join(uneven)}; expected whole numbers; correct it")
        faults = [
            fault
            for fault, wrong in (
                (f"tokens_per_language {self.tokens_per_language} (1 or more)", (self.tokens_per_language or 1) < 1),
                (f"shards {self.shards} (0 or more)", self.shards < 0),
                (f"part {i}/{n} (i/n with 0 <= i < n)", not 0 <= i < n),
                (f"part {i}/{n} of {self.shards} shards (as many parts as shards at most)", 0 < self.shards < n),
                (f"turns {turn}/{turns} (i/n with 0 <= i < n)", not 0 <= turn < turns),
                (f"batch_size {self.batch_size} (1 or more)", self.batch_size is not None and self.batch_size < 1),
                (f"max_length {self.max_length} (1 or more)", self.max_length < 1),
            )
            if wrong
        ]
        if faults:
            raise SiteError(f"a pass cannot have {', '.join(faults)}; expected what stands in brackets; correct it")


def parse_sites(layout: Layout, sites: Sequence[str | Site]) -> dict[At, tuple[int | None, ...]]:
    """Layers by kind of site: "mlp_gate" means all layers, "5.resid_out" or a Site means one."""
    refuse_one_text(sites, "sites", SiteError)
    layers_by_kind: dict[At, list[int | None]] = {}
    for site in sites:
        if isinstance(site, str) and "." not in site:
            at = check_at(site)
            layers: list[int | None] = [None] if at in WHOLE_MODEL else list(range(layout.n_layers))
        else:
            parsed = site if isinstance(site, Site) else Site.parse(site)
            at, layers = parsed.at, [parsed.layer]
        for layer in layers:
            layout.check(Site(layer, at))
        layers_by_kind.setdefault(at, []).extend(layer for layer in layers if layer not in layers_by_kind.get(at, []))
    if not layers_by_kind:
        raise SiteError("no site came; expected at least one such as 'mlp_gate'; name the sites")
    return {at: tuple(sorted(layers, key=lambda layer: layer or 0)) for at, layers in layers_by_kind.items()}


@dataclass(frozen=True)
class ObservationPlan:
    """Size of a pass, before it runs."""

    tokens: int
    """Tokens that would be counted: at most, or, where a tokenizer was given, about."""
    result_bytes: int
    """Bytes of the saved Observation."""
    sites: tuple[str, ...]


def plan_observation(
    model: CausalModel,
    texts: Texts,
    *,
    sites: Sequence[str | Site] = USUAL_SITES,
    tokens_per_language: int | None = 100_000,
    shards: int = 32,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int | None = None,
) -> ObservationPlan:
    """How large a pass would be; nothing is run.

    tokenizer: with it, text that is shorter than the limit is counted, by some of its documents.
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    max_length = text_length(layout, max_length)
    layers_by_kind = parse_sites(layout, sites)
    units = sum(len(layers) * layout.width(at) for at, layers in layers_by_kind.items())
    streams = [(len(layers), layout.width(at)) for at, layers in layers_by_kind.items() if at in STREAM_SITES]
    kept_apart = sum(layers * (16 * width + 8 * BINS) for layers, width in streams)
    limit = tokens_per_language or sum(len(d.text) for documents in corpus.values() for d in documents)
    names = tuple(str(Site(layer, at)) for at, layers in layers_by_kind.items() for layer in layers)
    tokens = limit * len(corpus)
    if tokenizer is not None:
        expected = expected_tokens(tokenizer, corpus, max_length=max_length, most=tokens_per_language)
        tokens = sum(expected.values())
    return ObservationPlan(tokens, (units * (24 + 4 * shards) + kept_apart) * len(corpus), names)
