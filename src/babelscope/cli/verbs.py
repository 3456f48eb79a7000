"""One function a verb: arguments → one call of the library → what to print."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from transformers.utils import logging as transformers_logging
from tyro.conf import Positional

from babelscope.ablation import ablation_matrix
from babelscope.adapters.masks import import_mask
from babelscope.artifacts import Direction, NeuronSet, Observation, Origin, SteeringRecipe
from babelscope.cli.doctor import doctor
from babelscope.controls import write_evidence
from babelscope.corpus import load_corpus
from babelscope.demo import run_demo
from babelscope.demo.results import ablation_summary, plain, sweep_row
from babelscope.directions import mean_direction
from babelscope.errors import ArtifactError, CorpusError, SelectionError
from babelscope.evaluation import bits_per_byte, check_labels, judge_answers
from babelscope.identification import check_sets, evidence_rows
from babelscope.languages import Language
from babelscope.models import layout_of, open_model, origin_of
from babelscope.neurons import SELECTORS
from babelscope.recording import observe, plan_observation
from babelscope.report import write_report
from babelscope.runs import write_atomic
from babelscope.sites import At
from babelscope.sweeps import Decoding, Prompt, generate_answers, macro, steering_study

Result = Mapping[str, Any]


def call_verb(verb: str, words: list[str]) -> Result:
    """Parse a verb's arguments from the signature of its function, and call it."""
    transformers_logging.disable_progress_bar()
    return tyro.cli(TABLE[verb], args=words, prog=f"babelscope {verb}")


