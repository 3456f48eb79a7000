"""Few-shot translation prompts under the lens: in which language does the right word appear first?"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import langcodes
import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float64, Tensor
from babelscope.controls.bootstrap_draws import draw_items
from babelscope.errors import LanguageError, MeasurementError
from babelscope.languages import Language, language_index, parse_languages
from babelscope.models import check_made_for, layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.lens.prompt_answers import CountedTokens, answer_tokens, read_answers
from babelscope.probes.lens.translators import Translators
from babelscope.probes.lens.word_lists import Words
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.probes.streams import depth_sites
from babelscope.sites import Site

FEWEST = 5
"""Fewer prompts than this are no sample."""
CONTROL = "the words of other concepts"


class WordPrompt(NamedTuple):
    """A few solved cases, and one that lacks the word of a concept."""

    concept: str
    text: str


def translation_prompts(words: Words, *, source: str, target: str, shots: int = 4, seed: int = 0) -> list[WordPrompt]:
    """One prompt a concept that has both words: `shots` lines `Français: "fleur" - 中文: "花"`, then the open one.

    Languages are called by their own names; the shots are drawn anew for each prompt, never the word that is asked for.
    source equal to target: the repetition task, `Français: "fleur" - Français: "fleur"`.
    Raises MeasurementError for too few words.
    Source: Wendler et al. 2024, arXiv:2402.10588.
    """
    source_tag, target_tag = Language.parse(source), Language.parse(target)
    pairs = {
        name: (by_tag[source_tag], by_tag[target_tag])
        for name, by_tag in words.items()
        if source_tag in by_tag and target_tag in by_tag
    }
    if shots < 1 or len(pairs) < shots + 1:
        raise MeasurementError(
            f"{len(pairs)} words in {source_tag} and {target_tag} for {shots} shots; expected a shot, and more "
            "words than shots"
        )
    rng, prompts = random.Random(seed), []
    for name, (word, _) in pairs.items():
        example_pairs = rng.sample([pair for other_name, pair in pairs.items() if other_name != name], shots)
        lines = [
            f'{own_name(source_tag)}: "{source_word}" - {own_name(target_tag)}: "{target_word}"'
            for source_word, target_word in example_pairs
        ]
        prompts.append(
            WordPrompt(name, "\n".join([*lines, f'{own_name(source_tag)}: "{word}" - {own_name(target_tag)}: "']))
        )
    return prompts


def own_name(tag: Language) -> str:
    """What a language calls itself, with a capital where its script has them."""
    name = langcodes.Language.get(tag, normalize=False).autonym()
    return name[:1].upper() + name[1:]


@dataclass(frozen=True, eq=False)
class LatentTranslation:
    """Probability of the right word's first tokens in each language, by depth."""

    __repr__ = shown_by()

    source: Language
    target: Language
    pivot: Language
    languages: tuple[Language, ...]
    """In which the word was looked for."""
    sites: tuple[Site, ...]
    concepts: tuple[str, ...]
    """Asked for, one prompt each."""
    mass: Float64[Tensor, "depth language"]
    """Mean over prompts; a language's tokens count where no other language's word begins with them."""
    low: Float64[Tensor, "depth language"]
    """Ends of the 95 % bootstrap interval over prompts."""
    high: Float64[Tensor, "depth language"]
    null: Float64[Tensor, "depth language"]
    """The same with the words of other concepts: what speaking a language gives without meaning the concept."""
    p: Float64[Tensor, "depth language"]
    """Rank of the mass among those."""
    solved: float
    """Share of prompts that the model itself goes on with the target's word."""
    tuned: bool
    draws: int
    seed: int
    cloze: bool = False
    """Whether a sentence with a gap was to be filled, in the target's language."""

    @property
    def share(self) -> Float64[Tensor, "depth language"]:
        """Mass over that of all languages; sums to 1."""
        return self.mass / self.mass.sum(dim=1, keepdim=True)

    def index(self, language: str) -> int:
        """Place of a language; raises LanguageError if absent."""
        return language_index(language, self.languages, "no word in {tag} was looked for")

    def rows(self) -> list[SiteEvidence]:
        """One row per depth and language of the word."""
        lens = "tuned lens" if self.tuned else "logit lens"
        task = "a repetition" if self.source == self.target else f"a translation from {self.source}"
        task = "a cloze" if self.cloze else task
        return [
            SiteEvidence(
                claim=f"{lens}, right word of {task}, probability",
                language=self.target,
                control=CONTROL,
                n=len(self.concepts),
                estimate=float(self.mass[depth, k]),
                low=float(self.low[depth, k]),
                high=float(self.high[depth, k]),
                p=float(self.p[depth, k]),
                draws=self.draws,
                seed=self.seed,
                note=f"n in prompts, of which the model solves {self.solved:.3f}",
                site=str(site),
                against=tag,
                null=float(self.null[depth, k]),
            )
            for depth, site in enumerate(self.sites)
            for k, tag in enumerate(self.languages)
        ]


