"""The model and text that every method of a comparison is given alike."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from babelscope.corpus import Document, Texts, as_corpus, check_apart
from babelscope.errors import CorpusError
from babelscope.evaluation import HeldOut, document_losses
from babelscope.languages import Language
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.progress import with_progress
from babelscope.subnetworks import Mixture, mix_texts
from babelscope.subnetworks.row_steering import RowSteering, rows_with


@dataclass(frozen=True)
class Material:
    """What every method of a comparison is given alike."""

    model: CausalModel
    tokenizer: PreTrainedTokenizerBase
    language: Language
    mixture: Mixture
    dev: HeldOut
    """Held-out text of the target, for learning rates and early stops."""
    test: tuple[HeldOut, ...]
    """Held-out text of all languages, the target among them."""

    @classmethod
    def prepare(
        cls,
        model: CausalModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        language: str,
        documents: Sequence[str | Document],
        dev: Sequence[str | Document],
        test: Texts,
        replay: Texts | None = None,
        replay_share: float = 0.0,
        max_length: int = 256,
        seed: int = 0,
        same_text: bool = False,
    ) -> "Material":
        """Tokenize and pack everything once.

        same_text: allow two of the target's `documents`, `dev` and `test` to be the same text, and `replay` and `test`.
        Raises CorpusError where the target has no test text, and where what is trained or chosen on is scored on too.
        """
        tag = Language.parse(language)
        texts_by_use = {"documents": {tag: documents}, "dev": {tag: dev}, "test": test}
        check_apart({name: as_corpus(text) for name, text in texts_by_use.items()}, name=f"{tag}", same_text=same_text)
        if replay is not None:
            # Harm is what the others' test text loses: replayed, it would gain.
            texts_by_use = {"replay": as_corpus(replay), "test": as_corpus(test)}
            check_apart(texts_by_use, name=f"replay of {tag}", same_text=same_text)
        test_length = text_length(layout_of(model), None)
        test_sets = tuple(HeldOut.prepare(tokenizer, test, max_length=test_length))
        if tag not in [test_set.language for test_set in test_sets]:
            raise CorpusError(f"no test text of {tag}; expected it among the others'; add it")
        mixture = mix_texts(
            tokenizer,
            tag,
            documents,
            replay,
            share=replay_share,
            length=max_length,
            seed=seed,
            model_type=model.config.model_type,
        )
        (dev_set,) = HeldOut.prepare(tokenizer, {tag: dev}, max_length=test_length)
        return cls(model, tokenizer, tag, mixture, dev_set, test_sets)

    def reseeded(self, seed: int) -> "Material":
        """The same texts in another order."""
        old = self.mixture
        target = replace(old.target, seed=seed)
        replay = [replace(text, seed=seed + 7919 * (i + 1)) for i, text in enumerate(old.replay)]
        return replace(self, mixture=Mixture(target, replay, old.share))

    def scores(
        self, layout: Layout, steering: RowSteering | None = None, *, progress: bool = False
    ) -> dict[Language, float]:
        """Bits per byte of every test language, by the model as it is now, each with what acts on its rows."""
        by_language: dict[Language, float] = {}
        for test_set in with_progress(self.test, unit="language", desc="test text", shown=progress):
            with rows_with(steering, (test_set.language,)):
                by_language[test_set.language] = document_losses(layout, test_set).bits_per_byte
        return by_language