def free(out: Path) -> Path:
    """The path, if nothing is there yet."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ArtifactError(f"{out}: already there; expected a new path; choose another --out or remove it")
    return out


def run_observe(
    model: Positional[str],
    corpus: Positional[str],
    *,
    out: Path,
    languages: tuple[str, ...] = (),
    split: str = "train",
    sites: tuple[str, ...] = ("mlp_gate", "mlp_inner", "resid_out"),
    tokens_per_language: int = 100_000,
    shards: int = 32,
    shard: str = "0/1",
    batch_size: str = "auto",
    max_length: int = 512,
    resume: bool = False,
    dry_run: bool = False,
    check_language: bool = True,
    device: str = "auto",
    dtype: str = "auto",
) -> Result:
    """One pass of labelled text through a model, into an Observation.

    Args:
        model: folder, hub id, or "reference".
        corpus: folder of <tag>.txt or <tag>.jsonl, hub id, or "reference".
        out: folder of the Observation; an interrupted pass is kept beside it.
        languages: BCP-47 tags; none means every file of the corpus folder.
        sites: names for all layers, or one such as 5.resid_out.
        tokens_per_language: at most; 0 means all text.
        shard: i/n reads only documents whose shard mod n is i; merge the n parts after.
        resume: go on with an interrupted pass; done at once if it is complete.
        dry_run: print tokens and bytes, run nothing.
        check_language: refuse text that is mostly another language than its label says.
    """
    if resume and (out / "config.json").is_file():
        return {"out": str(out), "tokens": Observation.load(out).tokens, "resumed_tokens": "complete"}
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    free(out)
    if checkpoint.exists() and not resume:
        raise ArtifactError(f"{checkpoint}: an interrupted pass is there; expected none; use --resume or remove it")
    texts = load_corpus(corpus, languages or None, split=split)
    if check_language:
        check_labels(texts)
    opened, tokenizer = open_model(model, device=device, dtype=dtype)
    limit = tokens_per_language or None
    if dry_run:
        plan = plan_observation(opened, texts, sites=sites, tokens_per_language=limit, shards=shards)
        return {"tokens": plan.tokens, "megabytes": round(plan.result_bytes / 1e6, 1), "sites": list(plan.sites)}
    try:
        i, n = (int(part) for part in shard.split("/"))
    except ValueError:
        raise CorpusError(f"--shard {shard!r} came; expected i/n such as 0/4; correct it") from None
    with stop_on_interrupt() as stopped:
        observation = observe(
            opened,
            tokenizer,
            texts,
            sites=sites,
            tokens_per_language=limit,
            shards=shards,
            part=(i, n),
            batch_size=batch_size if batch_size == "auto" else int(batch_size),
            max_length=max_length,
            checkpoint=checkpoint,
            progress=True,
            stop=stopped,
        )
    observation.save(out)
    resumed = read_resumed(checkpoint)
    shutil.rmtree(checkpoint, ignore_errors=True)
    return {"out": str(out), "tokens": observation.tokens, "resumed_tokens": resumed}


def read_resumed(checkpoint: Path) -> int:
    """Tokens that a resumed pass took over from its checkpoint."""
    file = checkpoint / "resumed.json"
    return int(json.loads(file.read_text())["tokens"]) if file.is_file() else 0


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM end the pass between two batches, with its checkpoint written."""
    asked = []
    earlier = {name: signal.signal(name, lambda *_: asked.append(1)) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for name, handler in earlier.items():
            signal.signal(name, handler)


def run_merge(observations: Positional[tuple[Path, ...]], *, out: Path) -> Result:
    """Add observations; each part may come once."""
    free(out)
    if not observations:
        raise ArtifactError("no observation came; expected at least one folder; name them")
    total, *rest = (Observation.load(path) for path in observations)
    for other in rest:
        total = total + other
    total.save(out)
    return {"out": str(out), "tokens": total.tokens, "parts": list(total.parts)}


def run_identify(
    observation: Positional[Path],
    *,
    out: Path,
    method: Literal["lape", "entropy-lambda", "top-rate"] = "lape",
    top_rate: float = 0.01,
    at: At = "mlp_gate",
    parallel: bool = False,
    compare_with: Path | None = None,
    draws: int = 200,
    seed: int = 0,
) -> Result:
    """Which neurons belong to which language, with bootstrap intervals, half-splits and shuffled labels.

    Args:
        observation: folder of an Observation with at least 20 document shards.
        out: folder of the NeuronSet; evidence.jsonl beside it holds the controls.
        top_rate: share of all neurons taken.
        parallel: the documents are line-parallel; resamples then draw the same sentences in every language.
        compare_with: an Observation of other text, such as parallel text: is it language or genre?
    """
    free(out)
    observed = Observation.load(observation)
    sets = SELECTORS[method](observed, top_rate=top_rate, at=at)
    sets = getattr(sets, "sets", sets)
    if isinstance(sets, dict) or not len(sets.indices):
        raise SelectionError(
            f"{method} at top_rate {top_rate} selects nothing; expected at least one neuron; raise top_rate"
        )
    other = None if compare_with is None else Observation.load(compare_with)
    checks = check_sets(observed, sets, parallel=parallel, other=other, draws=draws, seed=seed)
    sets.save(out)
    write_evidence(evidence_rows(checks), out / "evidence.jsonl")
    return {
        "out": str(out),
        "neurons": sets.sizes,
        "stability": {tag: [round(x, 3) for x in list(row)[:4]] for tag, row in checks.stability.items()},
    }


def run_direct(
    observation: Positional[Path],
    *,
    target: str,
    layer: int,
    out: Path,
    source: tuple[str, ...] = (),
    at: At = "resid_out",
) -> Result:
    """The direction from one language, or the mean of several, to another; no source means all others."""
    free(out)
    direction = mean_direction(Observation.load(observation), target=target, source=source or None, layer=layer, at=at)
    direction.save(out)
    return {"out": str(out), "norm": direction.norm, "mean_norm": direction.mean_norm}


def run_ablate(
    model: Positional[str],
    neurons: Positional[Path],
    corpus: Positional[str],
    *,
    out: Path,
    observation: Path | None = None,
    split: str = "test",
    to: Literal["zero", "mean"] = "zero",
    draws: int = 19,
    max_tokens: int = 5_000,
    device: str = "auto",
    dtype: str = "auto",
    seed: int = 0,
) -> Result:
    """Switch each language's set off and measure the harm on every language's held-out text, beside random sets.

    Args:
        neurons: folder of a NeuronSet.
        observation: where contributions and means come from; none observes the same text for them.
        max_tokens: scored tokens a language.
    """
    free(out)
    sets = NeuronSet.load(neurons)
    if not len(sets.indices):
        raise SelectionError(
            f"{neurons}: every set is empty; expected at least one neuron; select with a larger top_rate"
        )
    texts = load_corpus(corpus, sets.languages, split=split)
    opened, tokenizer = open_model(model, device=device, dtype=dtype)
    observed = None if observation is None else Observation.load(observation)
    table = ablation_matrix(
        opened,
        tokenizer,
        sets,
        texts,
        draws=draws,
        to=to,
        observation=observed,
        max_tokens=max_tokens,
        seed=seed,
        progress=True,
    )
    summary = plain({"languages": list(sets.languages), "to": to, **ablation_summary(table)})
    write_atomic(out / "ablation.json", json.dumps(summary, indent=1, ensure_ascii=False))
    return {"out": str(out), "own_hurt_most": summary["own_hurt_most"], "own_harm": plain(table.own_harm())}


def run_steer(
    model: Positional[str],
    steering: Positional[Path],
    prompts: Positional[tuple[str, ...]] = (),
    *,
    strength: float = 1.0,
    unit: Literal["raw", "unit", "relative"] = "raw",
    new_tokens: int = 64,
    temperature: float = 0.8,
    sweep: bool = False,
    corpus: str = "reference",
    targets: tuple[str, ...] = (),
    layers: tuple[int, ...] = (),
    strengths: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5),
    out: Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    seed: int = 0,
) -> Result:
    """Answer prompts under a Direction or SteeringRecipe; or, with --sweep, measure steering from an Observation.

    Args:
        steering: folder of a Direction or SteeringRecipe; of an Observation (with resid_out) for --sweep.
        prompts: texts to continue; one that names a file stands for the file's lines.
        strength: of a Direction, in its unit; a recipe carries its own.
        sweep: choose layer and strength on the corpus's valid split, score on its test split, write --out.
        targets: for --sweep; none means all observed languages.
        layers: for --sweep; none means the middle third.
    """
    opened, tokenizer = open_model(model, device=device, dtype=dtype)
    decoding = Decoding(new_tokens=new_tokens, temperature=temperature, seed=seed)
    if sweep:
        return sweep_steering(opened, tokenizer, steering, corpus, targets, layers, strengths, out, decoding)
    kind = json.loads((steering / "config.json").read_text())["format"] if (steering / "config.json").is_file() else ""
    if kind.startswith("babelscope.SteeringRecipe"):
        operations = list(SteeringRecipe.load(steering))
    else:
        operations = [Direction.load(steering).add(strength, unit)]
    texts = [
        line for text in prompts for line in (Path(text).read_text().splitlines() if Path(text).is_file() else [text])
    ]
    if not texts:
        raise CorpusError("no prompt came; expected a text or a file of lines; add one")
    nobody = Language("und")
    requests = [(Prompt(str(number), nobody, text), nobody) for number, text in enumerate(texts)]
    answers = generate_answers(opened, tokenizer, requests, lambda target, source: operations, decoding=decoding)
    return {"answers": [{"prompt": answer.prompt.text, "answer": answer.text} for answer in answers]}


