"""Sums at one kind of site: what a batch adds, and the totals it is added to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from einops import einsum, rearrange, reduce

from babelscope.artifacts import SiteRecord
from babelscope.artifacts.stream import BINS, STREAM_SITES, StreamSums, length_bins, ordinary_lengths
from babelscope.axes import Bool, Float, Float32, Float64, Int, Int64, Tensor
from babelscope.corpus import Batch, shard_of
from babelscope.errors import MeasurementError
from babelscope.models import Layout
from babelscope.recording.addends import Addend, StreamAddend
from babelscope.recording.device_sums import device_addend
from babelscope.recording.watchers import ReadSite, SiteValue
from babelscope.sites import NEURON_SITES, At, Site

BLOCK = 1 << 18
"""Values a thread makes float64 at a time on the CPU, so that they stay in its cache."""
PIECE = 64
"""Rows summed as one, so that threads keep to their own rows from the copy to the sums. 32 × 40 tokens of 704 units,
two threads: 1.6 ms with one product per block, 0.6 with one per piece."""


@dataclass(eq=False)
class Workspace:
    """Two buffers used again by every batch: fresh ones of this size cost more in page faults than the sums."""

    single: Float32[Tensor, " n"]
    double: Float64[Tensor, " n"]

    @classmethod
    def empty(cls, device: torch.device) -> "Workspace":
        """No buffer yet."""
        return cls(torch.empty(0, device=device), torch.empty(0, dtype=torch.float64, device=device))

    def singles(self, count: int) -> Float32[Tensor, " n"]:
        """The float32 buffer, grown to at least so many values, cut to them."""
        if self.single.numel() < count:
            self.single = self.single.new_empty(count)
        return self.single[:count]

    def doubles(self, count: int) -> Float64[Tensor, " n"]:
        """The same of float64."""
        if self.double.numel() < count:
            self.double = self.double.new_empty(count)
        return self.double[:count]


def dense_addend(
    value: Float[Tensor, "batch token *unit"],
    sign_source: Float[Tensor, "batch token *unit"],
    counted: Bool[Tensor, "batch token"],
    space: Workspace,
    *,
    stream: bool = False,
) -> Addend:
    """Sums over the counted tokens of a site whose units are the same for every token.

    stream: whether first tokens and lengths are kept too.
    """
    units = value[0, 0].numel()
    flat, weight = value.reshape(-1, units), rearrange(counted, "b t -> (b t)").to(torch.float64)
    total, square = (weight.new_zeros(units) for _ in range(2))
    norm, lengths = weight.new_zeros(()), weight.new_zeros(len(flat) if stream else 0)
    for rows in row_blocks(len(flat), units, value.device):
        piece_weight = weight[rows].view(-1, 1, min(PIECE, len(weight[rows])))
        wide = space.doubles(piece_weight.numel() * units).view(len(piece_weight), -1, units)
        wide.copy_(flat[rows].view(wide.shape))
        total += torch.bmm(piece_weight, wide)[:, 0].sum(dim=0)
        wide.mul_(wide)
        square += torch.bmm(piece_weight, wide)[:, 0].sum(dim=0)
        norm += (piece_weight[:, 0] * wide.sum(dim=2).sqrt()).sum()
        if stream:
            lengths[rows] = ordinary_lengths(wide.view(-1, units))
    added = stream_addend(flat, counted, lengths) if stream else None
    return Addend(document_counts(sign_source, counted, space), total, square, norm, None, added)


def stream_addend(
    flat: Float[Tensor, "row unit"], counted: Bool[Tensor, "batch token"], lengths: Float64[Tensor, " row"]
) -> StreamAddend:
    """Sums over the first counted token of every document, and the lengths of the other counted ones."""
    first = first_tokens(counted)
    rows = flat[first.flatten()].double()
    return StreamAddend(rows.sum(dim=0), rows.square().sum(dim=0), length_bins(lengths[(counted & ~first).flatten()]))


def first_tokens(counted: Bool[Tensor, "batch token"]) -> Bool[Tensor, "batch token"]:
    """The first counted token of each document."""
    return counted & (counted.cumsum(dim=1) == 1)


def row_blocks(rows: int, units: int, device: torch.device) -> Iterator[slice]:
    """Rows to be summed at a time: whole pieces, then what is left."""
    whole_pieces = rows // PIECE * PIECE
    step = whole_pieces if device.type != "cpu" else max(1, BLOCK * torch.get_num_threads() // (units * PIECE)) * PIECE
    for start in range(0, whole_pieces, step or 1):
        yield slice(start, min(start + step, whole_pieces))
    if whole_pieces < rows:
        yield slice(whole_pieces, rows)


def document_counts(
    sign_source: Float[Tensor, "batch token *unit"], counted: Bool[Tensor, "batch token"], space: Workspace
) -> Float32[Tensor, "batch unit"]:
    """Counted tokens of each document at which a unit is above 0."""
    rows, length = counted.shape
    # Documents are rows of the batch: a product per document is 2 to 8 times as fast as counting by label on the CPU.
    positive = space.singles(sign_source.numel()).view(rows, length, -1)
    torch.gt(sign_source.reshape(positive.shape), 0, out=positive)
    return torch.bmm(counted.to(torch.float32)[:, None], positive)[:, 0]


def routed_addend(
    value: Float[Tensor, "batch token top_k neuron"],
    sign_source: Float[Tensor, "batch token top_k neuron"],
    routes: Int[Tensor, "batch token top_k"],
    counted: Bool[Tensor, "batch token"],
    n_experts: int,
) -> Addend:
    """Sums of an MoE's neurons: a token adds only to the experts it was routed to; units are expert-major."""
    chosen = torch.nn.functional.one_hot(routes, n_experts) * counted[..., None, None]
    active = einsum(chosen.float(), (sign_source > 0).float(), "b t k e, b t k d -> b e d")
    weight, wide = chosen.double(), value.double()
    total = einsum(weight, wide, "b t k e, b t k d -> e d")
    square = einsum(weight, wide**2, "b t k e, b t k d -> e d")
    length = reduce(wide**2, "b t k d -> b t", "sum").sqrt()
    return Addend(
        rearrange(active, "b e d -> b (e d)"),
        total.flatten(),
        square.flatten(),
        (length * counted).sum(),
        reduce(weight, "b t k e -> e", "sum"),
    )


