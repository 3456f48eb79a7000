"""A help text, a wrong flag and work on saved counts load only the libraries that they need."""

import json
import subprocess
import sys

import pytest

import babelscope as bs
from babelscope import reference
from babelscope.cli.verbs import VERBS

HEAVY = ("torch", "numpy", "transformers", "pandas", "sklearn", "scipy", "sympy", "lingua", "wordfreq", "plotly")
UNUSED_BY_COUNTS = (
    "transformers",
    "pandas",
    "sklearn",
    "scipy",
    "sympy",
    "lingua",
    "wordfreq",
    "plotly",
    "datasets",
    "langcodes",
)


def called(words, libraries):
    """Exit code, what was printed, and which of these libraries were loaded by one command in a process of its own."""
    code = (
        "import json, sys\n"
        "from babelscope.cli import main\n"
        "try:\n    code = main(json.loads(sys.argv[1]))\n"
        "except SystemExit as end:\n    code = end.code\n"
        "print('LOADED', json.dumps([code, [name for name in json.loads(sys.argv[2]) if name in sys.modules]]))\n"
    )
    words = [sys.executable, "-c", code, json.dumps([str(word) for word in words]), json.dumps(libraries)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    printed, _, last = done.stdout.rpartition("LOADED ")
    return *json.loads(last), printed + done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_a_help_text_loads_no_heavy_library(verb):
    code, loaded, printed = called([*verb.split(), "--help"], HEAVY)
    assert code == 0 and f"babelscope {verb}" in printed
    assert loaded == []


@pytest.mark.parametrize("verb", VERBS)
def test_words_that_do_not_fit_are_answered_before_any_heavy_library_is_loaded(verb):
    code, loaded, printed = called([*verb.split(), "--no-such-flag"], HEAVY)
    assert code == 2 and f"babelscope {verb} --help" in printed
    assert loaded == []


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    model, tokenizer = bs.open_model("reference")
    corpus = bs.load_corpus(str(reference.CORPUS), split="train", languages=["en", "fi"])
    observation = bs.observe(
        model, tokenizer, corpus, sites=["mlp_gate", "resid_out"], tokens_per_language=3000, shards=32
    )
    return observation.save(tmp_path_factory.mktemp("counts") / "observation")


def test_work_on_saved_counts_loads_no_library_that_it_does_not_use(counts, tmp_path):
    for words in (
        ["identify", counts, "--out", tmp_path / "set", "--draws", "3"],
        ["direct", counts, "--target", "fi", "--layer", "1", "--out", tmp_path / "direction"],
        ["merge", counts, "--out", tmp_path / "sum"],
    ):
        code, loaded, printed = called([*words, "--json"], UNUSED_BY_COUNTS)
        assert code == 0, printed
        assert loaded == [], words[0]
