"""The verb `serve`: an OpenAI-compatible server with one model name for each artifact."""

import logging
import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from babelscope.cli.argument_kinds import ByFunction, SavedAs
from babelscope.cli.arguments import Device, Dtype, Model, Result
from babelscope.cli.flag_conditions import UsedWith
from babelscope.cli.playing import check_port
from babelscope.cli.quantities import Port, SteeringStrength
from babelscope.errors import UsageError
from babelscope.files.folder_kinds import class_saved

log = logging.getLogger(__name__)

STEERING, CHANGES = ("Direction", "SteeringRecipe"), ("Delta", "ElementDelta")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LOCAL = "127.0.0.1"


def named_artifact(word: str) -> tuple[str, Path]:
    """Name and folder of NAME=ARTIFACT; raises UsageError for another form, ArtifactError for another folder."""
    name, sign, place = word.partition("=")
    if not sign or not NAME.fullmatch(name) or name.endswith(".gguf"):
        raise UsageError(
            f"{word[:80]!r} came; expected NAME=ARTIFACT, the name of letters, digits, '.', '_' and '-'; "
            "name what is served, such as finnish=to-finnish"
        )
    SavedAs((*STEERING, *CHANGES)).check(name, Path(place))
    return name, Path(place)


WITH_DIRECTION = UsedWith(
    "with a Direction",
    lambda call: any(class_saved(named_artifact(word)[1]) == "Direction" for word in call["artifacts"]),
)


def run_serve(
    model: Model,
    artifacts: Annotated[Positional[tuple[str, ...]], ByFunction(named_artifact), arg(metavar="NAME=ARTIFACT …")],
    *,
    port: Port = 8000,
    host: str = LOCAL,
    strength: Annotated[SteeringStrength, WITH_DIRECTION] = 1.0,
    unit: Annotated[Literal["raw", "unit", "relative"], WITH_DIRECTION] = "raw",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> Result:
    """Serve a model as an OpenAI-compatible server does: plain by its own name, and steered by one name an artifact.

    It is the server of `transformers serve`, and needs `pip install 'babelscope[serve]'`. Ctrl-C ends it.

    Args:
        artifacts: a name and the folder of a Direction, SteeringRecipe, Delta or ElementDelta each, such as
            finnish=to-finnish; clients ask for the name.
        port: of the server.
        host: address to listen at; the default can be reached from this machine alone, and nothing asks for a password.
        strength: of Directions, in their unit; a recipe carries its own.
        unit: raw (as a direction is long), unit (of length one), or relative (a share of the stream's mean length).
    """
    folders = dict(map(named_artifact, artifacts))
    if not artifacts or len(folders) < len(artifacts):
        raise UsageError(
            f"{' '.join(artifacts) or 'no artifact'} came; expected one or more NAME=ARTIFACT, each name once; "
            "name them, such as finnish=to-finnish"
        )
    from babelscope.upstream.openai_server import check_server_packages

    check_server_packages()
    check_port(port, host)
    from babelscope.cli.saved import open_recipe
    from babelscope.models import open_model
    from babelscope.serving import ServedModels, serve_models
    from babelscope.subnetworks import Delta, ElementDelta

    changes = {"Delta": Delta, "ElementDelta": ElementDelta}
    steering = {
        name: changes[class_saved(path)].load(path)
        if class_saved(path) in changes
        else open_recipe(path, strength, unit)
        for name, path in folders.items()
    }
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    models = ServedModels(language_model, tokenizer, steering, Path(model).name)
    address = f"http://{host}:{port}/v1"
    log.info("serving %s at %s; Ctrl-C ends it", ", ".join([models.plain, *folders]), address)
    if host not in (LOCAL, "localhost", "::1"):
        log.warning("whoever reaches %s can use it: the server asks for no password", address)
    with suppress(KeyboardInterrupt):
        serve_models(models, host=host, port=port)
    return {"address": address, "models": [models.plain, *folders]}
