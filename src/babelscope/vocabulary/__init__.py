"""What a tokenizer does to each language: its cost, its scripts, and what it was trained on."""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.vocabulary.entry_scripts import ScriptEntries, vocabulary_by_script
    from babelscope.vocabulary.merges import PairHistory, replay_merges
    from babelscope.vocabulary.mixture import TrainingShares, infer_training_shares
    from babelscope.vocabulary.premium import TokenCost, TokenCosts, token_costs
    from babelscope.vocabulary.program import Fit, fit_shares

__all__ = [
    "Fit",
    "PairHistory",
    "ScriptEntries",
    "TokenCost",
    "TokenCosts",
    "TrainingShares",
    "fit_shares",
    "infer_training_shares",
    "replay_merges",
    "token_costs",
    "vocabulary_by_script",
]

__getattr__, __dir__ = lazy_names(__name__)
