"""What the stages of the demo made, handed on whole."""

from typing import NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from babelscope.ablation import AblationTable
from babelscope.ablation.matrix import TopRateChoice
from babelscope.artifacts import NeuronSet, Observation
from babelscope.corpus import Corpus
from babelscope.identification import ScriptControl, SetChecks
from babelscope.sweeps import NeuronSteering, SteeringStudy


class Findings(NamedTuple):
    """What the stages made."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    texts: dict[str, Corpus]
    observation: Observation
    choice: TopRateChoice
    sets: NeuronSet
    checks: SetChecks
    script: ScriptControl
    ablation: AblationTable
    ablation_to_mean: AblationTable
    steering: SteeringStudy
    arithmetic: NeuronSteering
