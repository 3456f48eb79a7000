"""The verb `play`: a page on this machine, on which steering can be tried."""

import logging
import socket
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from babelscope.cli.argument_kinds import SavedAs
from babelscope.cli.arguments import Device, Dtype, Model, Result
from babelscope.cli.quantities import Port, Seed, Temperature
from babelscope.errors import PrerequisiteError, UsageError
from babelscope.files.folder_kinds import class_saved

log = logging.getLogger(__name__)


def run_play(
    model: Model,
    artifacts: Annotated[
        Positional[tuple[Path, ...]],
        SavedAs(("Direction", "SteeringRecipe", "Delta", "NeuronSet", "Observation")),
        arg(metavar="ARTIFACT …"),
    ],
    *,
    port: Port | None = None,
    temperature: Temperature = 0.0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
) -> Result:
    """Serve a page on this machine alone: plain and steered answers side by side, with the language of each segment.

    It needs `pip install 'babelscope[play]'`, and nothing from the network. Ctrl-C ends it.

    Args:
        artifacts: folders: a Direction, SteeringRecipe or Delta steers; a NeuronSet gives neurons to switch off; an
            Observation gives a mean direction into each of its languages, and means to activate neurons with.
        port: of the page; none means the first free one from 7860 on.
        temperature: of sampling; 0 takes the likeliest token.
    """
    if not artifacts:
        raise UsageError("no ARTIFACT came; expected one or more folders; name what steers, such as a Direction")
    from babelscope.serving.playground.gradio_page import check_gradio, served_page

    check_gradio()
    check_port(port)
    from babelscope.artifacts import Direction, NeuronSet, Observation, SteeringRecipe
    from babelscope.models import open_model
    from babelscope.serving.playground import Playground
    from babelscope.subnetworks import Delta

    loaders = {kind.__name__: kind.load for kind in (Direction, SteeringRecipe, Delta, NeuronSet, Observation)}
    same_name = Counter(path.name for path in artifacts)
    loaded = {
        path.name if same_name[path.name] == 1 else str(path): loaders[class_saved(path)](path) for path in artifacts
    }
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    playground = Playground(
        model=language_model, tokenizer=tokenizer, artifacts=loaded, seed=seed, temperature=temperature
    )
    with served_page(playground, Path(model).name, port=port) as address:
        log.info("the page is at %s, on this machine alone; Ctrl-C ends it", address)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    return {"page": address, "artifacts": list(loaded), "seed": seed}


def check_port(port: int | None, host: str = "127.0.0.1") -> None:
    """Raise PrerequisiteError for a port or host that cannot be had, before a model is opened for it."""
    if port is None:
        return
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except (OSError, UnicodeError) as err:
            place = f"--port {port}" if host == "127.0.0.1" else f"--host {host[:80]} --port {port}"
            reason = getattr(err, "strerror", None) or str(err)
            raise PrerequisiteError(f"{place}: {reason}; expected a free port of this machine; choose another") from err
