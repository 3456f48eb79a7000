"""Train only a language's subnetwork: its neurons' weights, exactly, and nothing else of the model."""

from babelscope.subnetworks.bank import BYTES_A_VALUE, Bank
from babelscope.subnetworks.delta import Delta
from babelscope.subnetworks.dense import Dense, ffn_names, parameter_names
from babelscope.subnetworks.loss import rows_loss
from babelscope.subnetworks.packing import Mixture, PackedText, Rows, mix_texts
from babelscope.subnetworks.running import Plan, Point, Student, Training
from babelscope.subnetworks.schedule import LearningRate
from babelscope.subnetworks.students import Subnetwork
from babelscope.subnetworks.training import train, train_subnetwork

__all__ = [
    "BYTES_A_VALUE",
    "Bank",
    "Delta",
    "Dense",
    "LearningRate",
    "Mixture",
    "PackedText",
    "Plan",
    "Point",
    "Rows",
    "Student",
    "Subnetwork",
    "Training",
    "ffn_names",
    "mix_texts",
    "parameter_names",
    "rows_loss",
    "train",
    "train_subnetwork",
]