def latent_translation(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    words: Words,
    *,
    source: str,
    target: str,
    pivot: str = "en",
    shots: int = 4,
    entries: CountedTokens = "prefixes",
    translators: Translators | None = None,
    draws: int = 99,
    resamples: int = 200,
    seed: int = 0,
) -> LatentTranslation:
    """Where on its way does a translated word appear, and in which language first?

    Each concept is asked for by a prompt of `translation_prompts`; at its last token the lens gives the probability of
    the right word's entries in every language of the list. A concept is kept where both the target's and the pivot's
    word begin with an entry that no other language's does. The control deals the words of other concepts to the
    prompts: a language that is merely spoken gets as much for those.
    Raises LanguageError for a language without words, MeasurementError for fewer than five concepts kept, ArtifactError
    for translators of another model.
    source: the target itself makes the repetition task of the paper, in which the word is to be said again.
    entries: all entries that are a prefix of the word, as published, or its first token alone.
    Source: Wendler et al. 2024, arXiv:2402.10588.
    """
    languages_with(words, (source, target, pivot))
    prompts = translation_prompts(words, source=source, target=target, shots=shots, seed=seed)
    places: dict[str, Any] = {
        "source": source,
        "target": target,
        "pivot": pivot,
        "entries": entries,
        "translators": translators,
    }
    return latent_answers(model, tokenizer, words, prompts, draws=draws, resamples=resamples, seed=seed, **places)


def latent_answers(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    words: Words,
    prompts: Sequence[WordPrompt],
    *,
    source: str,
    target: str,
    pivot: str = "en",
    entries: CountedTokens = "prefixes",
    translators: Translators | None = None,
    draws: int = 99,
    resamples: int = 200,
    seed: int = 0,
    cloze: bool = False,
) -> LatentTranslation:
    """The same of any prompts that are each answered by the word of a concept; see `latent_translation`."""
    layout = layout_of(model)
    if translators is not None:
        check_made_for(translators.origin, model, tokenizer, "translators")
    languages = languages_with(words, (source, target, pivot))
    target_and_pivot = [languages.index(Language.parse(tag)) for tag in (target, pivot)]
    answers = answer_tokens(tokenizer, words, [prompt.concept for prompt in prompts], languages, entries)
    with_both_tokens = answers.member.any(dim=2)[:, target_and_pivot].all(dim=1).nonzero()[:, 0].tolist()
    if len(with_both_tokens) < FEWEST:
        raise MeasurementError(
            f"{len(with_both_tokens)} of {len(prompts)} words have a first token of their own in {target} and {pivot}; "
            f"expected at least {FEWEST}; give more words"
        )
    prompts, member = [prompts[at] for at in with_both_tokens], answers.member[with_both_tokens]
    probability, top = read_answers(
        layout, tokenizer, [prompt.text for prompt in prompts], answers.entries, translators
    )
    target_entries = [answers.entries[row].tolist() for row in member[:, target_and_pivot[0]]]
    # every[p, c]: what prompt p gives to the words of concept c
    mass_by_concept = torch.einsum("pde,cle->pcdl", probability, member.double())
    own_concept_mass = torch.stack([mass_by_concept[at, at] for at in range(len(prompts))])
    generator = torch.Generator().manual_seed(seed)
    resampled = draw_items(len(own_concept_mass), resamples, generator)
    ends = torch.quantile(
        own_concept_mass[resampled].mean(dim=1), torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0
    )
    null_mass = torch.stack([dealt_out(mass_by_concept, generator) for _ in range(draws)])
    mass = own_concept_mass.mean(dim=0)
    return LatentTranslation(
        source=Language.parse(source),
        target=Language.parse(target),
        pivot=Language.parse(pivot),
        languages=languages,
        sites=depth_sites(layout),
        concepts=tuple(prompt.concept for prompt in prompts),
        mass=mass,
        low=ends[0],
        high=ends[1],
        null=null_mass.mean(dim=0),
        p=(1 + (null_mass >= mass).sum(dim=0).double()) / (draws + 1),
        solved=sum(token in target_tokens for token, target_tokens in zip(top, target_entries, strict=True))
        / len(prompts),
        tuned=translators is not None,
        draws=draws,
        seed=seed,
        cloze=cloze,
    )


def languages_with(words: Words, tags: Sequence[str]) -> tuple[Language, ...]:
    """The languages of a list of words; raises LanguageError where some that are asked for are not among them."""
    languages = parse_languages(dict.fromkeys(tag for by_tag in words.values() for tag in by_tag))
    for tag in parse_languages(dict.fromkeys(tags)):
        if tag not in languages:
            raise LanguageError(f"no words in {tag!r} came; expected one of {', '.join(languages)}; add a column")
    return languages


def dealt_out(
    mass_by_concept: Float64[Tensor, "prompt concept depth language"], generator: torch.Generator
) -> Float64[Tensor, "depth language"]:
    """Mean mass where each prompt gets the words of another concept: prompts in random order, each its next one's."""
    order = torch.randperm(len(mass_by_concept), generator=generator)
    return mass_by_concept[order, order.roll(1)].mean(dim=0)
