"""The OpenAI-compatible server of `transformers serve`, whose parts are put together around models of this library."""

import inspect
from importlib.util import find_spec
from typing import Any

from babelscope.errors import PrerequisiteError, first_line
from babelscope.upstream.names import imported, release

NEEDED = ("fastapi", "uvicorn", "openai")
HANDLERS = {
    "chat_handler": "chat_completion",
    "completion_handler": "completion",
    "response_handler": "response",
    "transcription_handler": "transcription",
    "systemone_handler": "systemone",
}
"""Arguments of the function that builds the application, and the module of each one's class."""


def check_server_packages() -> None:
    """Raise PrerequisiteError where a package that the server needs is not installed."""
    lacking = [name for name in NEEDED if find_spec(name) is None]
    if lacking:
        raise PrerequisiteError(
            f"a server needs {', '.join(lacking)}, not installed here; expected it; pip install 'babelscope[serve]'"
        )


def build_application(models: Any) -> Any:
    """The web application (FastAPI) whose handlers ask `models` for a model by its name.

    models: stands where the server's own ModelManager does, and must have the methods of that name which it has.
    Raises PrerequisiteError for a release of transformers whose server is put together in another way.
    """
    check_server_packages()
    manager = imported("transformers.cli.serving.model_manager", "server.models")
    methods = {name for name, value in vars(type(models)).items() if inspect.isfunction(value) and name[0] != "_"}
    changed = sorted(name for name in methods if not callable(inspect.getattr_static(manager, name, None)))
    try:
        if changed:
            raise TypeError(f"its ModelManager has no method {changed[0]!r}")
        state = imported("transformers.cli.serving.utils", "server.state")()
        handlers = {
            argument: imported(f"transformers.cli.serving.{module}", f"server.{module}")(models, state)
            for argument, module in HANDLERS.items()
        }
        build = imported("transformers.cli.serving.server", "server.build")
        return build(model_manager=models, generation_state=state, **handlers)
    except TypeError as err:
        raise PrerequisiteError(
            f"{release('transformers')}: its server is put together in another way ({first_line(err)}); expected the "
            "one of 5.24; install that, or export the artifact as a checkpoint and serve it"
        ) from err


def is_text() -> Any:
    """What a server's handlers are told of a model that reads text alone."""
    return imported("transformers.cli.serving.utils", "server.kind").LLM