def sweep_steering(
    model: Any,
    tokenizer: Any,
    observation: Path,
    corpus: str,
    targets: tuple[str, ...],
    layers: tuple[int, ...],
    strengths: tuple[float, ...],
    out: Path | None,
    decoding: Decoding,
) -> Result:
    """The dose–response study behind `steer --sweep`."""
    if out is None:
        raise ArtifactError("--sweep came without --out; expected a folder for its table; add --out")
    free(out)
    observed, n_layers = Observation.load(observation), layout_of(model).n_layers
    wanted = targets or observed.languages
    study = steering_study(
        model,
        tokenizer,
        observed,
        dev=load_corpus(corpus, observed.languages, split="valid"),
        test=load_corpus(corpus, observed.languages, split="test"),
        targets=wanted,
        layers=layers or tuple(range(n_layers // 3, 2 * n_layers // 3)),
        strengths=strengths,
        decoding=decoding,
        progress=True,
    )
    trials = {"steered": study.steered, "native": study.native, "unsteered": study.unsteered, "random": study.random}
    result = {
        "layer": study.chosen.layer,
        "strength": study.chosen.strength,
        "macro": {name: list(macro(trial.answers, trial.scores)) for name, trial in trials.items()},
        "success": {tag: [score.success, score.low, score.high] for tag, score in study.steered.scores.items()},
        "perplexity_ratio": {tag: score.perplexity_ratio for tag, score in study.steered.scores.items()},
        "sweep": [sweep_row(point) for point in study.points],
        "not_measurable": list(study.not_measurable),
    }
    write_atomic(out / "steering.json", json.dumps(plain(result), indent=1, ensure_ascii=False))
    for tag, direction in study.directions.items():
        direction.save(out / "directions" / tag)
    return {"out": str(out), **plain({key: result[key] for key in ("layer", "strength", "macro")})}


def run_evaluate(
    what: Positional[Literal["perplexity", "confusion"]],
    model: Positional[str],
    corpus: Positional[str],
    *,
    languages: tuple[str, ...] = (),
    split: str = "test",
    max_length: int = 512,
    device: str = "auto",
    dtype: str = "auto",
) -> Result:
    """Held-out bits per byte of a model (perplexity), or the language of answers in files by target (confusion).

    Args:
        what: "confusion" reads <tag>.txt of answers meant for that language, one a line; its model argument is "-".
    """
    texts = load_corpus(corpus, languages or None, split=split)
    if what == "perplexity":
        opened, tokenizer = open_model(model, device=device, dtype=dtype)
        return {"bits_per_byte": bits_per_byte(opened, tokenizer, texts, max_length=max_length)}
    found = {}
    for tag, documents in texts.items():
        verdicts = [judged.verdict for judged in judge_answers([d.text for d in documents], [tag] * len(documents))]
        found[tag] = {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))}
    return {"verdicts": found}


