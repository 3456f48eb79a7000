"""The control of patching: for each pair a prompt that cannot carry this pair's answer."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from babelscope.errors import MeasurementError
from babelscope.probes.circuits.prompt_pairs import TokenPair, groups_of

PairSide = Literal["clean", "corrupt"]


class Donor(NamedTuple):
    """A prompt of another pair."""

    row: int
    """Of the pair."""
    kind: PairSide


def donors_of(pairs: Sequence[TokenPair], giver: PairSide, group: str, seed: int) -> list[Donor | None]:
    """For each pair the prompt to patch from in the control; None for a pair that lacks the group or has no such one.

    By construction it is not what the effect is measured with: its tokens differ from both prompts of the pair, also
    up to the last position that is patched, and it is not continued by the token that the giver is. Of those that are
    left, first prompts of the giver's kind that are continued by neither answer nor foil, then those of the other kind;
    among these first those as long as the giver, then in an order drawn by `seed`.
    Raises MeasurementError at the last position where a pair has none.
    """
    rng = np.random.default_rng(seed)
    control_donors = list[Donor | None]()
    for row, pair in enumerate(pairs):
        places = groups_of(pair).get(group)
        order = [int(other_row) for other_row in rng.permutation(len(pairs)) if other_row != row]
        donors = sorted(candidates(pairs, row, order, giver), key=lambda candidate: rank(pairs, row, candidate, giver))
        allowed = (
            candidate for candidate in donors if places is not None and differs(pairs, row, candidate, giver, group)
        )
        donor = next(allowed, None)
        if donor is None and group == "last":
            raise MeasurementError(
                f"pair {row} of {len(pairs)} has no other prompt to patch from as a control; expected one with other "
                "tokens that is continued by another token; add pairs with other prompts and answers"
            )
        control_donors.append(donor)
    return control_donors


def alike_donors(pairs: Sequence[TokenPair], taker: PairSide, group: str, seed: int) -> list[Donor | None]:
    """For each pair the next one's prompt of the side that is patched into, in an order drawn by `seed`.

    None for a pair that lacks the group, and where that prompt is one of this pair's own.
    """
    order = np.random.default_rng(seed).permutation(len(pairs)).tolist()
    after = dict(zip(order, [*order[1:], order[0]], strict=True))
    donors = list[Donor | None]()
    for row, pair in enumerate(pairs):
        donor = Donor(after[row], taker)
        usable = group in groups_of(pair) and prompt_of(pairs, donor) not in (pair.clean, pair.corrupt)
        donors.append(donor if usable else None)
    return donors


def prompt_of(pairs: Sequence[TokenPair], donor: Donor) -> tuple[int, ...]:
    """Its tokens."""
    pair = pairs[donor.row]
    return pair.clean if donor.kind == "clean" else pair.corrupt


def continued_by(pair: TokenPair, kind: PairSide) -> int:
    """The token that the clean prompt (the answer) or the corrupt one (the foil) is continued by."""
    return pair.answer if kind == "clean" else pair.foil


def candidates(pairs: Sequence[TokenPair], row: int, order: Sequence[int], giver: PairSide) -> Iterator[Donor]:
    """Prompts of other pairs that are not continued as the giver is, and are neither prompt of this pair."""
    kinds: tuple[PairSide, PairSide] = ("clean", "corrupt")
    pair = pairs[row]
    for other_row in order:
        for kind in kinds:
            donor = Donor(other_row, kind)
            if continued_by(pairs[other_row], kind) != continued_by(pair, giver) and prompt_of(pairs, donor) not in (
                pair.clean,
                pair.corrupt,
            ):
                yield donor


def rank(pairs: Sequence[TokenPair], row: int, donor: Donor, giver: PairSide) -> tuple[bool, bool]:
    """Smaller is better."""
    pair = pairs[row]
    alike = donor.kind == giver and continued_by(pairs[donor.row], donor.kind) not in (pair.answer, pair.foil)
    return not alike, len(prompt_of(pairs, donor)) != len(prompt_of(pairs, Donor(row, giver)))


def differs(pairs: Sequence[TokenPair], row: int, donor: Donor, giver: PairSide, group: str) -> bool:
    """Whether the donor's tokens up to the last patched position differ from those of both prompts of the pair."""
    if group == "last":
        return True
    places = groups_of(pairs[row])[group][0]
    ids, end = prompt_of(pairs, donor), max(places) + 1
    return all(ids[:end] != prompt[:end] for prompt in (pairs[row].clean, pairs[row].corrupt))
