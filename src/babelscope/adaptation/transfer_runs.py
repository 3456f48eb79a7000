"""Train on one language, measure on every other: which language helps which."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from babelscope.adaptation.adaptation_run import adapt
from babelscope.adaptation.material import Material
from babelscope.adaptation.methods import Method, usual_rate_of
from babelscope.artifacts import NeuronSet
from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Float64
from babelscope.corpus import Corpus, check_apart
from babelscope.errors import LanguageError, MeasurementError
from babelscope.files.work_log import hash_of, piece_of_work
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.progress import never, progress_bar
from babelscope.subnetworks import ffn_names

FEWEST = 4
"""Languages below which sources cannot be ranked."""


@dataclass(frozen=True, eq=False)
class TransferMatrix:
    """What training on each language gave every language."""

    __repr__ = shown_by()

    languages: tuple[Language, ...]
    """Sources in rows, targets in columns."""
    before: Float64[np.ndarray, " target"]
    """Bits per byte of the untouched model on test text."""
    after: Float64[np.ndarray, "seed source target"]
    """The same, after training on the source."""
    method: Method
    steps: int
    learning_rate: float
    moved_by: Float64[np.ndarray, "seed source target layer"] | None = None
    """1 - `Adaptation.similarity` of the target, after training on the source."""

    @property
    def gains(self) -> Float64[np.ndarray, "seed source target"]:
        """Bits per byte that the target's test text lost: above 0 is better."""
        return self.before - self.after

    @property
    def gain(self) -> Float64[np.ndarray, "source target"]:
        """Mean over seeds."""
        return self.gains.mean(axis=0)

    @property
    def learnt(self) -> Bool[np.ndarray, " source"]:
        """Whether training on the source changed anything, in every seed: not where the untouched model was best."""
        return (self.after != self.before).any(axis=2).all(axis=0)


def transfer_matrix(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Mapping[str, Corpus],
    *,
    steps: int,
    learning_rate: float | None = None,
    method: Method = "ffn",
    neurons: NeuronSet | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    train_documents: int | None = None,
    tokens_per_step: int = 2048,
    max_length: int = 256,
    progress: bool = False,
    stop: Callable[[], bool] = never,
) -> TransferMatrix:
    """Adapt the model to each language in turn, with equal text and steps, and measure all; the model stays as it was.

    texts: corpora "train", "valid" and "test", with the same four or more languages. The best step is chosen on the
    source's own valid text, as whoever has no text of the target would; where that is the untouched model, the row is
    0, and `learnt` is False.
    learning_rate: peak of AdamW; None: `usual_rate_of` the MLPs' weights.
    neurons: of the methods of neurons, a set with every language. seeds: the order of the text, and random neurons.
    train_documents: of each language at most, so that no source has more text than another; None takes all.
    Raises LanguageError for too few or unlike languages, MeasurementError for no seed, CorpusError where text is
    trained on and scored on.
    """
    languages = tuple(texts["train"])
    unlike = [name for name in ("valid", "test") if set(texts[name]) != set(languages)]
    if len(languages) < FEWEST or unlike:
        raise LanguageError(
            f"train text in {', '.join(languages)}"
            + "".join(f", {name} text in {', '.join(texts[name])}" for name in unlike)
            + f" came; expected the same {FEWEST} languages or more in train, valid and test; add text or name others"
        )
    if not seeds:
        raise MeasurementError("no seed came; expected at least one; give seeds")
    check_apart(texts, name=texts["train"].name)
    rate = learning_rate
    if rate is None:
        layout = layout_of(model)
        rate = usual_rate_of(map(layout.model.get_parameter, ffn_names(layout)), method)
    settings: dict[str, Any] = {
        "steps": steps,
        "learning_rate": rate,
        "tokens_per_step": tokens_per_step,
        "evaluate_every": max(1, steps // 3),
        "trail_every": 10**9,
    }
    before: dict[Language, float] = {}
    rows = np.zeros((len(seeds), len(languages), len(languages)))
    changes = np.zeros((*rows.shape, layout_of(model).n_layers))

    def row(source: Language, seed: int) -> list[dict[Language, Any]]:
        material = Material.prepare(
            model,
            tokenizer,
            language=source,
            documents=texts["train"][source][:train_documents],
            dev=texts["valid"][source],
            test=texts["test"],
            max_length=max_length,
            seed=seed,
        )
        of_source = None if neurons is None else neurons.only([source])
        result = adapt(material, method, neurons=of_source, seed=seed, stop=stop, **settings)
        changed = {tag: (1 - cosine).tolist() for tag, cosine in result.similarity.items()}
        return [dict(result.before), dict(result.after), changed]

    with progress_bar(total=rows[..., 0].size, unit="run", desc="transfer", shown=progress) as bar:
        for k, seed in enumerate(seeds):
            for i, source in enumerate(languages):
                key = partial(hash_of, f"transfer {method} {source} {seed} {settings}")
                scores = piece_of_work(key, partial(row, source, seed))
                before = scores[0]
                rows[k, i] = [scores[1][target] for target in languages]
                changes[k, i] = [scores[2][target] for target in languages]
                bar.update()
    start = np.array([before[target] for target in languages])
    return TransferMatrix(languages, start, rows, method, steps, rate, changes)
