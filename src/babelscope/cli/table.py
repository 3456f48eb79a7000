"""The verbs and one line about each; nothing is imported for `babelscope --help`."""

VERBS = {
    "demo": "the main job on the bundled model and corpus, with a report",
    "observe": "one pass of labelled text through a model, into counts",
    "merge": "add observations of several machines or texts",
    "identify": "which neurons belong to which language, with controls and intervals",
    "direct": "the direction from one language to another",
    "ablate": "what breaks when a language's neurons are off, with matched controls",
    "steer": "answer prompts under steering, or measure the dose–response with --sweep",
    "evaluate": "held-out bits per byte by language, or language confusion of answers",
    "report": "one HTML page from run folders",
    "import-mask": "read a published LAPE mask",
    "doctor": "what is installed, and a self-test",
}

PROGRAM_HELP = "\n".join(
    [
        "usage: babelscope VERB …",
        "",
        "The languages inside a language model: found, measured, steered.",
        "",
        *(f"  {verb:<12} {text}" for verb, text in VERBS.items()),
        "",
        "babelscope VERB --help lists a verb's arguments. --json prints the result for machines.",
        "Exit codes: 0 done, 1 failed, 2 misuse, 130 interrupted (resumable).",
    ]
)
