"""What the controls say of a selection, as evidence: set size, stability, and selectivity under shuffled labels."""

from collections.abc import Mapping

from babelscope.controls.evidence import LABELS_CAVEAT, SHARDS_CAVEAT, SPLITS_CAVEAT, Evidence
from babelscope.controls.label_shuffles import ShuffledLabels
from babelscope.controls.resampling import BootstrapSets, Stability
from babelscope.errors import SelectionError
from babelscope.languages import Language


def check_draws(draws: int) -> None:
    """Raise SelectionError for fewer draws than an interval needs."""
    if draws < 2:
        raise SelectionError(f"draws {draws} came; expected 2 or more for an interval; draw more")


def selection_rows(
    sizes: Mapping[Language, int],
    bootstrap: BootstrapSets,
    stability: Mapping[Language, Stability],
    labels: ShuffledLabels | None,
    *,
    seed: int,
) -> list[Evidence]:
    """Three rows per language, four where labels were shuffled; `n` is the size of the set."""
    rows = []
    for tag, size in sizes.items():
        (low, high), halves = bootstrap.interval[tag], stability[tag]
        shared = {"language": tag, "n": size, "seed": seed}
        draw_settings = {**shared, "draws": bootstrap.draws}
        rows += [
            Evidence(
                claim="set size",
                control="bootstrap over shards",
                estimate=size,
                low=low,
                high=high,
                note=SHARDS_CAVEAT,
                **draw_settings,
            ),
            Evidence(
                claim="stability",
                control="half-splits of shards",
                estimate=halves.median,
                low=halves.low,
                high=halves.high,
                note=SPLITS_CAVEAT,
                **draw_settings,
            ),
            Evidence(claim="stability", control="chance", estimate=halves.chance, **shared),
        ]
        if labels is not None:
            rows.append(
                Evidence(
                    claim="share with q <= .05",
                    control="shuffled labels",
                    estimate=labels.share_by_language[tag],
                    draws=labels.draws,
                    note=LABELS_CAVEAT,
                    **shared,
                )
            )
    return rows
