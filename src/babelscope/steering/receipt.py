"""What a steering did: which tokens it met, which it changed, and why it left the others alone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch

from babelscope.artifacts import Operation
from babelscope.axes import Bool, Int64, Tensor
from babelscope.errors import SteeringError
from babelscope.steering.frame import Frame

PassPhase = Literal["prompt", "generated"]
PHASES: tuple[PassPhase, ...] = ("prompt", "generated")
REASONS = ("pad", "row", "phase", "schedule", "special token", "position", "condition")
"""Why a token was left alone; of several the first counts."""


class ReceiptRow(NamedTuple):
    """One operation in one phase."""

    site: str
    kind: str
    phase: PassPhase
    passes: int
    """Forward passes in which the site was met."""
    seen: int
    """Tokens met, pads among them, over all rows."""
    edited: int
    """Of these, tokens with a strength other than zero."""
    skipped: dict[str, int]
    """Of these, tokens left alone, by reason."""


@dataclass(eq=False)
class _Account:
    """Sums of one operation."""

    operation: Operation
    passes: int = 0
    columns: int = 0
    sums: Tensor | None = None
    """[phase, edited and reasons]; where masks come in, on their device, so that nothing waits for it."""
    plain: "Counter[PlainCounts]" = field(default_factory=Counter)
    """How many passes had these counts. Nearly all passes of `generate` have the same, so that one pass costs one
    addition and a thousand cost no memory."""


class Receipt:
    """What every operation of one steering did so far; printing it gives a table.

    Of all passes while the steering was open, in `generate` and outside it, where all tokens are prompt. Clean passes
    are not in it.
    """

    def __init__(self) -> None:
        self.passes = 0
        """Forward passes of the whole model."""
        self.columns = 0
        """Tokens in them, pads among them, over all rows."""
        self._accounts: dict[Any, _Account] = {}

    def open(self, key: Any, operation: Operation) -> None:
        """An account for one operation."""
        self._accounts[key] = _Account(operation)

    def counts(self) -> list[Any]:
        """All that was counted, for `restore` on the receipt of the same operations."""
        accounts = [
            [account.passes, account.columns, account.sums, dict(account.plain)] for account in self._accounts.values()
        ]
        return [self.passes, self.columns, accounts]

    def restore(self, counts: list[Any]) -> None:
        """Take up what `counts` gave."""
        self.passes, self.columns, accounts = counts
        for account, (passes, columns, sums, plain) in zip(self._accounts.values(), accounts, strict=True):
            account.passes, account.columns, account.sums, account.plain = passes, columns, sums, Counter(plain)

    def passed(self, frame: Frame) -> None:
        """Count a pass of the model."""
        self.passes += 1
        self.columns += frame.batch * frame.tokens

    def met(self, key: Any, frame: Frame, columns: int, counts: "PassCounts") -> None:
        """Count what one operation did in one pass, at a site that saw the last so many columns."""
        account = self._accounts[key]
        account.passes += 1
        account.columns += frame.batch * columns
        if isinstance(counts, Tensor):
            account.sums = counts if account.sums is None else account.sums + counts.to(account.sums.device)
        else:
            account.plain[counts] += 1

    @property
    def rows(self) -> list[ReceiptRow]:
        """One row per operation and phase, in the order of the layers."""
        return [self._row(account, phase) for account in self._accounts.values() for phase in PHASES]

    def _row(self, account: _Account, phase: PassPhase) -> ReceiptRow:
        place = PHASES.index(phase)
        values = [0] * (1 + len(REASONS)) if account.sums is None else account.sums[place].tolist()
        for counts, passes in account.plain.items():
            values = [value + passes * count for value, count in zip(values, counts[place], strict=True)]
        by_reason = dict(zip(("edited", *REASONS), values, strict=True))
        skipped = {reason: by_reason[reason] for reason in REASONS if by_reason[reason]}
        n_tokens = by_reason["edited"] + sum(skipped.values())
        site, kind = str(account.operation.site), account.operation.kind
        return ReceiptRow(site, kind, phase, account.passes, n_tokens, by_reason["edited"], skipped)

    def edited(self, phase: PassPhase | None = None) -> int:
        """Tokens changed by any operation, summed over operations."""
        return sum(row.edited for row in self.rows if phase in (None, row.phase))

    def check(self) -> None:
        """Raise SteeringError where an operation did less than the model ran: a site was passed by.

        Sites after the head may see the last column only.
        """
        for account in self._accounts.values():
            site = account.operation.site
            short = account.passes < self.passes or (site.at != "logits" and account.columns < self.columns)
            if short:
                raise SteeringError(
                    f"site '{site}' met {account.columns} tokens in {account.passes} passes, the model ran "
                    f"{self.columns} in {self.passes}; expected all of them: this model goes around the site; "
                    "steer at another one"
                )

    def check_answers(self, tokens: int) -> None:
        """`check`, for answers of so many passes' generated tokens; raises SteeringError where they were not met.

        tokens: generated tokens that went through the model; the last of each answer does not.
        """
        self.check()
        for row in self.rows:
            if row.phase == "generated" and row.seen != tokens and not row.site.startswith("logits"):
                raise SteeringError(
                    f"site '{row.site}' met {row.seen} generated tokens, {tokens} were drawn; expected all of them; "
                    "this release of transformers generates in a way that is not known, report it"
                )

    def as_dict(self) -> dict[str, Any]:
        """For JSON: passes, tokens, and the rows."""
        return {"passes": self.passes, "tokens": self.columns, "operations": [row._asdict() for row in self.rows]}

    def __eq__(self, other: object) -> bool:
        """Whether two steerings did the same."""
        return isinstance(other, Receipt) and self.as_dict() == other.as_dict()

    __hash__ = object.__hash__

    def __str__(self) -> str:
        lines = [f"{self.passes} passes, {self.columns} tokens"]
        for row in self.rows:
            why = ", ".join(f"{count} {reason}" for reason, count in row.skipped.items()) or "none"
            lines.append(f"{row.site} {row.kind}, {row.phase}: {row.edited} of {row.seen} edited; left alone: {why}")
        return "\n".join(lines)

    __repr__ = __str__


PlainCounts = tuple[tuple[int, ...], ...]
"""Tokens [phase, count]: edited, then by reason."""
PassCounts = PlainCounts | Int64[Tensor, "phase count"]
"""What one gate and schedule did in one pass, for prompt and generated tokens."""


def count_plain(frame: Frame, factors: Sequence[float], open_phase: Sequence[bool], rows_on: int) -> PlainCounts:
    """Counts where no token is told from its neighbours: by row and column only.

    factors: of the strength, by column of this site; open_phase: whether the gate's phase holds there; rows_on: rows
    of the pass with a strength.
    """
    prompt = _prompt_columns(frame, len(factors))
    pairs = [(bool(factor), phase_holds) for factor, phase_holds in zip(factors, open_phase, strict=True)]
    counters = Counter[str](), Counter[str]()
    for counter, part in zip(counters, (pairs[:prompt], pairs[prompt:]), strict=True):
        counter["row"] += (frame.batch - rows_on) * len(part)
        for (acts, phase_holds), columns in Counter(part).items():
            counter["phase" if not phase_holds else "edited" if acts else "schedule"] += rows_on * columns
    return tuple(tuple(counter[name] for name in ("edited", *REASONS)) for counter in counters)


def count_masked(
    frame: Frame,
    factors: Sequence[float],
    open_phase: Sequence[bool],
    *,
    rows: Bool[Tensor, "batch 1"] | None,
    special: Bool[Tensor, "batch token"] | None,
    positions: Bool[Tensor, "#batch token"] | None,
    condition: Bool[Tensor, "batch 1"] | None,
) -> Int64[Tensor, "phase count"]:
    """Counts where masks choose tokens; each mask is True where it leaves a token open."""
    columns, device = len(factors), frame.device
    still_open = torch.ones(frame.batch, columns, dtype=torch.bool, device=device)
    phase = torch.tensor([list(open_phase)], device=device)
    acts = torch.tensor([[bool(factor) for factor in factors]], device=device)
    sums = []
    for mask in (frame.real, rows, phase, acts, special, positions, condition):
        if mask is None:
            sums.append(torch.zeros(columns, dtype=torch.int64, device=device))
            continue
        # A head may be asked for the last columns only.
        mask_columns = mask.to(device)[:, -columns:].expand(still_open.shape)
        sums.append((still_open & ~mask_columns).sum(dim=0))
        still_open = still_open & mask_columns
    prompt = _prompt_columns(frame, columns)
    table = torch.stack([still_open.sum(dim=0), *sums])
    return torch.stack([table[:, :prompt].sum(dim=1), table[:, prompt:].sum(dim=1)])


def _prompt_columns(frame: Frame, columns: int) -> int:
    """How many of the last so many columns are prompt."""
    return max(0, columns - (frame.tokens - frame.prompt_tokens))
