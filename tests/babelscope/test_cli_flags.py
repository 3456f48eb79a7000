"""Every flag of every verb: one that a call makes no use of is refused, and one that it uses is not."""

from inspect import Parameter, signature
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from cli_calls import USED, make_kinds

from babelscope.cli.calling import check_arguments, flags_given, function_of, read_call, types_of, value_checks
from babelscope.cli.quantities import Between
from babelscope.cli.verbs import VERBS, split_verb
from babelscope.errors import UsageError

WORDS = {
    "out": Path("OUT"),
    "csv": Path("OUT"),
    "sites": ("resid_out",),
    "site": "1.resid_out",
    "shard": "0/1",
    "batch_size": "4",
    "model": "reference",
    "corpus": "reference",
    "questions": "reference",
    "checkpoints": ("reference", "reference"),
    "words": "FILE",
    "cloze": "FILE",
    "references": Path("FILE"),
    "native": Path("FILE"),
    "identifier": "FILE",
    "facts": "FILE",
    "items": "FILE",
    "directions": ("en:fi",),
    "neurons": Path("NeuronSet"),
    "steer": Path("Direction"),
    "prefixes": Path("FILE"),
    "translators": Path("Translators"),
    "also": (Path("Delta"),),
    "general": (Path("Delta"),),
    "pairs": "reference",
    "observation": Path("Observation"),
    "compare_with": Path("Observation"),
    "system": "s",
    "sae_id": "a",
    "device": "cpu",
}
"""A value for each flag that is no number, switch, choice or language tag."""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return make_kinds(tmp_path_factory.mktemp("kinds"))


def another(name, parameter):
    """A value that a flag takes, other than its default where there is another."""
    annotation = parameter.annotation
    if isinstance(parameter.default, bool):
        return not parameter.default
    for choice in choices_of(annotation):
        if choice != parameter.default:
            return choice
    bounds = [kind for kind in value_checks(annotation) if isinstance(kind, Between)]
    value = WORDS.get(name, "fi") if not bounds else (bounds[0].low + bounds[0].high) / 2
    if bounds and int in types_of(annotation):
        value = int(value)
    return (value,) if isinstance(parameter.default, tuple) and not isinstance(value, tuple) else value


def choices_of(annotation):
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(choice for part in get_args(annotation) for choice in choices_of(part))


@pytest.mark.parametrize(("words", "used"), USED, ids=[words for words, _ in USED])
def test_a_flag_is_refused_exactly_where_the_call_makes_no_use_of_it(words, used, here, monkeypatch):
    monkeypatch.chdir(here)
    verb, rest = split_verb(words.split())
    function = function_of(verb)
    parameters = signature(function).parameters
    given = set(flags_given(verb, parameters, rest))
    call = read_call(verb, function, rest)
    expected = {flag.replace("-", "_") for flag in used.split()}
    flags = {name for name, parameter in parameters.items() if parameter.kind is Parameter.KEYWORD_ONLY}
    assert given <= expected <= flags, (given - expected, expected - flags)
    taken = set(given)
    for name in flags - given:
        try:
            check_arguments(parameters, given | {name}, {**call, name: another(name, parameters[name])})
        except UsageError as err:
            assert "which is used only" in str(err)
        else:
            taken.add(name)
    assert taken == expected


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("edit reference --out OUT --methods in-context in-context", "--methods in-context came twice"),
        ("edit reference --out OUT --neurons 16 4 16", "--neurons 16 came twice"),
        ("influence reference reference --out OUT --queries FILE --layers 3 3", "--layers 3 came twice"),
        ("priming reference --out OUT --directions en:de en:de", "--directions en:de came twice"),
    ],
)
def test_a_value_that_comes_twice_behind_a_flag_is_refused(words, says, here, monkeypatch):
    monkeypatch.chdir(here)
    verb, *rest = words.split()
    with pytest.raises(UsageError, match=f"^{says}; expected each once; leave one out$"):
        read_call(verb, function_of(verb), rest)


def test_a_folder_or_a_model_may_come_twice_behind_a_flag(here, monkeypatch):
    monkeypatch.chdir(here)
    words = ["reference", "--out", "OUT", "--checkpoints", "reference", "reference"]
    assert read_call("priming", function_of("priming"), words)["checkpoints"] == ("reference", "reference")


def test_an_unknown_flag_is_told_in_whole_sentences(here):
    with pytest.raises(
        UsageError, match=r"^--qqqq is no flag of this command; leave it out\. See `babelscope edit --help`$"
    ):
        read_call("edit", function_of("edit"), ["reference", "--out", "OUT", "--qqqq", "1"])


def test_every_verb_is_called_above():
    assert {split_verb(words.split())[0] for words, _ in USED} == set(VERBS)


def test_every_default_is_a_value_that_its_flag_takes():
    for verb in VERBS:
        for name, parameter in signature(function_of(verb)).parameters.items():
            bounds = [kind for kind in value_checks(parameter.annotation) if isinstance(kind, Between)]
            values = parameter.default if isinstance(parameter.default, tuple) else (parameter.default,)
            for value in (value for value in values if value not in (None, Parameter.empty)):
                for kind in bounds:
                    kind.check(f"{verb} --{name}", value)


def test_every_number_of_every_verb_has_bounds():
    for verb in VERBS:
        for name, parameter in signature(function_of(verb)).parameters.items():
            if {int, float} & set(types_of(parameter.annotation)):
                assert any(isinstance(kind, Between) for kind in value_checks(parameter.annotation)), (verb, name)
