"""Whether the hub answers, before a library asks it six times and waits in between."""

import os
import ssl
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

SECONDS = 10


def no_answer_of_hub(cached: bool) -> str:
    """Why the hub cannot be asked, in words for a message; empty where it answers, whatever it says.

    It is asked once, through the proxies of the environment. Empty too where all that is wanted may come from a cache,
    and where the environment says that this machine is offline, as then no library waits.
    """
    from huggingface_hub import constants

    if cached or constants.HF_HUB_OFFLINE:
        return ""
    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=SECONDS):
            return ""
    except HTTPError:
        return ""
    except (URLError, OSError) as err:
        reason = getattr(err, "reason", err)
        # Other libraries may trust certificates that Python does not.
        return "" if isinstance(reason, ssl.SSLError) else f"{constants.ENDPOINT} does not answer: {reason}"


def config_is_cached(repository: str, revision: str | None) -> bool:
    """Whether nothing has to be asked: the settings are on this machine, or the name is none that a hub can have."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(repository, "config.json", revision=revision), str)
    except HFValidationError:
        return True


def no_data_set(name: str) -> str:
    """Why nothing of that name can be read from the hub, for a message; empty where it can be asked, or has a cache."""
    from datasets import config

    cached = os.path.isdir(os.path.join(config.HF_DATASETS_CACHE, name.replace("/", "___")))
    reason = no_answer_of_hub(cached)
    return reason and (
        f"{name!r}: no file or folder here, and the hub cannot be asked for a data set ({reason}); expected one of the "
        "two; check the path, and the network for a data set"
    )
