"""What sums over text can be: the checks that a hash cannot make, for a saved observation may come from anywhere."""

import torch

from babelscope.artifacts.site_record import SiteRecord
from babelscope.axes import Int64, Tensor
from babelscope.errors import ArtifactError

ROUNDING = 1e-6
"""Share that float64 sums may be off by; far more than they are, far less than a flipped bit of the exponent."""


def check_site_sums(
    at: str,
    record: SiteRecord,
    *,
    tokens: Int64[Tensor, " language"],
    shards: Int64[Tensor, "shard language"],
    documents: Int64[Tensor, " language"],
    norms: bool = True,
) -> None:
    """Raise ArtifactError for sums of one site that no pass over so many tokens and documents can give.

    at: the site's name, for the message. shards: tokens by shard; of none where nothing was kept by shard.
    norms: whether the norm is of the units that were recorded; beside an autoencoder's features it is the stream's.
    """
    check_range(f"{at}.active", record.active, tokens)
    check_range(f"{at}.shard_active", record.shard_active, shards[:, None, None])
    if len(shards) and not torch.equal(record.shard_active.sum(0, dtype=torch.int64), record.active):
        raise ArtifactError(f"{at}.shard_active does not add up to {at}.active")
    check_squares(at, record.sum, record.sumsq, tokens)
    if norms:
        check_squares(f"{at}.norm", record.norm, record.sumsq.sum(1), tokens)
    check_range(f"{at}.norm", record.norm)
    if record.routed is not None:
        check_range(f"{at}.routed", record.routed, tokens)
    if record.weight_norm is not None:
        check_range(f"{at}.weight_norm", record.weight_norm)
    if record.stream is not None:
        check_squares(f"{at}, first tokens", record.stream.first_sum, record.stream.first_sumsq, documents)
        check_range(f"{at}.lengths", record.stream.lengths)
        check_range(f"{at}.lengths, all together", record.stream.lengths.sum(1), tokens)


def check_squares(what: str, total: Tensor, squares: Tensor, counts: Tensor) -> None:
    """Raise ArtifactError unless (Σx)² ≤ n·Σx², and so both are 0 where n is."""
    check_range(f"squares of {what}", squares)
    bound = squares * counts * (1 + ROUNDING)
    if bool((total.square() > bound).any()):
        raise ArtifactError(f"the sums of {what} are larger than their squares allow")


def check_range(what: str, values: Tensor, most: Tensor | None = None) -> None:
    """Raise ArtifactError for a value below 0 or above `most`."""
    if bool((values < 0).any()):
        raise ArtifactError(f"{what} holds a value below 0")
    if most is not None and bool((values > most).any()):
        raise ArtifactError(f"{what} holds more than there is text")