def document_shards(batch: Batch, shards: int) -> Int64[Tensor, " batch"]:
    """Shard of each document; 0 where none are kept apart."""
    return torch.tensor([shard_of(document.id, shards) if shards else 0 for document in batch.documents])


def check_finite_sums(values: Mapping[Site, Addend]) -> None:
    """Raise MeasurementError for the first site with NaN or infinity; one number per device goes to the host."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for addend in values.values():
        by_device.setdefault(addend.sumsq.device, []).append(torch.isfinite(addend.sumsq).all())
    if all(bool(torch.stack(flags).all()) for flags in by_device.values()):
        return
    site = next(site for site, addend in values.items() if not bool(torch.isfinite(addend.sumsq).all()))
    raise MeasurementError(
        f"site '{site}' gave NaN or infinity; expected finite activations; "
        "try dtype float32 or bfloat16, and check the weights"
    )


class SiteSums:
    """Running totals of one kind of site.

    spaces: buffers by device, shared by all sites of one pass. device: where the totals are; None puts each layer's on
    the device of its weights.
    """

    def __init__(
        self,
        layout: Layout,
        at: At,
        layers: tuple[int | None, ...],
        languages: int,
        shards: int,
        spaces: dict[torch.device, Workspace],
        *,
        device: torch.device | None = None,
    ) -> None:
        self.at, self.layout, self.spaces = at, layout, spaces
        self.sites = [Site(layer, at) for layer in layers]
        routed = bool(layout.n_experts) and at in NEURON_SITES
        self.n_experts = layout.n_experts if routed else 0
        self.stream = at in STREAM_SITES
        units = layout.width(at)
        self.totals: dict[Site, dict[str, Tensor]] = {}
        for site in self.sites:
            place = layout.device_of(site) if device is None else device
            double = {"dtype": torch.float64, "device": place}
            total = {
                "active": torch.zeros(languages, units, dtype=torch.int64, device=place),
                "shard_active": torch.zeros(languages, shards, units, dtype=torch.int32, device=place),
                "sum": torch.zeros(languages, units, **double),
                "sumsq": torch.zeros(languages, units, **double),
                "norm": torch.zeros(languages, **double),
            }
            if routed:
                total["routed"] = torch.zeros(languages, layout.n_experts, dtype=torch.int64, device=place)
            if self.stream:
                total["first_sum"] = torch.zeros(languages, units, **double)
                total["first_sumsq"] = torch.zeros(languages, units, **double)
                total["lengths"] = torch.zeros(languages, BINS, dtype=torch.int64, device=place)
            self.totals[site] = total

    def addend(self, batch: Batch, site_value: SiteValue) -> Addend:
        """What one batch adds at one layer."""
        if site_value.routes is not None:
            return routed_addend(
                site_value.value, site_value.sign_source, site_value.routes, site_value.counted, self.n_experts
            )
        if site_value.value.is_cuda:
            return device_addend(site_value.value, site_value.sign_source, site_value.counted, stream=self.stream)
        space = self.spaces.setdefault(site_value.value.device, Workspace.empty(site_value.value.device))
        return dense_addend(site_value.value, site_value.sign_source, site_value.counted, space, stream=self.stream)

    def commit(self, site: Site, addend: Addend, language: int, places: Int64[Tensor, " batch"]) -> None:
        """Add a batch to the totals of one layer; places: the shard of each document, where the addend is."""
        total = self.totals[site]
        total["active"][language] += addend.active.sum(dim=0, dtype=torch.float64).to(torch.int64)
        if total["shard_active"].shape[1]:
            total["shard_active"][language].index_add_(0, places, addend.active.to(torch.int32))
        total["sum"][language] += addend.sum
        total["sumsq"][language] += addend.sumsq
        total["norm"][language] += addend.norm
        if addend.routed is not None:
            total["routed"][language] += addend.routed.to(torch.int64)
        if addend.stream is not None:
            for name, part in addend.stream._asdict().items():
                total[name][language] += part

    def record(self) -> SiteRecord:
        """The totals as an Observation holds them."""

        def gather(name: str, pattern: str) -> Tensor:
            return rearrange(torch.stack([total[name].cpu() for total in self.totals.values()]), pattern).contiguous()

        down = self.at == "mlp_inner"
        norms = [self.layout.down_norm(site.layer or 0).cpu() for site in self.sites] if down else []
        return SiteRecord(
            layers=tuple(site.layer or 0 for site in self.sites),
            active=gather("active", "l k u -> l u k"),
            sum=gather("sum", "l k u -> l u k"),
            sumsq=gather("sumsq", "l k u -> l u k"),
            norm=gather("norm", "l k -> l k"),
            shard_active=gather("shard_active", "l k s u -> s l u k"),
            routed=gather("routed", "l k e -> l e k") if self.n_experts else None,
            weight_norm=torch.stack(norms) if norms else None,
            stream=StreamSums(*(gather(name, "l k u -> l u k") for name in StreamAddend._fields))
            if self.stream
            else None,
        )

    def state(self) -> dict[str, Tensor]:
        """The totals by name, for a checkpoint."""
        return {f"{site}/{name}": tensor for site, total in self.totals.items() for name, tensor in total.items()}


class PassSums:
    """Running totals of all sites of a pass, by kind of site."""

    def __init__(
        self,
        layout: Layout,
        sites: Mapping[At, tuple[int | None, ...]],
        languages: int,
        shards: int,
        *,
        device: torch.device | None = None,
    ) -> None:
        """device: where the totals are; None puts each layer's on the device of its weights."""
        spaces: dict[torch.device, Workspace] = {}
        self.shards = shards
        self.kinds = {
            at: SiteSums(layout, at, layers, languages, shards, spaces, device=device) for at, layers in sites.items()
        }
        self.hooks: dict[Site, ReadSite] = {site: sums.addend for sums in self.kinds.values() for site in sums.sites}

    def add(self, batch: Batch, values: dict[Site, Addend]) -> None:
        """Add a batch of one language, in the order of the pass; raises MeasurementError at NaN or infinity."""
        check_finite_sums(values)
        shards = document_shards(batch, self.shards)
        places = {device: shards.to(device) for device in {addend.active.device for addend in values.values()}}
        for site, addend in values.items():
            self.kinds[site.at].commit(site, addend, batch.documents[0].language, places[addend.active.device])

    def records(self) -> dict[str, SiteRecord]:
        """The totals as an Observation holds them."""
        return {at: sums.record() for at, sums in self.kinds.items()}

    def state(self) -> dict[str, Tensor]:
        """The totals by name, for a checkpoint."""
        return {name: tensor for sums in self.kinds.values() for name, tensor in sums.state().items()}