def run_report(runs: Positional[tuple[Path, ...]], *, out: Path | None = None, include_samples: bool = True) -> Result:
    """One self-contained HTML page from run folders with results.json."""
    return {"report": str(write_report(list(runs), out=out, include_samples=include_samples))}


def run_import_mask(
    file: Positional[Path],
    *,
    out: Path,
    languages: tuple[str, ...],
    n_neurons: int = 0,
    model: str = "",
) -> Result:
    """Read a published LAPE mask as a NeuronSet.

    Args:
        languages: in the file's order; required, for the file names none.
        n_neurons: neurons a layer; 0 asks the model.
        model: folder or hub id it was made for, whose shape and hash the set then carries.
    """
    free(out)
    origin: Origin | None = None
    layers = 0
    if model:
        opened, tokenizer = open_model(model)
        layout, origin = layout_of(opened), origin_of(opened, tokenizer)
        n_neurons, layers = layout.width("mlp_gate"), layout.n_layers
    if not n_neurons:
        raise ArtifactError("neither --n-neurons nor --model came; expected one, to check the indices; add it")
    sets = import_mask(file, languages=languages, n_neurons=n_neurons, origin=origin)
    if layers and sets.n_layers != layers:
        raise ArtifactError(
            f"{file}: {sets.n_layers} layers; expected {layers} as in {model!r}; it is for another model"
        )
    sets.save(out)
    return {"out": str(out), "neurons": sets.sizes, "union": sets.parameters["union"]}


def demo(
    *,
    out: Path,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    include_samples: Annotated[bool, tyro.conf.arg(help="show text in the report")] = True,
) -> Result:
    """The main job on the bundled model and corpus; writes results.json and report.html into a new folder."""
    results = run_demo(out, device=device, dtype=dtype, seed=seed, include_samples=include_samples, progress=True)
    return {
        "report": str(out / "report.html"),
        "neurons": results["neurons"],
        "top_rate": results["top_rate"],
        "own_hurt_most": sum(results["ablation"]["own_hurt_most"].values()),
        "steering_macro": results["steering"]["macro"],
        "seconds": results["seconds"],
    }


TABLE: dict[str, Callable[..., Result]] = {
    "demo": demo,
    "observe": run_observe,
    "merge": run_merge,
    "identify": run_identify,
    "direct": run_direct,
    "ablate": run_ablate,
    "steer": run_steer,
    "evaluate": run_evaluate,
    "report": run_report,
    "import-mask": run_import_mask,
    "doctor": doctor,
}
