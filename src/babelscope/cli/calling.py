"""From a verb's words to the call of its function, whose signature gives the flags.

All that can be wrong with the words alone is found here, before a library is loaded for the work.
"""

import io
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import redirect_stderr
from difflib import get_close_matches
from importlib import import_module
from inspect import Parameter, signature
from itertools import product, takewhile, zip_longest
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args

import tyro
from tyro.conf import arg

from babelscope.cli.argument_kinds import ByFunction, NewPath, SavedAs, WordOfForm, free
from babelscope.cli.arguments import Result
from babelscope.cli.finished_calls import kept_call
from babelscope.cli.flag_conditions import FlagValues, UsedWith
from babelscope.cli.model_sizes import check_model_sizes
from babelscope.cli.telling import print_log_lines
from babelscope.cli.verbs import VERBS
from babelscope.errors import ArtifactError, UsageError

Parameters = Mapping[str, Parameter]
MAY_REPEAT = ("also", "checkpoints", "general")
"""Flags of folders and models, of which one may come twice; a value of any other flag comes once."""
BOX = re.compile("[\u2500-\u257f]+|-{10,}")
"""The frames that tyro draws around its errors; where the output has no such letters, it rules a line."""
METAVARS = {int: "INT", float: "FLOAT", Path: "PATH"}
"""What usage lines have in the place of a value; tyro's own name for one that may be left out begins with {None}."""
STYLE = re.compile(r"\x1b\[[0-9;]*m")
CLEARER = (
    (
        re.compile(r"^Unrecognized options: (.*)"),
        r"\1: this command has no place for it; leave it out, or quote a text",
    ),
    (re.compile(r"^Missing from babelscope [a-z -]+: "), "expected, and did not come: "),
)
"""How tyro begins a message, and what it says to a person."""


CHOICE = re.compile(r"^invalid choice '(.*)' for argument '(--[a-z-]+)'\. Expected one of \((.*)\)$")
"""How tyro refuses a word that is none of a flag's; it writes the others as Python would."""


def call_verb(verb: str, words: list[str]) -> Result:
    """Parse a verb's arguments from the signature of its function, and call it; only its own module is imported.

    transformers, whose progress bars are hidden, is loaded after the flags are understood and where it may be needed.
    """
    function = function_of(verb)
    call = read_call(verb, function, words)
    if VERBS[verb].may_open_model:
        from babelscope.upstream.tokenizers import hide_progress

        hide_progress()
        for library in map(logging.getLogger, ("transformers", "huggingface_hub")):
            library.propagate = False  # Each has a handler, and a line would be printed twice.
            for handler in library.handlers:
                print_log_lines(handler)
    with kept_call(verb, call, word_arguments(signature(function).parameters)):
        return function(**call)


def word_arguments(parameters: Parameters) -> frozenset[str]:
    """The arguments that are a word, such as a language or a site, and never the name of a file or folder."""
    checks = {name: tuple(value_checks(parameter.annotation)) for name, parameter in parameters.items()}
    return frozenset(
        name
        for name, kinds in checks.items()
        if any(isinstance(kind, ByFunction | WordOfForm) and kind.is_word for kind in kinds)
    )


def function_of(verb: str) -> Callable[..., Result]:
    """The function of a verb, from its own module."""
    return getattr(import_module(f"babelscope.cli.{VERBS[verb].module}"), VERBS[verb].function)


def read_call(verb: str, function: Callable[..., Result], words: list[str]) -> dict[str, Any]:
    """The arguments of a call by name.

    Raises UsageError, in one line, for words that do not fit the signature, a number outside its bounds, and a flag
    that this call would not use; ArtifactError, CorpusError or PrerequisiteError for a path where nothing is, and for
    an --out that cannot be written.
    """
    parameters = signature(function).parameters
    asks_help = bool({"-h", "--help"} & set(words))
    typed = set(() if asks_help else flags_given(verb, parameters, words))
    call = parsed(verb, function, words)
    check_arguments(parameters, typed, call)
    return call


def can_resume(verb: str, words: list[str]) -> bool:
    """Whether a call has a use for --resume; words that do not fit have none."""
    function = function_of(verb)
    resume = signature(function).parameters.get("resume")
    if resume is None:
        return False
    try:
        call = parsed(verb, function, words)
    except UsageError:
        return False
    return all(kind.holds(call) for kind in value_checks(resume.annotation) if isinstance(kind, UsedWith))


