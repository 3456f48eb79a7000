"""Train only a language's subnetwork: its neurons' weights, exactly, and nothing else of the model.

Here: the exact training step on some rows of some weights, and the Delta that it gives.
Imports: artifacts, corpus, evaluation, files, languages, models, progress, runs, sites, upstream.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.subnetworks.applied import active_changes
    from babelscope.subnetworks.bank import BYTES_A_VALUE, Bank
    from babelscope.subnetworks.delta import Delta
    from babelscope.subnetworks.delta_overlap import SharedCells, element_overlap, shared_cells
    from babelscope.subnetworks.dense import Dense, ffn_names, parameter_names
    from babelscope.subnetworks.elements import ElementDelta
    from babelscope.subnetworks.joint_student import JointStudent
    from babelscope.subnetworks.loss import rows_loss
    from babelscope.subnetworks.lottery import lottery_ticket_mask
    from babelscope.subnetworks.packing import Mixture, PackedText, Rows, mix_texts
    from babelscope.subnetworks.ranks import Ranks
    from babelscope.subnetworks.rounding import CastLoss
    from babelscope.subnetworks.running import Training
    from babelscope.subnetworks.schedule import LearningRate
    from babelscope.subnetworks.student_protocol import Student
    from babelscope.subnetworks.students import Subnetwork
    from babelscope.subnetworks.token_rows import TokenRows
    from babelscope.subnetworks.training import RATE, prepare_training, train, train_subnetwork, usual_rate
    from babelscope.subnetworks.training_plan import Plan, Point
    from babelscope.subnetworks.translation_pairs import Contrast, ContrastSteps, ParallelPairs, contrastive_loss

__all__ = [
    "BYTES_A_VALUE",
    "Bank",
    "CastLoss",
    "Contrast",
    "ContrastSteps",
    "ParallelPairs",
    "contrastive_loss",
    "Delta",
    "Dense",
    "ElementDelta",
    "JointStudent",
    "LearningRate",
    "Mixture",
    "SharedCells",
    "PackedText",
    "Plan",
    "Point",
    "RATE",
    "Ranks",
    "Rows",
    "Student",
    "Subnetwork",
    "TokenRows",
    "Training",
    "active_changes",
    "element_overlap",
    "ffn_names",
    "lottery_ticket_mask",
    "mix_texts",
    "shared_cells",
    "parameter_names",
    "rows_loss",
    "train",
    "prepare_training",
    "train_subnetwork",
    "usual_rate",
]

__getattr__, __dir__ = lazy_names(__name__)
