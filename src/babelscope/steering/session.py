"""Following one model's forward and generate calls while something steers it."""

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import update_wrapper
from typing import Any

import torch
from torch import nn

from babelscope.axes import Tensor
from babelscope.errors import SteeringError
from babelscope.models import Layout
from babelscope.models.marks import HookMark, mark
from babelscope.models.modes import steered_alone
from babelscope.models.plain import CausalModel
from babelscope.models.runners import Runner
from babelscope.sites import Site
from babelscope.steering.clean import CleanPass, clean_inputs, run_clean
from babelscope.steering.columns import Columns
from babelscope.steering.frame import Frame, PromptShape
from babelscope.steering.ready_operation import ReadyOperation
from babelscope.steering.receipt import Receipt
from babelscope.upstream.forward import ForwardInputs, forward_names, read_inputs
from babelscope.upstream.generation import generate_inputs, is_paged, uncompiled
from babelscope.upstream.names import attribute

_LOCK = threading.Lock()


class CallsOfThread(threading.local):
    """What belongs to the calls that one thread makes of the model."""

    prompt: PromptShape | None = None
    """Of the `generate` now running."""
    columns: Columns | None = None
    """Which columns of it have passed."""
    frame: Frame | None = None
    """The forward pass now running."""
    clean: CleanPass | None = None
    """The prompt without steering: of the `generate` now running, or of the loop by hand."""
    begun: PromptShape | None = None
    """Outside `generate`, the last pass without a cache."""
    reading: CleanPass | None = None
    """The clean pass now running, in which nothing may steer."""


