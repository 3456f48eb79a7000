"""The command line: a static table here, each verb in a file of its own, imported only when it runs.

Here: one function per verb: arguments, one call, printing; what is worth calling from Python is elsewhere.
Imports: ablation, adaptation, adapters, artifacts, controls, corpus, evaluation, features, figures, files, languages,
models, neurons, probes, recording, reference, report, runs, serving, sites, steering, study, subnetworks, upstream,
vocabulary.
"""

import json
import logging
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from io import TextIOWrapper
from typing import Any

from babelscope.cli.standard_streams import check_folder, open_closed_streams, output_error
from babelscope.cli.telling import Told, print_log_lines
from babelscope.cli.verbs import PROGRAM_HELP, VERBS, split_verb, verb_lines
from babelscope.errors import ToolkitError, UsageError, one_line, printable_json

DONE, FAILED, MISUSE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns 0 done, 1 failed, 2 misuse, 130 interrupted (resumable).

    Where the reader of the output went away, as `head` does after its lines, nothing more is said; where the output
    cannot be written, as on a full disk, one line says so.
    """
    open_closed_streams()
    try:
        code = run_words(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except OSError as err:
        if (reason := output_error()) is None:
            raise
        if not isinstance(err, BrokenPipeError):
            text = f"the output could not be written ({reason.strerror}); files that were saved are whole"
            print(f"babelscope: {text}", file=sys.stderr)
        return FAILED
    return code


def run_words(words: list[str]) -> int:
    """What `main` does with the words of a command line."""
    if isinstance(sys.stdout, TextIOWrapper):  # What it has no letter for is escaped, as it is on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    if not words or words[0] in ("-h", "--help", "help"):
        print(PROGRAM_HELP)
        return DONE if words else MISUSE
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("babelscope"))
        return DONE
    as_json = "--json" in words
    verb, verb_words = split_verb([word for word in words if word != "--json"])
    if verb not in VERBS:
        return tell_no_verb(verb, as_json)
    logging.basicConfig(handlers=[print_log_lines(logging.StreamHandler(sys.stderr))], level=logging.WARNING)
    for package in ("babelscope", "babelscope_kernels"):  # what other libraries say of their progress is not ours
        logging.getLogger(package).setLevel(logging.INFO)
    logging.captureWarnings(True)
    return run_verb(verb, verb_words, as_json)


def tell_no_verb(words: str, as_json: bool) -> int:
    """The jobs of a verb that has several, such as `evaluate`; for other words one line that says what there is."""
    first, _, second = words.partition(" ")
    jobs = [name for name in VERBS if name.startswith(f"{first} ")]
    if jobs and second in ("", "-h", "--help"):
        print("\n".join([f"usage: babelscope {first} JOB …", "", *verb_lines(f"{first} ")]))
        return DONE if second else MISUSE
    unknown = words if jobs else first
    near = get_close_matches(unknown, jobs or VERBS, n=1)
    meant = f"did you mean `babelscope {near[0]}`?" if near else f"expected one of {', '.join(jobs or VERBS)};"
    text = f"{unknown!r} is no command; {meant} `babelscope --help` says what each does"
    return tell_error("babelscope", text, as_json, "Misuse", MISUSE)


def tell_error(who: str, text: str, as_json: bool, kind: str, code: int) -> int:
    """Print an error as one line to stderr, and with `--json` as an object to stdout too; returns the exit code."""
    print(f"{who}: {one_line(text)}", file=sys.stderr)
    if as_json:
        print(as_json_line({"error": text, "kind": kind}))
    return code


def as_json_line(value: Any) -> str:
    """JSON on one line that a terminal can show: letters as they are, whatever steers a terminal escaped.

    Where the output is not UTF-8, all letters beyond ASCII are escaped, as JSON writes them.
    """
    unicode = (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"
    return printable_json(json.dumps(value, ensure_ascii=not unicode))


def run_verb(verb: str, words: list[str], as_json: bool) -> int:
    """Call a verb, print what it returns, and turn errors into exit codes."""
    try:
        check_folder()
        from babelscope.cli.arguments import FailedResult, ended_by_sigterm
        from babelscope.cli.calling import call_verb
        from babelscope.cli.launched_ranks import launched_rank
        from babelscope.files.strict_json import nan_as_null

        rank = launched_rank()
        if rank.world > 1 and not VERBS[verb].over_ranks:
            shared = ", ".join(name for name in VERBS if VERBS[name].over_ranks)
            raise UsageError(
                f"{rank.world} ranks came; {verb} runs in one process, and ranks share the work of {shared} alone; "
                "start it without the launcher, or unset RANK and WORLD_SIZE"
            )
        with ended_by_sigterm():
            returned = call_verb(verb, words)
        result = nan_as_null(returned)
    except UsageError as err:
        return tell_error(f"babelscope {verb}", str(err), as_json, type(err).__name__, MISUSE)
    except ToolkitError as err:
        return tell_error(f"babelscope {verb}", str(err), as_json, type(err).__name__, FAILED)
    except (MemoryError, RuntimeError) as err:
        # An error of torch, if it is loaded, may be one of memory; what else it may be is shown as it is.
        if not isinstance(err, MemoryError) and not ran_out_of_memory(err):
            raise
        text = f"not enough memory ({one_line(str(err)) or 'the system gave no more'}); free some, or ask for less"
        return tell_error(f"babelscope {verb}", text, as_json, "OutOfMemory", FAILED)
    except KeyboardInterrupt:
        text = f"interrupted; {way_on(verb, words)}"
        return tell_error(f"babelscope {verb}", text, as_json, "Interrupted", INTERRUPTED)
    if rank.number:
        return DONE
    if as_json:
        print(as_json_line(result))
    elif isinstance(returned, Told):
        print("\n".join(map(one_line, returned.lines)))
    else:
        from babelscope.cli.readable import result_lines

        for key, value in result.items():
            print("\n".join(result_lines(key, value)))
    return FAILED if isinstance(returned, FailedResult) else DONE


def ran_out_of_memory(err: RuntimeError) -> bool:
    """Whether an error of torch means that memory ran out."""
    if "torch" not in sys.modules:
        return False
    from babelscope.recording.memory_errors import is_out_of_memory

    return is_out_of_memory(err)


def way_on(verb: str, words: list[str]) -> str:
    """What to do after an interruption of a verb with these words: some calls of a verb cannot be gone on with."""
    from babelscope.cli.calling import can_resume

    if can_resume(verb, words):
        return "the same command with --resume goes on where it stopped"
    return "the same command starts anew"
