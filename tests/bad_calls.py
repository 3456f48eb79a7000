"""Calls of every verb that are wrong in one way each."""

from inspect import Parameter, signature

from cli_calls import USED

from babelscope.cli.calling import flag_of, function_of, types_of
from babelscope.cli.verbs import VERBS, split_verb

ZERO = {
    *("seed", "layer", "layers", "min-count", "temperature", "decay", "strength", "strengths", "scale", "tau", "ratio"),
    *("align-layer", "dense-l1", "sparse-l1", "replay-share", "replay-shares", "harm-bound"),
    *("observe:tokens-per-language", "features:tokens-per-language", "features:cap", "study:part-tokens"),
    *("knowledge:barrier", "knowledge:clusters", "priming:count", "steer:side-effects"),
    *("edit:contexts", "edit:new-tokens", "consistency:count"),
    *("experts:guide", "experts:balance"),
    *("vocabulary trim:size", "vocabulary extend:size", "vocabulary replace:size"),
}
"""Numbers that may be 0: of every verb, or of the one that is named."""
NEGATIVE = ["strength", "strengths", "scale"]
BIG = "1" + "0" * 30


def numbers_of(verb):
    """(flag, whole numbers or not) of each number of a verb."""
    for name, parameter in signature(function_of(verb)).parameters.items():
        kinds = {int, float} & set(types_of(parameter.annotation))
        if kinds and parameter.kind is Parameter.KEYWORD_ONLY:
            yield name.replace("_", "-"), int in kinds


def call_with(verb, flag):
    """A call that uses the flag, without it."""
    words = next(words for words, used in USED if split_verb(words.split())[0] == verb and flag in used.split())
    return without(words.split(), flag)


def without(words, flag):
    """The words without a flag and its value."""
    if f"--{flag}" not in words:
        return words
    at = words.index(f"--{flag}")
    return words[:at] + words[at + 2 :]


def bad_numbers():
    for verb in VERBS:
        for flag, whole in numbers_of(verb):
            values = ["", BIG, "nan", "1e400"]
            values += [] if flag in NEGATIVE else ["-1"]
            values += [] if flag in ZERO or f"{verb}:{flag}" in ZERO else ["0"]
            values += ["0.5"] if whole else ["-inf"]
            for value in values:
                if not (flag == "ratio" and value in ("inf", "1e400")):
                    yield [*call_with(verb, flag), f"--{flag}", value]


def bad_words():
    """Every --out, split, language tag, device, dtype and choice, wrong in the ways that people and programs have."""
    tags = ["language", "languages", "target", "targets", "source", "sources", "replay", "against"]
    outs = ["", "a" * 300, "a\0b", "FILE/a", "NeuronSet", "FILE"]
    values = {
        **dict.fromkeys(tags, ["klingonese", "", "fi\0", "../../etc", "x" * 500]),
        **dict.fromkeys(["split", "other-split"], ["tset", "../../etc", "", "TRAIN"]),
        "device": ["gpu", "", "cuda:x", "cpu cpu"],
        "dtype": ["float", "", "int3"],
        "out": outs,
        "sites": ["mlp", "9999999999999999999999.", "1.2.mlp_gate", "", "-1.resid_out"],
        "site": ["resid", ""],
        "shard": ["two", "4/4", "5/4", "-1/4", "1/0", "1/2/3"],
        "batch-size": ["0", "-1", "many", "1.5", BIG],
        "conversation": ["some"],
        "method": ["lapp"],
        "baseline": ["lorra"],
        "probe": ["lenses"],
        "form": ["half"],
        "identifier": [""],
        "words": ["none.tsv", "", "NeuronSet"],
        "references": ["none.txt", "NeuronSet"],
        "native": ["none.txt"],
        "observation": ["none", "NeuronSet", "FILE"],
        "compare-with": ["none", "Delta"],
        "also": ["none", "NeuronSet"],
        "neurons": ["none", "Delta"],
        "facts": ["none.tsv", ""],
        "items": ["none.tsv", "", "NeuronSet"],
        "directions": ["en", "en:", "en:klingonese", ""],
        "ranking": ["median"],
        "translators": ["none", "NeuronSet"],
        "model": ["./none", "/none/a", "none.gguf", ""],
        "corpus": ["./none", "/none", "FILE", "a/b/c"],
        "questions": ["./none", "FILE"],
        "concept": ["toxicity", ""],
        "checkpoints": ["./none"],
        "think-in": ["klingonese", "Own", ""],
        "prefixes": ["none.tsv", "NeuronSet"],
        "steer": ["none", "NeuronSet", "FILE"],
    }
    for verb in VERBS:
        parameters = signature(function_of(verb)).parameters.values()
        for flag in (flag_of(parameter)[2:] for parameter in parameters if parameter.kind is Parameter.KEYWORD_ONLY):
            for value in values.get(flag, []):
                if not (verb == "report" and value in ("FILE",)):
                    yield [*call_with(verb, flag), f"--{flag}", value]