def check_arguments(parameters: Parameters, typed: Set[str], call: FlagValues) -> None:
    """Check what was given for a call; raises as `read_call`. given: names of the flags that were typed."""
    for name, parameter in parameters.items():
        if parameter.kind is Parameter.KEYWORD_ONLY and name not in typed:
            continue
        kinds = tuple(value_checks(parameter.annotation))
        if name in typed or call[name] != parameter.default:
            for condition in (kind for kind in kinds if isinstance(kind, UsedWith)):
                condition.check(flag_of(parameter), call)
        values = call[name] if isinstance(call[name], tuple) else [call[name]]
        if name in typed and name not in MAY_REPEAT:
            check_each_once(flag_of(parameter), values)
        for kind, value in product((kind for kind in kinds if not isinstance(kind, UsedWith)), values):
            if value is None:
                continue
            check_in_place(kind, parameter, value, parameters)
            if isinstance(kind, NewPath) and not call.get("resume"):
                free(value)
            if isinstance(kind, SavedAs) and "model" in call:
                check_model_sizes(call["model"], flag_of(parameter), value)


def check_in_place(kind: Any, parameter: Parameter, value: Any, parameters: Parameters) -> None:
    """Check a value; where it is another thing than its place takes, the message also has the order of the places."""
    try:
        kind.check(flag_of(parameter), value)
    except ArtifactError as err:
        order = [flag_of(place) for place in parameters.values() if place.kind is not Parameter.KEYWORD_ONLY]
        if parameter.kind is Parameter.KEYWORD_ONLY or len(order) < 2:
            raise
        raise type(err)(f"{err}; the order is {' '.join(order)}") from err


def check_each_once(flag: str, values: Sequence[Any]) -> None:
    """Raise UsageError where a value came twice behind one flag."""
    twice = next((value for place, value in enumerate(values) if value in values[:place]), None)
    if twice is not None:
        raise UsageError(f"{flag} {twice} came twice; expected each once; leave one out")


def value_checks(annotation: Any) -> Iterator[Any]:
    """What is written beside a type, or inside it, and checks a value."""
    for part in get_args(annotation):
        if hasattr(part, "check"):
            yield part
        else:
            yield from value_checks(part)


