"""Text of other languages led through an area of layers in the space of one, while a model trains and after it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Operation, SteeringRecipe
from babelscope.artifacts.storage import hash_text
from babelscope.corpus import Corpus
from babelscope.errors import LanguageError, MeasurementError
from babelscope.evaluation import bits_per_byte
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.recording import observe
from babelscope.steering import steer
from babelscope.steering.directions import shift_and_back


@dataclass(frozen=True, eq=False)
class LanguageShift:
    """h + s·(μ_against - μ_X) at the output of the area's first layer, h + s·(μ_X - μ_against) at that of its last one.

    Of text in X; text of `against` and of languages without a mean is left alone. It is the recipe of `shift_and_back`,
    and acts in training by the same hooks as at inference; special tokens and pads are never shifted.
    Source: ShifCon, Zhang et al. 2025, arXiv:2410.19453. Differs: the means are those of the model before the training,
    over tokens, where the authors' code adds up the lengths-one means of the training's own batches.
    """

    model: CausalModel
    tokenizer: PreTrainedTokenizerBase
    against: Language
    layers: tuple[int, int]
    recipes: Mapping[Language, SteeringRecipe]
    """What acts on text of each shifted language."""
    strength: float = 1.0
    means_of: str = "each language"
    """Whose means each language is shifted by."""

    @classmethod
    def of(
        cls,
        model: CausalModel,
        tokenizer: PreTrainedTokenizerBase,
        texts: Corpus,
        *,
        against: str = "en",
        layers: tuple[int, int],
        strength: float = 1.0,
    ) -> "LanguageShift":
        """Means at both layers by one pass over text of all languages, as the model is now.

        Raises MeasurementError for layers that are not there or not in order, LanguageError without `against` or
        another language.
        """
        base, last = Language.parse(against), layout_of(model).n_layers - 1
        if not 0 <= layers[0] < layers[1] <= last:
            raise MeasurementError(
                f"layers {layers[0]} and {layers[1]} came for a shift and its way back; expected two of 0–{last}, the "
                "first one lower; name such layers"
            )
        if base not in texts or len(texts) < 2:
            raise LanguageError(f"text of {', '.join(texts)} came; expected {base} and another language; add text")
        sites = [f"{layer}.resid_out" for layer in layers]
        means = observe(model, tokenizer, texts, sites=sites, tokens_per_language=None, shards=0)
        recipes = {
            tag: shift_and_back(means, source=tag, pivot=base, layers=layers, strength=strength)
            for tag in texts
            if tag != base
        }
        return cls(model, tokenizer, base, layers, recipes, strength)

    def check(self, language: Language, aligned: int) -> None:
        """Raise where text of a language would not be shifted, or a layer is aligned that is not in between."""
        if language not in self.recipes:
            raise LanguageError(
                f"{language} is not shifted; expected it among {', '.join(self.recipes)}; add its translations"
            )
        if not self.layers[0] <= aligned < self.layers[1]:
            raise MeasurementError(
                f"layer {aligned} is to be aligned, and the shift is from layer {self.layers[0]} to {self.layers[1]}; "
                f"expected one of {self.layers[0]}–{self.layers[1] - 1}; name such a layer"
            )

    def crossed(self) -> "LanguageShift":
        """Each language shifted by the means of the next one, in a circle: the control; needs two of them."""
        tags = list(self.recipes)
        if len(tags) < 2:
            raise LanguageError(f"{', '.join(tags)} is shifted alone; expected two languages, to cross their means")
        swapped = dict(zip(tags, [self.recipes[tag] for tag in (*tags[1:], tags[0])], strict=True))
        return replace(self, recipes=swapped, means_of="the next language")

    def over(self, languages: Sequence[Language]) -> AbstractContextManager[Any]:
        """While open, passes over rows of these languages are shifted; one language stands for every number of rows."""
        parts = [self._operations(tag) for tag in languages]
        if not any(parts):
            return nullcontext()
        if len(set(languages)) == 1:
            return steer(self.model, parts[0], tokenizer=self.tokenizer)
        return steer(self.model, rows=[part or None for part in parts], tokenizer=self.tokenizer)

    def _operations(self, language: Language) -> tuple[Operation, ...]:
        # Without an origin: the weights are those of the training under way, and the shift is made for them on purpose.
        recipe = self.recipes.get(language)
        return () if recipe is None else tuple(replace(part, origin=None) for part in recipe.operations)

    def bits_per_byte(self, texts: Corpus) -> dict[Language, float]:
        """Of held-out text, each language's shifted as it is trained."""
        scores: dict[Language, float] = {}
        for tag in texts:
            with self.over((tag,)):
                scores |= bits_per_byte(self.model, self.tokenizer, texts.only([tag]))
        return scores

    def facts(self) -> dict[str, Any]:
        """What decides the shift, as JSON: for fingerprints and cards."""
        vectors = [part.vector for recipe in self.recipes.values() for part in recipe.operations]
        return {
            "against": self.against,
            "layers": list(self.layers),
            "strength": self.strength,
            "languages": list(self.recipes),
            "means_of": self.means_of,
            "means_hash": hash_text(str([vector.tolist() for vector in vectors])),
        }

    def save(self, folder: str | Path) -> None:
        """A SteeringRecipe for each shifted language, in a folder of its name."""
        for tag, recipe in self.recipes.items():
            recipe.save(Path(folder) / str(tag))
