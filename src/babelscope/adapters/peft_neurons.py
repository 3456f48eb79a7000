"""A language's neurons as a tuner of the `peft` library, so that other training loops train them and nothing else.

`get_peft_model(model, LanguageNeurons(sets["eu"]))` gives a model that Trainer, SFTTrainer and accelerate take as any
other of peft's. Importing this module makes the type known to peft, which is needed before such an adapter is loaded.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel
from torch import nn

from babelscope.adapters.neuron_projections import NeuronProjection, projections_of
from babelscope.adapters.peft_linear import PREFIX, NeuronLinear
from babelscope.artifacts import NeuronSet
from babelscope.artifacts.identity import differences, read_origin
from babelscope.artifacts.model_settings import hash_settings, settings_of
from babelscope.axes import Tensor
from babelscope.errors import ArtifactError, PrerequisiteError, SelectionError
from babelscope.languages import parse_languages
from babelscope.models import check_made_for, layout_of
from babelscope.models.plain import CausalModel
from babelscope.subnetworks.delta import Delta
from babelscope.upstream.cut_weights import gathered
from babelscope.upstream.tuners import register_tuner, tuner_class, tuner_layer_class

_Tuner: Any = tuner_class()


class TunerType(StrEnum):
    """The name of this type in adapter_config.json. peft's own list of types is closed, so it stands beside it."""

    LANGUAGE_NEURONS = "LANGUAGE_NEURONS"


@dataclass(init=False)
class LanguageNeurons(PeftConfig):
    """The configuration: which neurons of which model, for which language; all of it is saved with the adapter.

    What is trained is the change of the neurons' weights, which begins at zero, in float32. So weight decay of an
    optimizer pulls the neurons towards the base model, never towards zero.
    """

    neurons: dict[str, list[int]] = field(default_factory=dict)
    """Neurons by layer."""
    languages: list[str] = field(default_factory=list)
    n_layers: int = 0
    n_neurons: int = 0
    """Neurons a layer."""
    origin: dict[str, Any] = field(default_factory=dict)
    """Of the model that they are neurons of."""
    target_modules: list[str] | None = None
    """The projections, worked out when a model is wrapped."""
    modules_to_save: list[str] | None = None
    """Modules that are trained whole beside the neurons, as in peft's other methods."""

    def __init__(
        self,
        neurons: NeuronSet | Mapping[str, list[int]],
        *,
        languages: Sequence[str] = (),
        n_layers: int = 0,
        n_neurons: int = 0,
        origin: Mapping[str, Any] | None = None,
        target_modules: Sequence[str] | None = None,
        modules_to_save: Sequence[str] | None = None,
        **settings: Any,
    ) -> None:
        """neurons: a set of one language, such as sets["eu"]; modules_to_save and settings are as peft has them.

        The other arguments are those of a saved adapter, whose neurons come by layer.
        Raises SelectionError for an empty set, or one of several languages.
        """
        if isinstance(neurons, NeuronSet):
            if len(neurons.languages) != 1 or not len(neurons.indices):
                raise SelectionError(
                    f"a set of {len(neurons.indices)} neurons of {len(neurons.languages)} languages came; expected "
                    f"neurons of one language; take sets['{neurons.languages[0]}']"
                )
            languages, n_layers, n_neurons = neurons.languages, neurons.n_layers, neurons.n_neurons
            origin = asdict(neurons.origin)
            neurons = {str(layer): neurons.layer_of(0, layer).tolist() for layer in range(n_layers)}
        self.neurons = {layer: list(row) for layer, row in neurons.items() if row}
        self.languages, self.n_layers, self.n_neurons = [str(tag) for tag in languages], n_layers, n_neurons
        self.origin = dict(origin or {})
        self.target_modules = None if target_modules is None else sorted(target_modules)
        self.modules_to_save = None if modules_to_save is None else list(modules_to_save)
        super().__init__(**{"task_type": "CAUSAL_LM", **settings, "peft_type": TunerType.LANGUAGE_NEURONS})

    @property
    def title(self) -> str:
        """For messages."""
        return f"neurons of {' + '.join(self.languages) or 'no language'}"

    def check(self, model: CausalModel) -> None:
        """Raise ArtifactError for neurons of another model, PrerequisiteError for a model with fused experts.

        Where other adapters stand in the model its weights cannot be compared, and its settings alone are.
        """
        layout = layout_of(model)
        if layout.n_experts:
            raise PrerequisiteError(
                f"{self.title}: {model.config.model_type} has fused experts, of which peft wraps none alone; expected "
                "a dense model; train with babelscope.train_subnetwork"
            )
        origin = read_origin(self.origin)
        adapted = any(isinstance(module, tuner_layer_class()) for module in model.modules())
        if adapted:
            settings = settings_of(model.config)
            live = replace(origin, config=settings, model_hash=hash_settings(settings), weights="", weights_hash="")
            if difference := differences(origin, live, tokenizer=False):
                raise ArtifactError(
                    f"{self.title}: of {origin.model!r}, and this model is another: {difference}; open that"
                )
        else:
            check_made_for(origin, model, None, self.title)
        if (self.n_layers, self.n_neurons) != (layout.n_layers, layout.d_neuron):
            raise ArtifactError(
                f"{self.title}: {self.n_layers} layers of {self.n_neurons} neurons; expected {layout.n_layers} of "
                f"{layout.d_neuron} as in this model; they are of another one"
            )

    def projections(self, model: CausalModel) -> Iterator[NeuronProjection]:
        """The parts of a model's projections that are trained, layer after layer."""
        layout = layout_of(model)
        for layer in sorted(map(int, self.neurons)):
            yield from projections_of(layout, layer, torch.tensor(self.neurons[str(layer)]))