def bad_calls():
    """Flags that are unknown, twice, missing, without a value or of another verb; words too many and too few."""
    seen = set()
    for words, _ in USED:
        verb, rest = split_verb(words.split())
        if verb in seen:
            continue
        seen.add(verb)
        named = verb.split()
        yield [*named, *rest, "--no-such-flag"]
        yield [*named, *rest, "--no-such-flag=1"]
        flags = [word for word in rest if word.startswith("--")]
        for flag in flags:
            yield [*named, *without(rest, flag[2:])]
            yield [*named, *rest, *rest[rest.index(flag) : rest.index(flag) + 2]]
            yield [*named, *without(rest, flag[2:]), flag]
        first = next(iter(signature(function_of(verb)).parameters.values()))
        if first.kind is not Parameter.KEYWORD_ONLY:
            yield [*named, *rest[1:]]
            for name in ("./none", "/none/none", "a\0b", "x" * 5000, ""):
                yield [*named, name, *rest[1:]]


HAND = """
nothing
evaluate nothing reference reference
evaluate perplexity reference
evaluate perplexity - reference
evaluate confusion - ./none
evaluate confusion reference
evaluate confusion reference ./none
evaluate steering reference SteeringRecipe --target fi --out OUT
evaluate steering reference Delta FILE --target fi --out OUT
evaluate steering reference SteeringRecipe none.txt --target fi --out OUT
evaluate steering reference SteeringRecipe FILE --target fi --out OUT --system s
evaluate steering reference SteeringRecipe FILE --target fi --out OUT --labels lid176
evaluate perplexity reference reference --target fi
evaluate perplexity reference reference --out OUT
evaluate perplexity reference reference --strength 99
steer reference NeuronSet a
steer reference Observation --sweep
steer reference Observation --sweep --out OUT --target fi
steer reference Observation a --sweep --out OUT
steer reference Observation --sweep --out NeuronSet
steer reference Direction a --out OUT
steer reference Direction a --questions reference
steer reference Direction a --chat --questions reference
steer reference SteeringRecipe a --strength 2
steer reference Delta a --unit unit
adapt reference NeuronSet reference --out OUT --language fi --accumulation 7
adapt reference NeuronSet reference --out OUT --language fi --replay en
adapt reference NeuronSet reference --out OUT --language fi --replay-share .5
adapt reference NeuronSet reference --out OUT --language fi --replay en --replay-share 1
adapt reference NeuronSet reference --out OUT --language fi --baseline ffn --recompute mlp
adapt reference NeuronSet reference --out OUT --language fi --baseline ffn --form split
adapt reference NeuronSet reference --out OUT --language fi --baseline ffn --resume
adapt reference NeuronSet reference --out OUT --language fi --baseline lora --decay 1
adapt reference NeuronSet reference --out OUT --language fi --rates 1 --learning-rate 1
adapt reference NeuronSet reference --out OUT --language fi --mask-share .1
adapt reference NeuronSet reference --out OUT --language fi --baseline ssu
adapt reference NeuronSet reference --out OUT --language fi --baseline ssu --shield fi
adapt reference NeuronSet reference --out OUT --language fi --baseline ssu --shield xx
adapt reference NeuronSet reference --out OUT --language fi --shield en
adapt reference NeuronSet reference --out OUT --language fi --harm-bound .1
adapt reference NeuronSet reference --out OUT --language fi --replay en --replay-shares .1
adapt reference NeuronSet reference --out OUT --language fi --replay en --harm-bound .1 --replay-share .2
adapt reference NeuronSet reference --out OUT --language fi --mix words
adapt reference NeuronSet reference --out OUT --language fi --replay en --replay-share .5 --mix-lines 4
adapt reference NeuronSet reference --out OUT --language fi --replay en --replay-share .5 --mix letters
adapt reference NeuronSet reference --out OUT --language fi --replay en --replay-share .5 --mix words --conversation all
adapt reference NeuronSet reference --out OUT --language fi --objective align
adapt reference NeuronSet reference --out OUT --language fi --pairs reference
adapt reference NeuronSet reference --out OUT --language fi --objective align --pairs reference --patience 2
adapt reference NeuronSet reference --out OUT --language fi --objective align --pairs reference --rates 1
subtract Delta --general ElementDelta --out OUT
subtract NeuronSet --general NeuronSet --out OUT
subtract Delta --general ./none --out OUT
adapt reference Observation reference --out OUT --language fi
adapt reference NeuronSet ./none --out OUT --language fi
adapt reference NeuronSet FILE --out OUT --language fi
import-mask FILE --out OUT --languages fi
import-mask FILE --out OUT --languages fi --model reference --n-neurons 4
import-mask none.pth --out OUT --languages fi --n-neurons 4
probe reference reference --out OUT --probe checkpoints
probe reference reference --out OUT --probe checkpoints --checkpoints reference
probe reference reference --out OUT --probe trees --words reference
features reference reference reference --out OUT --chat --conversation all
features reference reference reference --out OUT --method lape --tau 0.5
observe reference reference --out OUT --shards 4 --shard 5/8
observe reference reference --out OUT --dry-run --resume
merge --out OUT
merge Observation none --out OUT
merge Observation NeuronSet --out OUT
report
report none
report NeuronSet
study reference reference --out OUT --no-steering --layers 1
export Delta reference --out OUT --format peft --dtype float32
export Delta reference --out OUT --strength 2
export Direction reference --out OUT --scale 2
export Direction reference --out OUT --also Delta
export Direction reference --out OUT --format peft
export NeuronSet reference --out OUT
steer reference Direction a --resume
"""
CALLS = [*bad_numbers(), *bad_words(), *bad_calls(), *(line.split() for line in HAND.split("\n") if line)]