def types_of(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation is made of."""
    parts = get_args(annotation)
    return tuple(kind for part in parts for kind in types_of(part)) if parts else (annotation,)


def flag_of(parameter: Parameter) -> str:
    """A parameter as it is typed: a flag with dashes, or the word that usage lines have in its place."""
    if parameter.kind is Parameter.KEYWORD_ONLY:
        return f"--{parameter.name.replace('_', '-')}"
    return parameter.name.upper()


def flags_given(verb: str, parameters: Parameters, words: list[str]) -> Iterator[str]:
    """The names of the flags that were typed; raises UsageError for one that is unknown, missing or there twice."""
    flags = {flag_of(parameter): parameter for parameter in parameters.values() if flag_of(parameter).startswith("--")}
    switches = {f"--no-{flag[2:]}": flag for flag, parameter in flags.items() if isinstance(parameter.default, bool)}
    typed: list[str] = []
    for position, (word, following) in enumerate(zip_longest(words, words[1:])):
        if word == "--":
            break
        if not word.startswith("--"):
            continue
        name, equals, value = word.partition("=")
        flag = switches.get(name.replace("_", "-"), name.replace("_", "-"))
        if flag not in flags:
            near = get_close_matches(flag, [*flags, *switches], n=1)
            meant = f"did you mean {near[0]}?" if near else "leave it out."
            raise UsageError(f"{name} is no flag of this command; {meant} See `babelscope {verb} --help`")
        if flag in typed:
            raise UsageError(f"{flag} came twice; expected it once; leave one out")
        if (value if equals else following) == "" and Path in types_of(flags[flag].annotation):
            raise UsageError(f"{flag} '' came; expected a path; name one")
        check_numbers(flag, flags[flag].annotation, [value] if equals else list(values_after(words[position + 1 :])))
        typed.append(flag)
    missing = [
        flag
        for flag, flag_parameter in flags.items()
        if flag_parameter.default is Parameter.empty and flag not in typed
    ]
    if missing:
        if not words:
            needed = [flag_of(part) for part in parameters.values() if part.default is Parameter.empty]
            missing = [name for name in needed if not name.startswith("--")] + missing
        raise UsageError(f"{' and '.join(missing)} did not come; expected it; see `babelscope {verb} --help`")
    yield from (flags[flag].name for flag in typed)


def values_after(words: list[str]) -> Iterator[str]:
    """The words up to the next flag."""
    return takewhile(lambda word: not word.startswith("--"), words)


def check_numbers(flag: str, annotation: Any, values: list[str]) -> None:
    """Raise UsageError where no value came after a flag that takes one, or one that is no number of its kind."""
    kinds = types_of(annotation)
    if bool in kinds:
        return
    several = Ellipsis in kinds
    if not several and not values:
        raise UsageError(f"{flag} came without a value; expected one after it; write it, or leave the flag out")
    number = next((kind for kind in (int, float) if kind in kinds), None)
    for value in values if several else values[:1]:
        if number is None or (value == "None" and NoneType in kinds):
            continue
        try:
            number(value)
        except ValueError as err:
            expected = "a whole number, in digits" if number is int else "a number, such as 0.05"
            raise UsageError(f"{flag} {value!r} came; expected {expected}; correct it") from err


def parsed(verb: str, function: Callable[..., Result], words: list[str]) -> dict[str, Any]:
    """The words by the name of what they stand for; raises UsageError with what tyro says in its box."""

    def arguments(**call: Any) -> dict[str, Any]:
        return call

    told = signature(function)
    hinted = [parameter.replace(annotation=with_hint(parameter)) for parameter in told.parameters.values()]
    vars(arguments)["__signature__"] = told.replace(parameters=hinted)
    vars(arguments).pop("__wrapped__", None)  # A decorator of whoever checks types; tyro looks behind it.
    arguments.__annotations__ = {parameter.name: parameter.annotation for parameter in hinted}
    arguments.__doc__ = re.sub(r"\n {12,}(?=\S)", " ", function.__doc__ or "")  # A line for each argument.
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            call = tyro.cli(arguments, args=words, prog=f"babelscope {verb}")
    except SystemExit as end:
        if not end.code:
            raise
        raise UsageError(f"{unboxed(box.getvalue())}; see `babelscope {verb} --help`") from end
    return {name: at_home(value) for name, value in call.items()}


def at_home(value: Any) -> Any:
    """A path with ~ written out, which a shell leaves as it is behind --out= and in quotes; else the value itself."""
    if isinstance(value, tuple):
        return tuple(map(at_home, value))
    return value.expanduser() if isinstance(value, Path) else value


def with_hint(parameter: Parameter) -> Any:
    """The type of an argument, with what help says of it where its default is nothing, or None beside a type."""
    kinds = types_of(parameter.annotation)
    by_flag = parameter.kind is Parameter.KEYWORD_ONLY
    several = not by_flag and Ellipsis in kinds
    if not several and parameter.default not in ((), "", None):
        return parameter.annotation
    hint = "(any number)" if several else "(default: none)" if by_flag else "(may be left out)"
    names = [name for kind, name in METAVARS.items() if kind in kinds] if NoneType in kinds else []
    return Annotated[parameter.annotation, arg(help_behavior_hint=hint, metavar=names[0] if names else None)]


def unboxed(box: str) -> str:
    """The text of an error of tyro's, without its frame, its title, and what it repeats of the help text."""
    lines = [line.strip("│ ") for line in STYLE.sub("", box).splitlines()]
    parts = " ".join(BOX.sub("\n", line) if BOX.search(line) else line for line in lines[1:]).split("\n")
    own_words = [
        " ".join(part.split()) for part in parts if not re.match(r"\s*(Argument helptext|For full helptext)", part)
    ]
    text = "; ".join(filter(None, own_words)).rstrip(".") or "the words do not fit this command"
    for begins, clear in CLEARER:
        text = begins.sub(clear, text)
    return CHOICE.sub(clear_choice, text)


def clear_choice(match: re.Match[str]) -> str:
    """What came, the nearest of what a flag takes, and all of it."""
    word, flag, values = match[1], match[2], re.findall("'([^']*)'", match[3])
    near = get_close_matches(word, values, n=1)
    meant = f"did you mean {near[0]}? Expected" if near else "expected"
    return f"{flag} {word!r} came; {meant} one of {', '.join(values)}"
