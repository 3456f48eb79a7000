"""What several verbs share: the types of their flags, their result, a quiet stop. It loads no library."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from babelscope.cli.argument_kinds import ByFunction, NewPath, PlainFile, SavedAs, WordOfForm, site_or_name
from babelscope.cli.flag_conditions import UsedWith
from babelscope.corpus.corpus_names import check_corpus_name
from babelscope.languages import Language
from babelscope.models.model_names import check_model_name

Result = Mapping[str, Any]


class FailedResult(dict[str, Any]):
    """A result that is printed like any other, of a verb that exits 1."""


Model = Annotated[
    Positional[str],
    ByFunction(check_model_name),
    arg(metavar="MODEL", help='folder, hub id, or "reference".'),
]
Text = Annotated[Positional[str], ByFunction(check_corpus_name), arg(metavar="CORPUS")]
Neurons = Annotated[Positional[Path], SavedAs(("NeuronSet",)), arg(metavar="NEURONS")]
Observed = Annotated[Positional[Path], SavedAs(("Observation",)), arg(metavar="OBSERVATION")]
"""What comes first on the command line, by the name that usage lines give it."""
Out = Annotated[Path, NewPath()]
Counts = Annotated[Path, SavedAs(("Observation",))]
File = Annotated[Path, PlainFile()]
ModelName = Annotated[str, ByFunction(check_model_name)]
CorpusName = Annotated[str, ByFunction(check_corpus_name)]
LanguageTag = Annotated[str, ByFunction(Language.parse, is_word=True)]
SiteName = Annotated[str, ByFunction(site_or_name, is_word=True)]
Split = Literal["train", "valid", "test", "all"]
Device = Annotated[
    str,
    WordOfForm(r"auto|map|(cpu|cuda|mps|xpu|hpu|npu)(:\d{1,4})?", "auto, map, cpu, cuda or one such as cuda:1"),
    arg(help='"auto" (a GPU if there is one), "cpu", "cuda", one such as "cuda:1", or "map" (over all devices).'),
]
DtypeName = Literal["auto", "float32", "bfloat16", "float16", "float64", "int8", "int4"]
Dtype = Annotated[
    DtypeName,
    arg(help='"auto" (float32 on the CPU, as stored elsewhere), float32, bfloat16, float16, float64, int8 or int4.'),
]
TrainedDtype = Annotated[
    DtypeName,
    arg(
        help='"auto" (float32 on the CPU and where the method moves the model\'s own values, as stored elsewhere), '
        "float32, bfloat16, float16, float64, int8 or int4."
    ),
]
StudyDtype = Annotated[
    DtypeName,
    arg(
        help='"auto" (on the CPU bfloat16 where weights are stored so, products are faster, and signs and losses were '
        "seen to agree, else float32; elsewhere as stored), float32, bfloat16, float16, float64, int8 or int4."
    ),
]
SameText = Annotated[
    bool, arg(help="allow scoring on the text that was chosen on, all of a corpus without splits; the result says so.")
]
Parallel = Annotated[bool, arg(help="line i of the files is the same content in every language.")]
Chat = Annotated[
    bool,
    arg(
        help="prompts are messages for the model's own chat template: a text is the user's, a .jsonl row may have more."
    ),
]
System = Annotated[
    str,
    UsedWith("with --chat", lambda call: call["chat"]),
    arg(help="with --chat, a system prompt before each; none leaves it to the template."),
]
Talk = Annotated[
    Literal["none", "all", "user", "answer"],
    arg(
        help="the corpus's rows are conversations for the model's own chat template, and these words of them count: "
        "all, the user's, or the answers'; none reads plain text."
    ),
]


def counted_of(conversation: str) -> Any:
    """What `load_corpus` takes: None for plain text."""
    return None if conversation == "none" else conversation


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends what runs as Ctrl-C does, with what it kept written; in another thread than the first it cannot."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM end the pass between two batches, with its checkpoint written, or when it is over."""
    signals = []
    earlier = {name: signal.signal(name, lambda *_: signals.append(1)) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(signals)
    finally:
        for name, handler in earlier.items():
            signal.signal(name, handler)
    if signals:  # in the last batch, behind which nobody asks any more
        raise KeyboardInterrupt
