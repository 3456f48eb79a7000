"""What every stage of the main job is given."""

from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from babelscope.corpus import Corpus
from babelscope.models.plain import CausalModel
from babelscope.steering.sweeps import ChatPrompts
from babelscope.study.budget import PlannedBudget


class StudyInputs(NamedTuple):
    """What every stage is given."""

    model: CausalModel
    tokenizer: PreTrainedTokenizerBase
    texts: dict[str, Corpus]
    """By split."""
    budget: PlannedBudget
    folder: Path
    seed: int
    progress: bool
    same_text: bool = False
    """Whether one text for what is observed, chosen on and scored was asked for."""
    chat: ChatPrompts | None = None
    """How prompts are put to a chat model; None continues plain text."""
