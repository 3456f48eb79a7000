"""The verb `vocabulary carry`: a pack of a base model for a model that was tuned from it."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from babelscope.cli.argument_kinds import ByFunction, SavedAs, alone, free
from babelscope.cli.arguments import Device, Dtype, Out, Result
from babelscope.models.model_names import check_model_name


@alone
def run_carry(
    pack: Annotated[Positional[Path], SavedAs(("VocabularyPack",)), arg(metavar="PACK")],
    base: Annotated[Positional[str], ByFunction(check_model_name), arg(metavar="BASE")],
    instruct: Annotated[Positional[str], ByFunction(check_model_name), arg(metavar="INSTRUCT")],
    *,
    out: Out,
    way: Literal["swap", "overlap", "conversion", "shift"] = "swap",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> Result:
    """Carry the trained rows of a vocabulary from a base model to one tuned from it, without training.

    Args:
        pack: folder that `vocabulary extend`, `replace` or `train` saved, for the base.
        base: folder or hub id of the model that the pack was made for.
        instruct: folder or hub id of a model tuned from it, with the same shapes and entries.
        out: folder of the pack for the tuned model.
        way: how a new row is carried: as it is (swap); by the linear map from the base's rows to the tuned model's,
            over entries that both vocabularies have (overlap), or over all, new ones by their sub-words (conversion);
            or moved as its sub-words were (shift).
    """
    from babelscope.models import open_model
    from babelscope.vocabulary import VocabularyPack, carry_vocabulary

    free(out)
    loaded = VocabularyPack.load(pack)
    models = [open_model(name, device=device, dtype=dtype) for name in (base, instruct)]
    tuned_pack = carry_vocabulary(loaded, *models[0], *models[1], way=way)
    tuned_pack.save(out)
    return {
        "out": str(out),
        "languages": list(tuned_pack.languages),
        "entries": len(tuned_pack.source),
        "new": tuned_pack.n_new,
        "way": way,
        "tables": tuned_pack.parameters["carried"]["tables"],
    }
