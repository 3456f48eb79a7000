"""One name for each way of steering behind the server of `transformers serve`, with one copy of the weights.

The server's handlers ask for a model by its name and call its `generate`. Here a name stands for the model and a
steering, which is on while `generate` runs and off afterwards; one request generates at a time.
"""

import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import SteeringRecipe
from babelscope.errors import ToolkitError, UsageError, first_line
from babelscope.models import check_made_for
from babelscope.models.plain import CausalModel
from babelscope.steering.sweeps.steered_answers import steered_rows
from babelscope.subnetworks import Delta, ElementDelta
from babelscope.upstream.openai_server import build_application, is_text

ServedSteering = SteeringRecipe | Delta | ElementDelta | None


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model under a steering: its `generate` is steered, and all else is the model's."""

    model: Any
    """A CausalModel that can generate."""
    tokenizer: PreTrainedTokenizerBase
    steering: ServedSteering
    lock: threading.Lock
    """Shared by all names of one model."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def generate(self, **arguments: Any) -> Any:
        """What the model's own `generate` returns while the steering is on."""
        with self.lock, self._steered():
            return self.model.generate(**arguments)

    @contextmanager
    def _steered(self) -> Iterator[None]:
        if isinstance(self.steering, SteeringRecipe):
            with steered_rows(self.model, self.tokenizer, [self.steering]):
                yield
        elif self.steering is None:
            yield
        else:
            with self.steering.applied(self.model):
                yield


@dataclass(frozen=True, eq=False)
class ServedModels:
    """Names, and what each stands for; it stands where the server has its manager of models.

    plain: name of the model without steering. Raises ArtifactError for a steering of another model, and UsageError for
    a name that is given twice.
    """

    model: CausalModel
    tokenizer: PreTrainedTokenizerBase
    steering: Mapping[str, ServedSteering]
    plain: str
    force_model: None = None
    """A server's only model, in the server's own words; here there are several."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        if self.plain in self.steering:
            raise UsageError(
                f"name {self.plain!r} came, which is the model's own; expected another; choose one for the artifact"
            )
        for name, steering in self.steering.items():
            if steering is not None:
                check_made_for(steering.origin, self.model, None, name)

    def process_model_name(self, model_id: str) -> str:
        """The name as it came: it is no id of the hub."""
        return model_id

    def load_model_and_processor(
        self, model_id_and_revision: str, **_: Any
    ) -> tuple[ServedModel, PreTrainedTokenizerBase]:
        """The model of a name, with the tokenizer; an unknown name is answered with status 404 and one line."""
        names = {self.plain: None, **self.steering}
        if model_id_and_revision not in names:
            from fastapi import HTTPException

            raise HTTPException(404, _unknown(model_id_and_revision, names))
        steering = names[model_id_and_revision]
        return ServedModel(self.model, self.tokenizer, steering, self._lock), self.tokenizer

    async def load_model_streaming(self, model_id_and_revision: str, **_: Any) -> AsyncIterator[str]:
        """The one event of a model that is in memory already."""
        names = [self.plain, *self.steering]
        event = {"status": "ready", "model": model_id_and_revision, "cached": True}
        if model_id_and_revision not in names:
            event = {"status": "error", "message": _unknown(model_id_and_revision, names)}
        yield f"data: {json.dumps(event)}\n\n"

    def get_model_modality(self, model: Any, processor: Any = None) -> Any:
        """Text alone."""
        return is_text()

    def list_models(self) -> list[dict[str, Any]]:
        """Rows of `GET /v1/models`."""
        names = [self.plain, *self.steering]
        return [{"id": name, "object": "model", "created": 0, "owned_by": "babelscope"} for name in names]

    def shutdown(self) -> None:
        """Nothing: the model is the caller's."""


def _unknown(name: str, names: Any) -> str:
    return f"model {name!r} came; expected {' or '.join(map(repr, names))}; name one"


def served_application(models: ServedModels) -> Any:
    """The web application (FastAPI): `/v1/completions`, `/v1/chat/completions`, `/v1/responses`, `/v1/models`.

    What cannot be answered, such as a chat with a model that has no chat template, comes back as OpenAI's errors do,
    with one line. Raises PrerequisiteError where a package is missing, or where transformers puts its server together
    in another way.
    """
    app = build_application(models)
    from fastapi import HTTPException
    from fastapi.responses import JSONResponse

    def refused(_: Any, err: Exception) -> Any:
        status, line = (err.status_code, str(err.detail)) if isinstance(err, HTTPException) else (400, first_line(err))
        return JSONResponse({"error": {"message": line, "type": "invalid_request_error"}}, status_code=status)

    for kind in (ToolkitError, ValueError, HTTPException):
        app.add_exception_handler(kind, refused)
    return app


def serve_models(models: ServedModels, *, host: str, port: int) -> None:
    """Serve until Ctrl-C."""
    app = served_application(models)
    import uvicorn

    uvicorn.run(app, host=host, port=port, log_level="warning")
