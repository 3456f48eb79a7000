"""Following one model's forward and generate calls while something steers it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import update_wrapper
from typing import Any

import torch
from torch import nn

from babelscope.axes import Tensor
from babelscope.models import Layout
from babelscope.models.plain import CausalModel
from babelscope.sites import Site
from babelscope.steering.clean import CleanPass, clean_inputs, run_clean
from babelscope.steering.frame import Frame, Prompt
from babelscope.upstream.forward import ForwardInputs, forward_names, read_inputs
from babelscope.upstream.generation import generate_inputs, uncompiled

_LOCK = threading.Lock()


class Session:
    """Stands at `model.generate`, on that one object, while any steering of it is open; shared by nested contexts.

    What it remembers of a call is kept apart for each thread.
    """

    def __init__(self, model: CausalModel, body: nn.Module) -> None:
        self.users = 0
        """Contexts open on this model."""
        self.readers = 0
        """Sites that open contexts want read in a clean pass over each prompt."""
        self.closing = ExitStack()
        """What to undo when the last one closes."""
        self._body = body
        self._inner: Callable[..., Any] = getattr(model, "generate")  # noqa: B009 - typed as a part of the model else
        self._names = forward_names(body)
        self._keywords = uncompiled(model)
        self._calls = threading.local()
        update_wrapper(self, self._inner)

    def __call__(self, inputs: Any = None, *args: Any, **kwargs: Any) -> Any:
        """`generate`; the outermost call says what is prompt."""
        before = self._prompt
        given = generate_inputs(self._names, inputs, kwargs)
        self._calls.prompt = before or Prompt.read(given)
        try:
            if before is None and self.readers:
                self._calls.clean = self._read_clean(given, self._calls.prompt.length)
            return self._inner(inputs, *args, **{**kwargs, **self._keywords})
        finally:
            self._calls.prompt = before
            if before is None:
                self._calls.clean = None

    def _read_clean(self, inputs: ForwardInputs, length: int | None) -> CleanPass:
        def hold(clean: CleanPass | None) -> None:
            self._calls.reading = clean

        return run_clean(self._body, clean_inputs(inputs, self._body, length), hold)

    @property
    def reading(self) -> CleanPass | None:
        """The clean pass now running in this thread, in which nothing may steer."""
        return getattr(self._calls, "reading", None)

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

    def record(self, site: Site, value: Tensor) -> None:
        """Keep a site's value if a clean pass is running."""
        if self.reading is not None:
            self.reading.record(site, value)

    @property
    def _prompt(self) -> Prompt | None:
        return getattr(self._calls, "prompt", None)

    def follow(self, _: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Pre-hook of the model's body: what this forward pass holds."""
        if self.reading is not None:
            return
        inputs = read_inputs(self._names, args, kwargs)
        frame = Frame(inputs, self._prompt)
        if self.readers:
            frame.clean = self._read_clean(inputs, None) if self._prompt is None else self._calls.clean
        self._calls.frame = frame

    @property
    def frame(self) -> Frame | None:
        """The forward pass now running in this thread; None before the first."""
        return getattr(self._calls, "frame", None)


@contextmanager
def follow_calls(layout: Layout) -> Iterator[Session]:
    """The model's session, opened by the first to come and removed by the last to go."""
    model = layout.model
    with _LOCK, ExitStack() as undo:
        session = vars(model).get("generate")
        if not isinstance(session, Session):
            session = Session(model, layout.body)
            follow: Any = torch.compiler.disable(session.follow)
            handle = layout.body.register_forward_pre_hook(follow, with_kwargs=True)
            undo.callback(handle.remove)
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
