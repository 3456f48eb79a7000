"""The probes by name, where each is, and which inputs it reads; nothing else is imported to look here."""

from typing import NamedTuple


class ProbeEntry(NamedTuple):
    """One probe: its function, and the inputs of a `ProbeJob` that its result depends on."""

    module: str
    """Module below `babelscope.probes`."""
    function: str
    """Its function there, from a ProbeJob to Findings."""
    reads: frozenset[str]
    """Of texts, others, sentences, against, words, cloze, translators, checkpoints, task_scores and concept."""
    needs: frozenset[str]
    """Of parallel (the sentences of its text are translations) and against (there is text in that language)."""


def _entry(module: str, function: str, reads: str, needs: str = "") -> ProbeEntry:
    return ProbeEntry(module, function, frozenset(reads.split()), frozenset(needs.split()))


PROBES = {
    "lens": _entry("lens.lens_findings", "probe_lens", "texts others against words translators cloze"),
    "embeddings": _entry("geometry.sentence_findings", "probe_embeddings", "others words"),
    "alignment": _entry(
        "geometry.sentence_findings", "probe_alignment", "texts sentences against task_scores", "parallel against"
    ),
    "language-id": _entry("geometry.sentence_findings", "probe_language_id", "texts sentences", "parallel"),
    "trees": _entry("geometry.sentence_findings", "probe_trees", "texts sentences", "parallel"),
    "subspaces": _entry("geometry.sentence_findings", "probe_subspaces", "texts sentences", "parallel"),
    "heads": _entry("units.unit_findings", "probe_heads", "texts others against", "against"),
    "circuits": _entry("circuits.circuit_findings", "probe_circuits", ""),
    "routing": _entry("units.unit_findings", "probe_routing", "texts sentences against", "against"),
    "removal": _entry("units.unit_findings", "probe_removal", "texts others"),
    "roles": _entry("units.unit_findings", "probe_roles", "others"),
    "specialization": _entry("units.unit_findings", "probe_specialization", "others"),
    "values": _entry("concepts.value_findings", "probe_values", "texts others against concept", "against"),
    "concepts": _entry("concepts.concept_findings", "probe_concepts", "texts others concept checkpoints"),
    "checkpoints": _entry("units.unit_findings", "probe_checkpoints", "texts others words checkpoints"),
    "tokenizer": _entry("units.unit_findings", "probe_tokenizer", "texts others against", "parallel against"),
}
"""A probe is a line here."""


def readers_of(part: str) -> tuple[str, ...]:
    """The probes that read an input."""
    return tuple(name for name, entry in PROBES.items() if part in entry.reads)
