"""Adaptation to a language by each method, on the same text and budget: gain, harm, and where the weights moved.

Here: whole runs that change weights, from text to the folder of a result; the training step itself is in `subnetworks`.
Imports: adapters, artifacts, controls, corpus, evaluation, figures, files, languages, models, probes, progress,
recording, sites, steering, subnetworks, upstream, vocabulary.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.adaptation.adaptation_job import AdaptInputs, open_inputs
    from babelscope.adaptation.adaptation_plan import AdaptationPlan, run_adaptation
    from babelscope.adaptation.adaptation_run import Adaptation, BeforeAfter, adapt, choose_rate
    from babelscope.adaptation.alignment_job import AlignmentPlan
    from babelscope.adaptation.expert_controls import ExpertStudy, expert_study
    from babelscope.adaptation.expert_conversion import LateExperts, late_experts
    from babelscope.adaptation.family_experts import language_families, train_families
    from babelscope.adaptation.lottery_ticket import LotteryTicket, ticket_names
    from babelscope.adaptation.material import Material
    from babelscope.adaptation.methods import (
        METHODS,
        OF_NEURONS,
        Method,
        build_student,
        random_like,
        strongest,
    )
    from babelscope.adaptation.ruler import Ruler
    from babelscope.adaptation.source_choice import SourceChoice, choose_sources
    from babelscope.adaptation.source_shield import SourceShield
    from babelscope.adaptation.transfer_runs import TransferMatrix, transfer_matrix
    from babelscope.adaptation.vocabulary_training import TrainedVocabulary, train_vocabulary

__all__ = [
    "METHODS",
    "OF_NEURONS",
    "AdaptInputs",
    "Adaptation",
    "AdaptationPlan",
    "AlignmentPlan",
    "BeforeAfter",
    "ExpertStudy",
    "LateExperts",
    "LotteryTicket",
    "Material",
    "Method",
    "Ruler",
    "SourceChoice",
    "SourceShield",
    "TrainedVocabulary",
    "TransferMatrix",
    "adapt",
    "build_student",
    "choose_rate",
    "choose_sources",
    "expert_study",
    "language_families",
    "late_experts",
    "open_inputs",
    "random_like",
    "run_adaptation",
    "strongest",
    "ticket_names",
    "train_families",
    "train_vocabulary",
    "transfer_matrix",
]

__getattr__, __dir__ = lazy_names(__name__)
