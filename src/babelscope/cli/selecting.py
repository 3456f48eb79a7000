"""The verbs `identify`, `direct` and `import-mask`: from counts, or a foreign file, to an artifact."""

from dataclasses import fields as rule_fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from babelscope.artifacts.stream_forms import StreamForm
from babelscope.cli.argument_kinds import PlainFile, free
from babelscope.cli.arguments import Counts, LanguageTag, ModelName, Observed, Out, Result
from babelscope.cli.flag_conditions import UsedWith
from babelscope.cli.quantities import Count, Draws, Layer, PositiveShare, Seed
from babelscope.cli.telling import Told
from babelscope.errors import ArtifactError, SelectionError, UsageError
from babelscope.neurons.rule_files import rule_names
from babelscope.sites import At

if TYPE_CHECKING:
    Method = str
else:
    Method = Literal[rule_names("babelscope.neurons.rules")]


def run_identify(
    observation: Observed,
    *,
    out: Out,
    method: Method = "lape",
    top_rate: Annotated[
        PositiveShare,
        UsedWith("with every --method but specialization", lambda call: call["method"] != "specialization"),
    ] = 0.01,
    share: Annotated[
        PositiveShare, UsedWith("with --method specialization", lambda call: call["method"] == "specialization")
    ] = 0.95,
    at: At = "mlp_gate",
    parallel: bool = False,
    compare_with: Counts | None = None,
    draws: Draws = 200,
    seed: Seed = 0,
) -> Result:
    """Which neurons belong to which language, with bootstrap intervals, half-splits and shuffled labels.

    Args:
        observation: folder of an Observation with at least 20 document shards.
        out: folder of the NeuronSet; evidence.jsonl beside it holds the controls.
        method: the rule; docs/methods.md lists them with what they take.
        top_rate: share of all neurons taken.
        share: specialization: share of a layer's activity that a language's neurons carry.
        at: the site whose neurons are asked.
        parallel: the documents are line-parallel; resamples then draw the same sentences in every language.
        compare_with: an Observation of other text, such as parallel text: is it language or genre?
        draws: bootstrap resamples, half-splits and shuffles, each so many.
    """
    from babelscope.artifacts import Observation
    from babelscope.cli.saved import stability_rows
    from babelscope.cli.telling_counts import set_lines
    from babelscope.controls import write_evidence
    from babelscope.files.writing import new_folder
    from babelscope.neurons import check_sets, evidence_rows, neuron_rule

    free(out)
    observed = Observation.load(observation)
    names = {part.name for part in rule_fields(neuron_rule(method))}
    settings = {name: value for name, value in {"top_rate": top_rate, "share": share}.items() if name in names}
    sets = neuron_rule(method, **settings).choose(observed, at=at)
    if not len(sets.indices):
        what = ", ".join(f"{name} {value}" for name, value in settings.items())
        raise SelectionError(
            f"{method} at {what} selects nothing; expected at least one neuron; raise {' or '.join(settings)}"
        )
    other = None if compare_with is None else Observation.load(compare_with)
    checks = check_sets(observed, sets, parallel=parallel, other=other, draws=draws, seed=seed)
    with new_folder(out) as folder:
        sets.save(folder)
        write_evidence(evidence_rows(checks), folder / "evidence.jsonl")
    fields = {"out": str(out), "neurons": sets.sizes, "stability": stability_rows(checks.stability)}
    return Told(fields, set_lines(sets, checks.stability, draws, out))


def run_direct(
    observation: Observed,
    *,
    target: LanguageTag,
    layer: Layer | None = None,
    out: Out,
    source: tuple[LanguageTag, ...] = (),
    at: At = "resid_out",
    form: StreamForm = "auto",
) -> Result:
    """The direction from one language, or the mean of several, to another.

    Args:
        observation: folder of an Observation that has the site.
        target: the language it leads to.
        layer: 0 is the first; none takes the one at a quarter of the depth, which the last line says; `steer --sweep`
            finds the one that steers best.
        out: folder of the Direction.
        source: the languages it leads away from; none means all others.
        at: the site whose means are compared.
        form: whole (all tokens and units), ordinary (without first tokens and massive units), or auto (ordinary where
            one unit or the first tokens would dominate).
    """
    from babelscope.artifacts import Observation
    from babelscope.cli.telling_counts import direction_lines
    from babelscope.steering.directions import mean_direction
    from babelscope.steering.sweeps.sweep_grid import usual_layer

    free(out)
    observed = Observation.load(observation)
    chosen = layer is None
    layer = usual_layer(observed[at].layers) if layer is None else layer
    make = partial(mean_direction, observed, target=target, source=source or None, layer=layer, at=at)
    direction = make(form=form)
    direction.save(out)
    stream = observed.stream(at, layer)
    forms = ("whole",) if stream is None or not stream.ordinary_tokens else ("whole", "ordinary")
    fields = {
        "out": str(out),
        "layer": layer,
        "form": direction.form,
        "norm": direction.norm,
        "mean_norm": direction.mean_norm,
        "median_norm": direction.median_norm,
        "relative_to": direction.scale,
        "left_out": list(direction.left_out),
        "largest_unit_of_vector": {name: make(form=name).largest_share for name in forms},
        "stream": "not kept" if stream is None or len(forms) == 1 else stream.shares._asdict(),
    }
    advice = (
        f"layer {layer} was taken, at a quarter of the depth, as none was named; measured it is not: `babelscope steer "
        f"MODEL {observation} --sweep --out sweep` tries several, --layer names one"
    )
    return Told(fields, [*direction_lines(direction, stream, out), *([advice] if chosen else [])])


def run_import_mask(
    file: Annotated[Positional[Path], PlainFile(), arg(metavar="FILE")],
    *,
    out: Out,
    languages: tuple[LanguageTag, ...],
    n_neurons: Annotated[Count | None, UsedWith("without --model", lambda call: not call["model"])] = None,
    model: ModelName = "",
) -> Result:
    """Read a published LAPE mask as a NeuronSet.

    Args:
        file: a mask as its authors publish it, read without running code.
        out: folder of the NeuronSet.
        languages: in the file's order; required, for the file names none.
        n_neurons: neurons per layer; none asks the model.
        model: folder or hub id it was made for, whose shape and hash the set then carries.
    """
    free(out)
    if n_neurons is None and not model:
        raise UsageError("neither --n-neurons nor --model came; expected one, to check the indices; add it")
    from babelscope.adapters.masks import import_mask
    from babelscope.artifacts import Origin
    from babelscope.models import layout_of, open_model, origin_of

    origin: Origin | None = None
    layers, width = 0, n_neurons or 0
    if model:
        language_model, tokenizer = open_model(model)
        layout, origin = layout_of(language_model), origin_of(language_model, tokenizer)
        width, layers = layout.width("mlp_gate"), layout.n_layers
    sets = import_mask(file, languages=languages, n_neurons=width, origin=origin)
    if layers and sets.n_layers != layers:
        raise ArtifactError(
            f"{file}: {sets.n_layers} layers; expected {layers} as in {model!r}; it is for another model"
        )
    sets.save(out)
    return {"out": str(out), "neurons": sets.sizes, "union": sets.parameters["union"]}
