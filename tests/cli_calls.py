"""Calls of every verb that are right in themselves, with the flags that each of them uses, written by hand."""

ANSWERED = "target new-tokens temperature chat device dtype"
SWEPT = (
    "side-effects chat new-tokens temperature sweep corpus targets layers strengths out same-text resume device dtype "
    "seed"
)
SAE = (
    "out method sae-id site average-norm languages split chat conversation cap min-count random-from "
    "random-sequences tokens-per-language shards parallel draws resume device dtype seed"
)
TRAINED = (
    "language out conversation steps tokens-per-step max-length accumulation rates evaluate-every "
    "patience baseline same-text check-language device dtype seed"
)
ROWS_TRAINED = (
    "language out neurons steps learning-rate tokens-per-step max-length accumulation decay evaluate-every patience "
    "resume same-text check-language device dtype seed"
)
STUDIED = (
    "out languages tokens-per-language choose-tokens ablate-tokens part-tokens draws script-documents resamples "
    "steering same-text parallel resume check-language include-samples minutes device dtype seed"
)
SCORED = (
    "target out chat prompt-set references native corpus identifier published new-tokens temperature "
    "resamples device dtype seed"
)
COUNTED = "out languages split conversation sites tokens-per-language shards dry-run check-language device dtype"
SHOWN = "language top tokens csv out device"
LEARNT = "probe out languages parallel resume seed device dtype"
EDITED = "out facts languages edited-in methods edits neighbours asked-after new-tokens resamples device dtype seed"
ALIKE = "out languages count against answer-draws new-tokens batch-size draws resume device dtype seed"
USED = [
    ("observe reference reference --out OUT", f"{COUNTED} shard batch-size max-length resume"),
    ("observe reference reference --out OUT --dry-run", COUNTED),
    ("merge Observation --out OUT", "out"),
    ("identify Observation --out OUT", "out method top-rate at parallel compare-with draws seed"),
    ("identify Observation --out OUT --method specialization", "out method share at parallel compare-with draws seed"),
    ("direct Observation --out OUT --target fi --layer 1", "out target layer source at form"),
    ("import-mask FILE --out OUT --languages fi --n-neurons 4", "out languages n-neurons"),
    ("import-mask FILE --out OUT --languages fi --model reference", "out languages model"),
    (
        "ablate reference NeuronSet reference --out OUT",
        "out observation split same-text to draws max-tokens device dtype seed",
    ),
    (
        "fallback reference NeuronSet a --order fi --out OUT",
        "order out first by draws new-tokens device dtype seed",
    ),
    ("show NeuronSet reference --language fi", f"{SHOWN} dtype"),
    (
        "show NeuronSet reference reference --language fi",
        f"{SHOWN} dtype contexts languages effects split max-tokens seed",
    ),
    ("show FeatureSet reference --language fi", f"{SHOWN} dtype sae sae-id"),
    ("demo --out OUT", "out seed device dtype include-samples"),
    ("study reference reference --out OUT", f"{STUDIED} chat layers strengths dev-prompts test-prompts random-prompts"),
    (
        "study reference reference --out OUT --chat",
        f"{STUDIED} chat system questions layers strengths dev-prompts test-prompts random-prompts".replace(
            " steering", ""
        ),
    ),
    ("study reference reference --out OUT --no-steering", STUDIED),
    ("features reference reference reference --out OUT", f"{SAE} tau ratio"),
    ("features reference reference reference --out OUT --chat", f"{SAE} system tau ratio".replace("conversation ", "")),
    (
        "features reference reference reference --out OUT --conversation all",
        f"{SAE} tau ratio".replace("chat ", ""),
    ),
    (
        "features reference reference reference --out OUT --method langfir-sets",
        f"{SAE} tau random-tau".replace("min-count ", ""),
    ),
    ("features reference reference reference --out OUT --method lape", f"{SAE} top-rate"),
    ("features reference reference reference --out OUT --method monolinguality", SAE),
    ("steer reference Direction a", f"{ANSWERED} strength unit"),
    ("steer reference Direction a --chat", f"{ANSWERED} strength unit system"),
    ("steer reference Direction a --temperature 1", f"{ANSWERED} strength unit seed"),
    ("steer reference Delta a", f"{ANSWERED} strength"),
    ("steer reference SteeringRecipe a", ANSWERED),
    (
        "steer reference Observation --sweep --out OUT",
        SWEPT,
    ),
    ("steer reference Observation --sweep --out OUT --chat", f"{SWEPT} system questions"),
    ("play reference Direction NeuronSet", "port temperature device dtype seed"),
    ("serve reference a=Direction", "port host strength unit device dtype"),
    ("serve reference a=Delta b=SteeringRecipe", "port host device dtype"),
    (
        "adapt reference NeuronSet reference --out OUT --language fi",
        f"{TRAINED} learning-rate decay form recompute resume",
    ),
    ("adapt reference NeuronSet reference --out OUT --language fi --rates 1", f"{TRAINED} decay form recompute resume"),
    (
        "adapt reference NeuronSet reference --out OUT --language fi --replay en --replay-share .5",
        f"{TRAINED} learning-rate decay form recompute resume replay replay-share mix",
    ),
    (
        "adapt reference NeuronSet reference --out OUT --language fi --replay en --replay-share .5 --mix words",
        f"{TRAINED.replace(' conversation', '')} learning-rate decay form recompute resume replay replay-share mix "
        "mix-lines",
    ),
    (
        "adapt reference NeuronSet reference --out OUT --language fi --baseline random",
        f"{TRAINED} learning-rate decay form recompute",
    ),
    ("adapt reference NeuronSet reference --out OUT --language fi --baseline ffn", f"{TRAINED} learning-rate decay"),
    ("adapt reference NeuronSet reference --out OUT --language fi --baseline lora --rates 1", TRAINED),
    (
        "adapt reference NeuronSet reference --out OUT --language fi --replay en --harm-bound .1",
        f"{' '.join(word for word in TRAINED.split() if word != 'rates')} learning-rate decay form recompute resume "
        "replay harm-bound replay-shares mix",
    ),
    (
        "adapt reference NeuronSet reference --out OUT --language fi --baseline lt-sft",
        f"{TRAINED} learning-rate decay mask-share mask-from iterations dense-steps dense-rate dense-l1 sparse-l1",
    ),
    (
        "adapt reference NeuronSet reference --out OUT --language fi --baseline ssu --shield en de",
        f"{TRAINED} learning-rate decay shield shield-share shield-tokens",
    ),
    (
        "adapt reference NeuronSet reference --out OUT --language fi --objective align --pairs reference",
        f"{' '.join(word for word in TRAINED.split() if word not in ('rates', 'patience'))} learning-rate decay form "
        "recompute resume objective pairs pair-languages against align-layer align-every align-pairs "
        "align-temperature align-direction",
    ),
    (
        "adapt reference NeuronSet reference --out OUT --language fi --objective shift --pairs reference",
        f"{' '.join(word for word in TRAINED.split() if word not in ('rates', 'patience'))} learning-rate decay form "
        "recompute resume objective pairs pair-languages against align-layer align-every align-pairs "
        "align-temperature align-direction shift-layers",
    ),
    (
        "transfer reference reference --out OUT",
        "out languages method steps learning-rate tokens-per-step max-length train-documents seeds draws resume device "
        "dtype seed",
    ),
    (
        "transfer reference reference --out OUT --method subnetwork --neurons NeuronSet",
        "out languages method neurons steps learning-rate tokens-per-step max-length train-documents seeds draws "
        "resume device dtype seed",
    ),
    (
        "experts reference reference --out OUT --layers 2",
        "out layers languages by top-k steps learning-rate tokens-per-step max-length guide balance test-documents "
        "device seed",
    ),
    (
        "influence reference reference --queries FILE --out OUT",
        "queries out languages split passages layers max-length damping top draws resamples device dtype seed",
    ),
    ("subtract Delta --general general --out OUT", "general out"),
    ("export Delta reference --out OUT", "out format also scale device dtype"),
    ("export Delta reference --out OUT --format peft", "out format also scale device"),
    ("export Direction reference --out OUT", "out format strength unit device dtype"),
    ("export SteeringRecipe reference --out OUT --format gguf", "out format device"),
    ("vocabulary trim reference reference --out OUT", "out languages split min-count size device dtype"),
    ("vocabulary extend reference reference --out OUT", "out languages size init min-count device dtype"),
    (
        "vocabulary extend reference reference --out OUT --init translate --pairs reference",
        "out languages size init min-count pairs against device dtype",
    ),
    (
        "vocabulary extend reference reference --out OUT --init focus --vectors FILE",
        "out languages size init min-count vectors device dtype",
    ),
    (
        "vocabulary extend reference reference --out OUT --init random",
        "out languages size init min-count seed device dtype",
    ),
    ("vocabulary replace reference reference --out OUT", "out languages split size init min-count device dtype"),
    (
        "vocabulary replace reference reference --out OUT --init translate --pairs reference",
        "out languages split size init min-count pairs against device dtype",
    ),
    (
        "vocabulary replace reference reference --out OUT --init focus --vectors FILE",
        "out languages split size init min-count vectors device dtype",
    ),
    (
        "vocabulary replace reference reference --out OUT --init random",
        "out languages split size init min-count seed device dtype",
    ),
    ("vocabulary train reference VocabularyPack reference --out OUT --language fi", ROWS_TRAINED),
    (
        "vocabulary train reference VocabularyPack reference --out OUT --language fi --replay en --replay-share .2",
        f"{ROWS_TRAINED} replay replay-share",
    ),
    ("vocabulary carry VocabularyPack reference reference --out OUT", "out way device dtype"),
    ("vocabulary apply reference VocabularyPack --out OUT", "out device dtype"),
    ("evaluate perplexity reference reference", "languages split max-length device dtype"),
    ("evaluate confusion - FILE", "corpus split identifier words published out"),
    ("evaluate confusion - FILE --corpus reference", "corpus languages split identifier words published out seed"),
    (
        "evaluate confusion reference FILE",
        "chat corpus languages identifier words published new-tokens temperature out device dtype seed",
    ),
    (
        "evaluate confusion reference FILE --temperature 0",
        "chat corpus languages identifier words published new-tokens temperature out device dtype",
    ),
    (
        "evaluate confusion reference FILE --identifier FILE --chat",
        "chat system corpus languages identifier labels words published new-tokens temperature out device dtype seed",
    ),
    ("evaluate steering reference SteeringRecipe FILE --target fi --out OUT", SCORED),
    ("evaluate steering reference Direction FILE --target fi --out OUT", f"{SCORED} strength unit"),
    (
        "evaluate steering reference SteeringRecipe FILE --target fi --out OUT --corpus reference --chat",
        f"{SCORED} system languages split max-length",
    ),
    ("evaluate steering reference SteeringRecipe FILE --target fi --out OUT --prompt-set clas", f"{SCORED} sources"),
    ("probe reference reference --out OUT --probe lens", f"{LEARNT} split other-split against words translators cloze"),
    (
        "probe reference reference --out OUT --probe lens --words reference",
        f"{LEARNT} split against words translators cloze",
    ),
    ("probe reference reference --out OUT --probe embeddings", f"{LEARNT} other-split words"),
    ("probe reference reference --out OUT --probe alignment", f"{LEARNT} split sentences against task-scores"),
    ("probe reference reference --out OUT --probe language-id", f"{LEARNT} split sentences"),
    ("probe reference reference --out OUT --probe trees", f"{LEARNT} split sentences"),
    ("probe reference reference --out OUT --probe subspaces", f"{LEARNT} split sentences"),
    ("probe reference reference --out OUT --probe heads", f"{LEARNT} split other-split against"),
    ("probe reference reference --out OUT --probe circuits", LEARNT),
    ("probe reference reference --out OUT --probe routing", f"{LEARNT} split sentences against"),
    ("probe reference reference --out OUT --probe removal", f"{LEARNT} split other-split"),
    ("probe reference reference --out OUT --probe roles", f"{LEARNT} other-split"),
    ("probe reference reference --out OUT --probe specialization", f"{LEARNT} other-split"),
    ("probe reference reference --out OUT --probe values", f"{LEARNT} split other-split against concept"),
    ("probe reference reference --out OUT --probe concepts", f"{LEARNT} split other-split concept checkpoints"),
    (
        "probe reference reference --out OUT --probe checkpoints --checkpoints reference reference",
        f"{LEARNT} split other-split words checkpoints",
    ),
    ("probe reference reference --out OUT --probe tokenizer", f"{LEARNT} split other-split against"),
    (
        "probe reference reference --out OUT --probe all",
        f"{LEARNT} split other-split against sentences words cloze translators checkpoints task-scores concept",
    ),
    (
        "knowledge reference --out OUT",
        "out facts languages ranking against barrier clusters lens neurons device dtype seed",
    ),
    (
        "knowledge reference --out OUT --barrier 0 --clusters 0",
        "out facts languages ranking barrier clusters lens neurons device dtype seed",
    ),
    (
        "knowledge reference --out OUT --neurons NeuronSet",
        "out facts languages ranking against barrier clusters lens neurons draws device dtype seed",
    ),
    (
        "priming reference --out OUT",
        "out items directions count controls separator checkpoints resamples device dtype seed",
    ),
    (
        "consistency reference FILE --out OUT",
        f"{ALIKE} chat system think-in steer",
    ),
    ("consistency reference FILE --out OUT --answer-draws 3", f"{ALIKE} temperature chat system think-in steer"),
    ("consistency reference FILE --out OUT --no-chat", f"{ALIKE} chat think-in steer"),
    ("consistency reference FILE --out OUT --think-in own", f"{ALIKE} chat system think-in prefixes steer"),
    (
        "consistency reference FILE --out OUT --steer Direction",
        f"{ALIKE} chat system think-in steer strength unit",
    ),
    (
        "edit reference --out OUT",
        f"{EDITED} contexts held-out layers steps neurons corpus key-tokens",
    ),
    ("edit reference --out OUT --methods in-context", EDITED),
    ("edit reference --out OUT --methods few-neurons", f"{EDITED} contexts held-out layers steps neurons"),
    ("edit reference --out OUT --methods demonstrations", f"{EDITED} demonstrations shown-in"),
    (
        "edit reference --out OUT --methods memit",
        f"{EDITED} contexts held-out layers steps corpus key-tokens span weights",
    ),
    ("report study", "out include-samples"),
    ("doctor", "model device"),
]
"""A call, and by hand the flags that change what it does, does not do, or says."""
KINDS = (
    "Observation",
    "NeuronSet",
    "FeatureSet",
    "Direction",
    "SteeringRecipe",
    "Delta",
    "Translators",
    "VocabularyPack",
)


def make_kinds(place):
    """Something of each kind in a folder, of which only the outside is right."""
    for kind in KINDS:
        (place / kind).mkdir()
        (place / kind / "config.json").write_text(f'{{"format": "babelscope.{kind}/1"}}')
    (place / "general").mkdir()
    (place / "general" / "config.json").write_text('{"format": "babelscope.Delta/1"}')
    (place / "study").mkdir()
    (place / "study" / "results.json").write_text("{}")
    (place / "FILE").write_text("a\n")
    return place
