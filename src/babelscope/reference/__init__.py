"""The bundled reference model, corpus and autoencoder: data, and where they are.

Here: data that is shipped, and their places.
Imports: nothing of the toolkit.
"""

from pathlib import Path

MODEL = Path(__file__).parent / "model"
"""A Llama-architecture model of fifteen languages, with its tokenizer and card."""

CORPUS = Path(__file__).parent / "corpus"
"""Folders train, valid and test, each with one <tag>.txt a language; line i means the same in all of them."""

SAE = Path(__file__).parent / "sae"
"""A sparse autoencoder of the reference model's residual stream, in the format of sae-lens, with its card."""

SAE_COARSE = Path(__file__).parent / "sae_coarse"
"""One of few features at the same place, so that few are left for each language."""

WORDS = Path(__file__).parent / "words.tsv"
"""Everyday words in the fifteen languages, a concept a line; written for babelscope, unreviewed by native speakers."""

CIRCUITS = Path(__file__).parent / "circuits.tsv"
"""Pairs of prompts for number agreement, indirect objects and past tense, cut into roles; line i of a task means the
same in all its languages; written for babelscope, unreviewed by native speakers."""

CLOZE = Path(__file__).parent / "cloze.tsv"
"""Sentences with a gap for 44 nouns in six languages, as `babelscope.probes.lens.cloze.read_cloze` describes; written
for babelscope, unreviewed by native speakers."""

FACTS = Path(__file__).parent / "facts.tsv"
"""Facts in the fifteen languages, as `probes.knowledge.read_facts` describes; unreviewed by native speakers."""

PRIMING = Path(__file__).parent / "priming.tsv"
"""Events in the active and the passive, in five languages, as `babelscope.probes.priming.read_stimuli` describes."""