class Session:
    """Stands at `model.generate`, on that one object, while any steering of it is open; shared by nested contexts.

    Threads share the counts of open contexts and the list of receipts, which change under `_LOCK` only. What belongs to
    one call (its prompt, clean pass, columns and frame) is thread-local, so that two threads that generate with one
    model inside one context do not read each other's prompts.
    """

    def __init__(self, model: CausalModel, body: nn.Module) -> None:
        self.users = 0
        """Contexts open on this model."""
        self.readers = 0
        """Sites that open contexts want read in a clean pass over each prompt."""
        self.closing = ExitStack()
        """What to undo when the last one closes."""
        self.owner = Runner()
        """The thread, and task, whose contexts are open."""
        self.receipts: list[Receipt] = []
        """Receipts of the open contexts."""
        self.sites: Counter[str] = Counter()
        """Sites that open contexts steer, for a message."""
        self._body = body
        self._inner: Callable[..., Any] = getattr(model, "generate")  # noqa: B009 - typed as a part of the model else
        self._names = forward_names(body)
        self._keywords = uncompiled(model)
        self._calls = CallsOfThread()
        update_wrapper(self, self._inner)

    def __call__(self, inputs: Any = None, *args: Any, **kwargs: Any) -> Any:
        """`generate`; the outermost call says what is prompt."""
        before = self._prompt
        forward_inputs = generate_inputs(self._names, inputs, kwargs)
        self._calls.prompt = before or PromptShape.read(forward_inputs)
        columns, self._calls.columns = self._columns, Columns()
        try:
            if before is None and self.readers:
                self._calls.clean = self._read_clean(forward_inputs, self._calls.prompt.length)
            return self._inner(inputs, *args, **{**kwargs, **self._keywords})
        finally:
            self._calls.prompt, self._calls.columns = before, columns
            if before is None:
                self._calls.clean = self._calls.begun = None

    def _read_clean(self, inputs: ForwardInputs, length: int | None) -> CleanPass:
        def hold(clean: CleanPass | None) -> None:
            self._calls.reading = clean

        return run_clean(self._body, clean_inputs(inputs, self._body, length), hold)

    @property
    def reading(self) -> CleanPass | None:
        """The clean pass now running in this thread, in which nothing may steer."""
        return self._calls.reading

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """While open, every prompt is read in a clean pass first."""
        with _LOCK:
            self.readers += 1
        try:
            yield
        finally:
            with _LOCK:
                self.readers -= 1

    @contextmanager
    def counting(self, ready_by_site: Mapping[Site, Sequence[ReadyOperation]]) -> Iterator[Receipt]:
        """While open, a receipt of what these operations do."""
        receipt = Receipt()
        for ready in ready_by_site.values():
            for ready_operation in ready:
                receipt.open(id(ready_operation), ready_operation.operation)
        names = [str(site) for site in ready_by_site]
        with _LOCK, ExitStack() as undo:
            self.receipts = [*self.receipts, receipt]
            self.sites.update(names)
            if names:
                finite = HookMark(torch.compiler.disable(self.finite))
                undo.callback(self._body.register_forward_hook(finite).remove)
            closing = undo.pop_all()
        try:
            yield receipt
        finally:
            with _LOCK, closing:
                self.receipts = [other for other in self.receipts if other is not receipt]
                self.sites -= Counter(names)

    def record(self, site: Site, value: Tensor) -> None:
        """Keep a site's value if a clean pass is running."""
        if self.reading is not None:
            self.reading.record(site, value)

    @property
    def _columns(self) -> Columns | None:
        return self._calls.columns

    @property
    def _prompt(self) -> PromptShape | None:
        return self._calls.prompt

    def follow(self, _: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Pre-hook of the model's body: what this forward pass holds."""
        if self.reading is not None:
            return
        inputs = read_inputs(self._names, args, kwargs)
        if is_paged(inputs.cache):
            raise SteeringError(
                "generate_batch ran while this model is steered: paged attention packs texts into one row, so that "
                "steering cannot tell rows apart; expected a row for each text; use generate"
            )
        prompt = self._prompt or self._gone_on_from(inputs)
        frame = Frame(inputs, prompt)
        if self._columns is not None:
            self._columns.check_beginning(frame)
            self._columns.check(inputs, frame.start, frame.end)
        if self.readers:
            if prompt is None:
                self._calls.clean = self._read_clean(inputs, None)
            frame.clean = self._calls.clean
        self._calls.frame = frame
        for receipt in self.receipts:
            receipt.passed(frame)

    def _gone_on_from(self, inputs: ForwardInputs) -> PromptShape | None:
        """The prompt of a pass outside `generate` that goes on from its cache; None for a pass that is prompt itself.

        People decode in loops of their own: a pass without a cache begins one, and what goes on from its cache is
        generated. A cache that was not filled in this context (as of prefix tuning) says nothing of what is prompt.
        """
        if not inputs.cached:
            self._calls.begun, self._calls.clean = PromptShape.read(inputs), None
            return None
        begun = self._calls.begun
        if begun is None or inputs.given is None or inputs.given.shape[0] == begun.rows:
            return begun
        # Rows were chosen anew from the cache: which of the prompts each goes on from is not known.
        self._calls.clean = None
        return PromptShape(inputs.given.shape[0], begun.length, None)

    def finite(self, _: nn.Module, args: tuple, output: Any) -> None:
        """Hook of the model's body: NaN and infinity at real tokens stop the run."""
        frame = self.frame
        if self.reading is not None or frame is None:
            return
        hidden = attribute(output, "output.hidden").detach()
        real = frame.real
        check_finite(hidden if real is None else hidden[real.to(hidden.device)], self.sites)

    @property
    def frame(self) -> Frame | None:
        """The forward pass now running in this thread; None before the first."""
        return self._calls.frame


def check_finite(value: Tensor, sites: Iterable[str]) -> None:
    """Raise SteeringError where a steered value holds NaN or infinity."""
    # The largest magnitude is NaN where one value is: one pass over the values, one number to wait for.
    if value.numel() and not value.is_meta and not math.isfinite(float(value.abs().amax())):
        raise SteeringError(
            f"steered at {', '.join(sorted(sites))}, the model gave NaN or infinity; expected finite values; lower the "
            "strength, or open the model in bfloat16 or float32"
        )


@contextmanager
def follow_calls(layout: Layout) -> Iterator[Session]:
    """The model's session, opened by the first to come and removed by the last to go."""
    model = layout.model
    with _LOCK, ExitStack() as undo:
        session = vars(model).get("generate")
        if isinstance(session, Session) and session.owner.is_another():
            raise SteeringError(
                "this model is steered by another thread or task already, and both would steer both's texts; expected "
                "one that steers it; give each a model of its own, take turns, or steer row by row with rows="
            )
        if not isinstance(session, Session):
            undo.enter_context(steered_alone(model))
            session = Session(model, layout.body)
            follow = HookMark(torch.compiler.disable(session.follow))
            handle = layout.body.register_forward_pre_hook(follow, with_kwargs=True)
            undo.callback(handle.remove)
            mark(undo, model)
            mark(undo, layout.body)
            undo.callback(_restore, model, session, vars(model).get("generate"))
            object.__setattr__(model, "generate", session)
            session.closing = undo.pop_all()
        session.users += 1
    try:
        yield session
    finally:
        with _LOCK:
            session.users -= 1
            if not session.users:
                session.closing.close()


def _restore(model: CausalModel, session: Session, before: Any) -> None:
    """Put back what stood at `model.generate`, unless another has since taken the place."""
    if vars(model).get("generate") is session:
        if before is None:
            del vars(model)["generate"]
        else:
            object.__setattr__(model, "generate", before)