class LanguageNeuronTuner(_Tuner):
    """What peft makes of the configuration: the projections' modules, each wrapped in a NeuronLinear."""

    prefix, tuner_layer_cls, target_module_mapping = PREFIX, NeuronLinear, {}

    def _prepare_adapter_config(self, peft_config: LanguageNeurons, model_config: Any) -> LanguageNeurons:
        return peft_config

    def _prepare_model(self, peft_config: LanguageNeurons, model: nn.Module) -> None:
        base: Any = model
        peft_config.check(base)
        names = {id(module): name for name, module in model.named_modules()}
        part_by_module = {names[id(base.get_submodule(part.module))]: part for part in peft_config.projections(base)}
        self._parts: dict[str, NeuronProjection] = part_by_module
        peft_config.target_modules = sorted(part_by_module)

    def _check_target_module_exists(self, peft_config: LanguageNeurons, key: str) -> bool:
        # By the whole name: peft shortens long lists of target_modules to their common endings.
        return key in self._parts

    def _create_and_replace(
        self,
        peft_config: LanguageNeurons,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        part = self._parts[current_key]
        if isinstance(target, NeuronLinear):
            target.add_adapter(adapter_name, part, trained=not peft_config.inference_mode)
            return
        wrapped = NeuronLinear(target)
        wrapped.add_adapter(adapter_name, part, trained=not peft_config.inference_mode)
        cast(Any, self)._replace_module(parent, target_name, wrapped, target)

    def _unload_and_optionally_merge(
        self,
        merge: bool = True,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> nn.Module:
        """As peft does; an adapter of another kind inside a projection is merged with it and not dropped."""
        for module in self.model.modules() if merge else ():
            if isinstance(module, NeuronLinear) and isinstance(module.base_layer, tuner_layer_class()):
                cast(Any, module.base_layer).merge(safe_merge=safe_merge, adapter_names=adapter_names)
        above: Any = super()
        return above._unload_and_optionally_merge(merge, progressbar, safe_merge, adapter_names)


register_tuner(TunerType.LANGUAGE_NEURONS, LanguageNeurons, LanguageNeuronTuner, PREFIX)


def delta_of(model: PeftModel, adapter: str = "default") -> Delta:
    """What an adapter of this type has learnt, as a Delta: to save, compare, add to others, or export.

    Where the weights are cut over processes (FSDP2), every process must call this: the rows are gathered from all.
    Raises ArtifactError for an adapter of another type, or none of this name.
    """
    config: Any = model.peft_config.get(adapter)
    if not isinstance(config, LanguageNeurons):
        kind = "none of that name" if config is None else type(config).__name__
        raise ArtifactError(
            f"adapter {adapter!r}: {kind}; expected LanguageNeurons, one of {', '.join(model.peft_config)}; name it"
        )
    layers = [module for module in model.modules() if isinstance(module, NeuronLinear) and adapter in module.changes]
    rows: dict[str, list[Tensor]] = {}
    for layer in layers:
        part = layer.parts[adapter]
        changes = gathered(layer.changes[adapter].detach()).to("cpu", torch.float32).chunk(len(part.roles))
        for role, change in zip(part.roles, changes, strict=True):
            rows.setdefault(role, []).append(change)
    counts = torch.tensor([len(config.neurons.get(str(layer), ())) for layer in range(config.n_layers)])
    return Delta(
        origin=read_origin(config.origin),
        languages=parse_languages(config.languages),
        n_neurons=config.n_neurons,
        offsets=torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
        indices=torch.tensor(
            [neuron for layer in sorted(map(int, config.neurons)) for neuron in config.neurons[str(layer)]],
            dtype=torch.int32,
        ),
        parameters={"method": "peft LanguageNeurons"},
        **{role: torch.cat(parts) for role, parts in rows.items()},
    )
