"""The verbs, where each lives, and one line about it; nothing is imported for `babelscope --help`."""

from collections.abc import Sequence
from typing import NamedTuple


class Verb(NamedTuple):
    """One verb of the command line."""

    module: str
    """File of `babelscope.cli`."""
    function: str
    """Its function there, whose parameters are the flags."""
    help: str
    may_open_model: bool = True
    """Whether it can come to open a model, and so to load transformers."""
    over_ranks: bool = False
    """Whether processes that a launcher started together share its work."""


VERBS = {
    "demo": Verb("studying", "run_demonstration", "the main job on the bundled model and corpus, with a report"),
    "study": Verb("studying", "run_whole_study", "the main job on your model and text; resumable"),
    "observe": Verb(
        "observing", "run_observe", "one pass of labelled text through a model, into counts", over_ranks=True
    ),
    "merge": Verb("observing", "run_merge", "add observations of several machines or texts", may_open_model=False),
    "identify": Verb(
        "selecting",
        "run_identify",
        "which neurons belong to which language, with controls and intervals",
        may_open_model=False,
    ),
    "direct": Verb("selecting", "run_direct", "the direction from one language to another", may_open_model=False),
    "ablate": Verb("ablating", "run_ablate", "what breaks when a language's neurons are off, with matched controls"),
    "fallback": Verb("ablating", "run_fallback", "which language comes out when the neurons of more and more are off"),
    "show": Verb(
        "showing", "run_show", "the neurons or features of a language by name: when they fire, what they write"
    ),
    "probe": Verb("probing", "run_probe", "lens, embeddings, alignment, trees, subspaces and more, with controls"),
    "knowledge": Verb("knowing", "run_knowledge", "which facts a model knows in which language, with controls"),
    "consistency": Verb(
        "asking_alike", "run_consistency", "the same questions in many languages: alike, right, by vote"
    ),
    "edit": Verb("editing_facts", "run_edit", "edit facts in one language, and ask about them in all others"),
    "priming": Verb("knowing", "run_priming", "whether a structure in one language primes it in another"),
    "features": Verb("featuring", "run_features", "which features of a sparse autoencoder belong to which language"),
    "steer": Verb("answering", "run_steer", "answer prompts under steering, or measure the dose–response with --sweep"),
    "play": Verb("playing", "run_play", "a page on this machine: plain and steered answers side by side, sliders"),
    "serve": Verb("serving", "run_serve", "an OpenAI-compatible server: the model plain, and steered by name"),
    "adapt": Verb(
        "adapting", "run_adapt", "train a language's neurons on its text, or a baseline beside them", over_ranks=True
    ),
    "transfer": Verb(
        "transferring",
        "run_transfer",
        "which language helps which: train on each, measure all, choose sources by nearness",
    ),
    "experts": Verb(
        "giving_experts", "run_experts", "the last layers as experts of language families, trained beside controls"
    ),
    "influence": Verb("influencing", "run_influence", "which training text, in which language, makes it say something"),
    "subtract": Verb(
        "subtracting",
        "run_subtract",
        "a task's change of the weights without that of general text",
        may_open_model=False,
    ),
    "export": Verb("exporting", "run_export", "trained neurons or steering as a checkpoint, adapter or GGUF file"),
    "vocabulary trim": Verb("vocabularies", "run_trim", "cut a model's vocabulary to what some languages use"),
    "vocabulary extend": Verb("vocabularies", "run_extend", "add entries, so that a language takes fewer tokens"),
    "vocabulary replace": Verb("vocabularies", "run_replace", "a tokenizer trained on a text in the model's place"),
    "vocabulary train": Verb("training_rows", "run_train", "train new rows, alone or with a language's neurons"),
    "vocabulary carry": Verb("carrying", "run_carry", "rows trained on a base for a model tuned from it"),
    "vocabulary apply": Verb("vocabularies", "run_apply", "a model with another vocabulary as a checkpoint"),
    "evaluate perplexity": Verb("evaluating", "run_perplexity", "held-out bits per byte by language"),
    "evaluate confusion": Verb("evaluating", "run_confusion", "language confusion of a model's answers, or of files"),
    "evaluate steering": Verb("evaluating", "run_steering_score", "the whole score of a steering recipe"),
    "report": Verb(
        "reporting", "run_report", "one HTML page from the folders of studies or other commands", may_open_model=False
    ),
    "import-mask": Verb("selecting", "run_import_mask", "read a published LAPE mask"),
    "doctor": Verb("doctor", "run_doctor", "what is installed, and a self-test"),
}


def split_verb(words: Sequence[str]) -> tuple[str, list[str]]:
    """The words that name a verb, of which some have two, and the words after them."""
    length = 1 if not words or words[0] in VERBS else 2
    return " ".join(words[:length]), list(words[length:])


def verb_lines(group: str = "") -> list[str]:
    """One line per verb, or per verb that begins with this word."""
    return [f"  {name:<19} {verb.help}" for name, verb in VERBS.items() if name.startswith(group)]


PROGRAM_HELP = "\n".join(
    [
        "usage: babelscope VERB …",
        "",
        "The languages inside a language model: found, measured, steered.",
        "",
        *verb_lines(),
        "",
        "babelscope VERB --help lists a verb's arguments. --json prints the result for machines.",
        "Exit codes: 0 done, 1 failed, 2 misuse, 130 interrupted (resumable).",
    ]
)
