"""What a student has trained, as an artifact."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from babelscope.adaptation.material import Material
from babelscope.adapters.lora_adapter import LoraAdapter
from babelscope.artifacts import Origin
from babelscope.subnetworks import Delta, Dense, ElementDelta, Student, Subnetwork


class Trained(NamedTuple):
    """One of both."""

    delta: Delta | ElementDelta | None
    adapter: LoraAdapter | None


def trained_change(student: Student, material: Material, origin: Origin, parameters: Mapping[str, Any]) -> Trained:
    """The change of the weights so far, while the student is installed.

    A subnetwork's is a Delta. That of parameters is an ElementDelta: of the values under the mask, or without a mask of
    all that moved. SHiRA's is an ElementDelta of its single weights, and LoRA gives its adapter.
    origin: of the model before the training.
    """
    if isinstance(student, Subnetwork):
        return Trained(Delta.of(student.bank.neurons, student.bank.changes(), parameters=parameters), None)
    facts, languages = dict(parameters), (material.language,)
    if isinstance(student, Dense):
        live = student.parameters
        changed = {name: (live[name].detach() != start).to("cpu") for name, start in student.base.items()}
        masks = changed if student.masks is None else student.masks
        delta = ElementDelta.between(
            student.base, material.model, masks, origin=origin, languages=languages, parameters=facts
        )
        # The origin is of the base, so that every weight of it says which model the change is for.
        return Trained(replace(delta, origin=origin), None)
    from babelscope.adapters.peft_training import PeftStudent

    assert isinstance(student, PeftStudent)
    adapter = student.adapter()
    if adapter is not None:
        return Trained(None, adapter)
    return Trained(ElementDelta(origin, languages, student.shira_elements(), facts), None)
