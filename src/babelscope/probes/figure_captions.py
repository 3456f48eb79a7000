"""What each figure of a probe says of itself, by probe and name of the figure."""

from babelscope.errors import MeasurementError
from babelscope.figures import FigureCaption

DEPTH = "Across: depth in the model, from the embeddings to the last layer."
PAIRS = f"{DEPTH} A row per language. In brackets where p over shuffled pairs is above .05."
INDEX = "By depth, how alike the same sentences are in two languages"

CAPTIONS = {
    "lens/lines": FigureCaption(
        "The language of the lens, by depth",
        f"The stream is read by the model's own output at every depth. {DEPTH} Above: how much of the probability of "
        "listed tokens is of which language; the control deals the tokens out at random. Below: how undecided that "
        "prediction is, and how far from the last one.",
    ),
    "lens/own": FigureCaption(
        "When the text's own language comes up",
        f"Share of the probability of listed tokens that the text's own language has at each depth. {DEPTH}",
    ),
    "lens/leading": FigureCaption(
        "The leading other language at each depth",
        "Which language but the text's own has most of the probability of listed tokens, and how much of it. "
        f"{DEPTH} A row per language of the text.",
    ),
    "lens/translations": FigureCaption(
        "Words asked for in another language, by depth",
        f"The model is asked to translate a word. {DEPTH} Probability of the right word in the language asked for, and "
        "of the same word in the compared language; the control is words of other concepts.",
    ),
    "lens/repetitions": FigureCaption(
        "Words to be repeated, by depth",
        f"The model is asked to repeat a word. {DEPTH} Probability of the right word in its language, and of the same "
        "word in the compared language; the control is words of other concepts.",
    ),
    "lens/cloze": FigureCaption(
        "Words that fill a gap, by depth",
        f"The model is asked for the word that a sentence lacks. {DEPTH} Probability of the right word in its "
        "language, and of the same word in the compared language; the control is words of other concepts.",
    ),
    "embeddings/pairs": FigureCaption(
        "Scripts that a line tells apart",
        "Mean accuracy of a line between the embeddings of one script and each other script, on held-out entries; "
        "the mark is chance, labels shuffled.",
    ),
    "embeddings/separability": FigureCaption(
        "Languages and scripts in the embeddings",
        "Mean recall of a linear probe on held-out entries of the vocabulary, with its interval; the mark is chance, "
        "labels shuffled.",
    ),
    "embeddings/neighbours": FigureCaption(
        "Scripts of the nearest entries",
        "How many of an entry's nearest entries are of its own script, with the interval; the mark is chance, the "
        "script's share of all entries.",
    ),
    "alignment/mexa": FigureCaption(
        "Translations that are nearest to each other (MEXA)",
        f"Share of sentences that are nearer to their translation than to any other sentence, both ways. {PAIRS}",
    ),
    "alignment/mexa_last": FigureCaption(
        "Translations that are nearest, by the last token",
        "Share of sentences whose last token's vector is nearer to that of their translation than to any other, both "
        f"ways. {PAIRS}",
    ),
    "alignment/cka": FigureCaption("Alike by centred kernels (CKA)", f"{INDEX}, by linear CKA. {PAIRS}"),
    "alignment/cosine": FigureCaption("Alike by direction", f"{INDEX}: the mean cosine of translations. {PAIRS}"),
    "alignment/svcca": FigureCaption("Alike in principal directions (SVCCA)", f"{INDEX}, by SVCCA. {PAIRS}"),
    "alignment/pwcca": FigureCaption("Alike by weighted correlations (PWCCA)", f"{INDEX}, by PWCCA. {PAIRS}"),
    "alignment/anc": FigureCaption(
        "Alike neuron by neuron (ANC)", f"{INDEX}: the mean correlation of neurons. {PAIRS}"
    ),
    "alignment/matching": FigureCaption(
        "Translations found", f"Share of sentences whose nearest in the other language is their translation. {PAIRS}"
    ),
    "alignment/matching_centred": FigureCaption(
        "Translations found, each language around its mean",
        f"The same after each language's mean is taken off. {PAIRS}",
    ),
    "alignment/matching_procrustes": FigureCaption(
        "Translations found after a turn",
        f"The same after one language is turned onto the other, learnt on other sentences. {PAIRS}",
    ),
    "alignment/mexa-mean": FigureCaption(
        "MEXA of each language, mean over depths",
        "One score per language, with its interval over sentences; the control has the pairs shuffled.",
    ),
    "alignment/mexa-max": FigureCaption(
        "MEXA of each language, best depth",
        "One score per language, with its interval over sentences; the control has the pairs shuffled.",
    ),
    "language-id/accuracy": FigureCaption(
        "Where the language can be read off",
        f"Accuracy of a linear classifier of languages on other sentences, with intervals. {DEPTH} The control has "
        "labels shuffled.",
    ),
    "trees/tests": FigureCaption(
        "Do related languages lie nearer?",
        f"Rank correlation of the similarity of languages with being of one family, and of one script. {DEPTH} Below: "
        "p over languages that change places. The dashed line is what script alone would give.",
    ),
    "trees/tree": FigureCaption(
        "The tree of languages",
        "Languages joined by the similarity of their translations at the depth where families show most. Colours are "
        "families.",
    ),
    "subspaces/split": FigureCaption(
        "Language and content in the stream",
        f"{DEPTH} Share of variance that is of language and of content; how well the language can be read off, and "
        "translations found, with the language subspace taken out. The control takes out a random one of equal rank.",
    ),
    "heads/map": FigureCaption(
        "Heads by language",
        "How much of a head's writing a language has, over an even share: 0 is even, 1 twice as much. A row per "
        "language, a column per head (layer.head). Outlined: heads chosen on other text and switched off.",
    ),
    "heads/harm": FigureCaption(
        "What breaks without a language's heads",
        "Rise of the loss on the own text with the chosen heads off, with its interval; the small marks are other "
        "heads of the same layers, as many.",
    ),
    "heads/sink": FigureCaption(
        "Attention on the first token", "How much attention goes to the first token, by layer and language of the text."
    ),
    "heads/evenness": FigureCaption(
        "How even attention is",
        "Entropy of the attention over its largest possible value, by layer and language of the text.",
    ),
    "circuits/heads": FigureCaption(
        "Heads that carry the answer",
        "Effect of putting a head's output of the right prompt into the wrong one, as a share of the whole difference; "
        "a row per task and language.",
    ),
    "circuits/routes": FigureCaption(
        "Heads on the routes to the last token",
        "Of the importance of all heads' edges on the routes back from the last token, what each head has; a row per "
        "task and language.",
    ),
    "routing/divergence": FigureCaption(
        "Experts by language",
        "How far the use of experts differs from that of the compared language, by layer, in bits. In brackets where "
        "q over documents that change languages is above .05.",
    ),
    "routing/translations": FigureCaption(
        "Experts of translations",
        "How far the experts of a sentence differ from those of its translation, by layer, in bits. In brackets "
        "where p against unrelated sentences is above .05.",
    ),
    "routing/entropy": FigureCaption(
        "How spread routing is", "Entropy of the router's weights per token, by layer and language."
    ),
    "routing/consistency": FigureCaption(
        "How steady routing is", "How often the tokens of a sentence go to the same experts, by layer and language."
    ),
    "removal/removal": FigureCaption(
        "What breaks without a language's neurons, by structure",
        "Rise of the loss on the own text and on other text with the neurons of one structure off in a block of "
        "layers.",
    ),
    "roles/profile": FigureCaption(
        "Roles of neurons by layer",
        "Share of neurons that serve one language, some, or all, by layer. The lines divide the model where the shares "
        "change.",
    ),
    "roles/roles": FigureCaption(
        "Roles of the selected neurons",
        "Of the neurons that the rule selects, the share of each role by part of the model, beside labels shuffled.",
    ),
    "roles/roles_above_bar": FigureCaption(
        "Roles of all active neurons",
        "Of all neurons above the bar of activity, the share of each role by part of the model, beside labels "
        "shuffled.",
    ),
    "specialization/overlap": FigureCaption(
        "Do related languages share neurons?",
        "Overlap of the neurons that carry most of two languages' activity, by layer, and its correlation with how "
        "near the languages are.",
    ),
    "values/keys": FigureCaption(
        "Neurons that write a concept, and the languages that they answer to",
        "Mean activation on text of the concept less that on other text, over the largest of the neuron: a row per "
        "language, a column per neuron (layer.neuron). Outlined where p over shuffled labels is .05 or less and the "
        "difference above zero.",
    ),
    "values/dose": FigureCaption(
        "The concept under a dose",
        "How much the concept's score rises as the neurons are pushed up, by language, beside random neurons of the "
        "same layers.",
    ),
    "concepts/detectors": FigureCaption(
        "Detectors of a concept",
        "Average precision of the best neuron of each layer for text with the concept, by language, on the text that "
        "they were chosen on.",
    ),
    "concepts/overlap": FigureCaption(
        "Detectors that languages share", "Share of the best detectors that two languages have in common."
    ),
    "checkpoints/history": FigureCaption(
        "Roles over training, of the selected neurons",
        "Share of selected neurons of each role at each checkpoint, beside labels shuffled; and how many of the sets "
        "are those of the last checkpoint.",
    ),
    "checkpoints/history_above_bar": FigureCaption(
        "Roles over training, of all active neurons",
        "Share of all neurons above the bar of activity, by role, at each checkpoint, beside labels shuffled.",
    ),
    "checkpoints/working": FigureCaption(
        "Working language of each layer at a checkpoint",
        f"Which language the lens reads at each depth, and how much of the probability it has. {DEPTH}",
    ),
    "tokenizer/premium": FigureCaption(
        "What the tokenizer costs each language",
        "Tokens of the same sentences over those of the compared language, with the interval; characters and bytes "
        "beside them say how much of it is the script.",
    ),
    "tokenizer/training-shares": FigureCaption(
        "Languages in the tokenizer's training text",
        "Share of each language, from the order of the merges, with its interval. The dashed line is what a language "
        "that cannot be there would get; a tokenizer that allows no answer says so.",
    ),
    "tokenizer/overlap": FigureCaption(
        "Tokens that languages share",
        "Jensen–Shannon divergence of the tokens of two languages: 0 is the same use, 1 is none in common.",
    ),
}
"""By `probe/figure`; a figure of which there are several ends in a dash and which one it is."""


def caption_of(probe: str, figure: str) -> FigureCaption:
    """What a figure says of itself; of several of a kind, with which one it is in the title.

    Raises MeasurementError for a figure that nothing is written of.
    """
    name = f"{probe}/{figure}"
    if name in CAPTIONS:
        return CAPTIONS[name]
    kind, _, which = name.partition("-") if "-" not in probe else (name, "", "")
    if which and kind in CAPTIONS:
        caption = CAPTIONS[kind]
        return caption._replace(title=f"{caption.title}: {which.replace('_', ' ')}")
    raise MeasurementError(f"figure {name}: no caption of it; expected one of {', '.join(CAPTIONS)}; write it")
