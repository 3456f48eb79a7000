"""Several LoRA adapters in one model, chosen token by token and layer by layer, by peft's Arrow."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from babelscope.adapters.lora_adapter import LoraAdapter
from babelscope.adapters.peft import model_given_back
from babelscope.errors import ArtifactError, PrerequisiteError
from babelscope.models import eval_mode
from babelscope.models.plain import CausalModel


@contextmanager
def arrow_routing(
    model: CausalModel,
    tasks: Sequence[LoraAdapter],
    *,
    general: Sequence[LoraAdapter] = (),
    top_k: int = 3,
    temperature: float = 1.0,
    seed: int = 0,
) -> Iterator[None]:
    """While open the model runs with adapters weighted for each token and layer; after it, it is what it was.

    In each projection an adapter's prototype is the first right singular vector of B A; a token's weights are the
    softmax of |x · prototype| / temperature over its `top_k` largest (Arrow, Ostapenko et al. 2024, arXiv:2405.11157;
    peft's `create_arrow_model`). peft finds it by 15 steps of power iteration from a start drawn with `seed`, so it is
    rough where the two largest singular values are close.
    general: adapters of general text whose mean peft subtracts from every task's, factor by factor, as GenKnowSub's
    code does (arXiv:2505.10939): that is not the difference of what the adapters change. For that difference hand over
    `without_general(task, general)` as tasks, and nothing here.
    Raises PrerequisiteError where peft is not installed, ArtifactError for no adapter, unlike ones, one of another
    model, or a top_k that is not there.
    """
    try:
        from peft import ArrowConfig, create_arrow_model
    except ImportError as err:
        raise PrerequisiteError("the peft library is not installed; pip install 'babelscope[peft]'") from err
    ranks = {adapter.config.get("r") for adapter in (*tasks, *general)}
    modules = {adapter.modules for adapter in (*tasks, *general)}
    if len(ranks) != 1 or len(modules) != 1 or not 1 <= top_k <= len(tasks) or not 0 < temperature < math.inf:
        raise ArtifactError(
            f"{len(tasks)} task adapters of ranks {sorted(map(str, ranks))} on {len(modules)} choices of projections, "
            f"top_k {top_k}, temperature {temperature} came; expected adapters of one rank and one choice, a top_k "
            "from 1 to their number, and a temperature above 0; correct them"
        )
    for adapter in (*tasks, *general):
        adapter.check(model)
    with model_given_back(model), eval_mode(model), TemporaryDirectory() as folder, warnings.catch_warnings():
        # peft 0.21 asks for a property that transformers 5.23 deprecates.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        paths = {
            kind: [str(adapter.save(Path(folder) / f"{kind}{number}")) for number, adapter in enumerate(adapters)]
            for kind, adapters in (("task", tasks), ("general", general))
        }
        config = ArrowConfig(top_k=top_k, router_temperature=temperature, use_gks=bool(general), rng_seed=seed)
        wrapped = create_arrow_model(
            base_model=model,
            task_specific_adapter_paths=paths["task"],
            general_adapter_paths=paths["general"] or None,
            arrow_config=config,
        )
        wrapped.eval()
        yield
