"""What a tuner of peft is made of, and how it becomes known to peft."""

from typing import Any

from babelscope.upstream.names import imported


def tuner_class() -> Any:
    """The class that every tuner is derived from."""
    return imported("peft.tuners.tuners_utils", "peft.tuner")


def tuner_layer_class() -> Any:
    """The class that every wrapped module is derived from."""
    return imported("peft.tuners.tuners_utils", "peft.layer")


def register_tuner(kind: Any, config: type, tuner: type, prefix: str) -> None:
    """Enter a type of tuner into peft's tables, by which adapters are made and loaded.

    Its own `register_peft_method` takes only the types of its closed enumeration; it writes into the same tables.
    """
    for key, value in (("peft.configs", config), ("peft.tuners", tuner), ("peft.prefixes", prefix)):
        imported("peft.mapping", key)[kind] = value
