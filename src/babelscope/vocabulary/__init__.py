"""What a tokenizer does to each language: its cost, its scripts, what it was trained on, and other vocabularies.

Here: measures of tokenizers, and other vocabularies for a model; training new rows is in `adaptation`.
Imports: artifacts, controls, corpus, files, languages, models, progress, upstream.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.vocabulary.allocation import VocabularyAllocation, vocabulary_allocation
    from babelscope.vocabulary.carried_rows import carry_vocabulary
    from babelscope.vocabulary.entry_scripts import ScriptEntries, scripts_of_entries, vocabulary_by_script
    from babelscope.vocabulary.extension import extend_vocabulary
    from babelscope.vocabulary.merges import PairHistory, replay_merges
    from babelscope.vocabulary.mixture import TrainingShares, infer_training_shares
    from babelscope.vocabulary.pack import VocabularyPack
    from babelscope.vocabulary.premium import TokenCost, TokenCosts, token_costs
    from babelscope.vocabulary.program import Fit, fit_shares
    from babelscope.vocabulary.replacement import replace_vocabulary
    from babelscope.vocabulary.trimming import trim_vocabulary

__all__ = [
    "Fit",
    "PairHistory",
    "ScriptEntries",
    "TokenCost",
    "TokenCosts",
    "TrainingShares",
    "VocabularyAllocation",
    "VocabularyPack",
    "carry_vocabulary",
    "extend_vocabulary",
    "fit_shares",
    "infer_training_shares",
    "replace_vocabulary",
    "replay_merges",
    "token_costs",
    "trim_vocabulary",
    "scripts_of_entries",
    "vocabulary_allocation",
    "vocabulary_by_script",
]

__getattr__, __dir__ = lazy_names(__name__)
