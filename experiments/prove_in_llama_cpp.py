"""Do exported GGUF files do in llama.cpp what the toolkit does in transformers, on the same weights?

English prompts are continued greedily under a direction of each target language: here with `steer`, and in llama.cpp
with the exported control vector. Told are the shares of answers in the target language by the same judge, and token
agreement: at how many places of the text that the toolkit wrote, read by both, both find the same next token the
likeliest. The same for a random change of some neurons as a Delta here and as a GGUF LoRA there, and for the untouched
weights of both, which is the ceiling. Both read the same GGUF file. Where its weights are blocks of few bits, llama.cpp
rounds what they are multiplied with to 8 bits, which is no matter of the exported files: agreement is told a second
time with the same weights written out in float32. Against the files: an agreement far below that of the untouched
weights.

llama.cpp is the one inside the `xllamacpp` wheel, called through its C interface; it reads the files itself.
"""

import ctypes
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import xllamacpp  # pyright: ignore[reportMissingImports]

from babelscope import Delta, Direction, SteeringRecipe, load_corpus, mean_direction, observe, open_model, steer
from babelscope.adapters.gguf import export_control_vector
from babelscope.adapters.gguf_lora import export_gguf_lora, gguf_architecture
from babelscope.controls import wilson_interval
from babelscope.corpus import tokenize_prompt
from babelscope.evaluation import judge_answers
from babelscope.files.writing import write_text
from babelscope.models import layout_of, origin_of
from babelscope.runs import Run, environment, run_experiment

PROMPTS = (
    "The weather today is",
    "My favourite book is about",
    "Yesterday we went to the",
    "The best way to learn is",
    "In the morning the children",
    "The city is known for its",
    "When I was young, my mother",
    "The government said that the",
    "A good dinner needs",
    "People who live near the sea",
)
FLOATS = ctypes.POINTER(ctypes.c_float)
OPAQUE = ctypes.c_char * 1024
"""Room for a structure of settings that is handed through as it came."""


class GgufInit(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("context", ctypes.POINTER(ctypes.c_void_p))]


class LlamaBatch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("token", "embd", "pos", "n_seq_id", "seq_id", "logits")),
    ]


class Opaque(ctypes.Structure):
    _fields_ = [("bytes", OPAQUE)]


@dataclass(frozen=True)
class Config:
    gguf: str
    """File of the model, which both read."""
    corpus: str
    """Folder of <tag>.train.txt of English and the targets."""
    targets: tuple[str, ...] = ("de", "fr", "es", "fi", "ru")
    tokens: int = 1500
    """A language, for the direction."""
    layer: int = 6
    strength: float = 1.0
    """In multiples of the difference of means."""
    new_tokens: int = 24
    share: float = 0.01
    """Of neurons that the random Delta changes."""
    size: float = 0.5
    """Length of its rows, as a share of the neurons' own."""
    seed: int = 0
    out: str = ""
    """Folder for llama_cpp.jsonl; empty: the run's own results only."""


class Engine:
    """llama.cpp with one model and one sequence."""

    def __init__(self, file: str):
        (package,) = xllamacpp.__path__
        lib = self.lib = ctypes.CDLL(str(next(Path(package).glob("xllamacpp*.so"))))
        pointers = (
            "llama_model_load_from_file",
            "llama_init_from_model",
            "llama_adapter_lora_init",
            "llama_get_memory",
            "llama_get_logits_ith",
            "llama_model_get_vocab",
            "gguf_init_from_file",
            "ggml_get_tensor",
            "ggml_get_data_f32",
        )
        for name in pointers:
            getattr(lib, name).restype = ctypes.c_void_p
        for name in ("llama_model_default_params", "llama_context_default_params"):
            getattr(lib, name).restype = Opaque
        lib.llama_batch_get_one.restype = LlamaBatch
        lib.llama_backend_init()
        self.model = ctypes.c_void_p(lib.llama_model_load_from_file(file.encode(), lib.llama_model_default_params()))
        self.context = ctypes.c_void_p(lib.llama_init_from_model(self.model, lib.llama_context_default_params()))
        lib.llama_set_n_threads(self.context, 1, 1)
        self.width, self.layers = lib.llama_model_n_embd(self.model), lib.llama_model_n_layer(self.model)
        self.vocabulary = lib.llama_vocab_n_tokens(ctypes.c_void_p(lib.llama_model_get_vocab(self.model)))

    def set_control_vector(self, path: Path | None) -> None:
        """Read a file as `--control-vector` does: block N's vector lies at (N − 1) · width."""
        if path is None:
            self.lib.llama_set_adapter_cvec(self.context, None, ctypes.c_size_t(0), self.width, 0, 0)
            return
        data, inside = np.zeros((self.layers - 1, self.width), np.float32), ctypes.c_void_p()
        self.lib.gguf_init_from_file(str(path).encode(), GgufInit(False, ctypes.pointer(inside)))
        for layer in range(1, self.layers):
            tensor = self.lib.ggml_get_tensor(inside, f"direction.{layer}".encode())
            if tensor:
                values = ctypes.cast(
                    self.lib.ggml_get_data_f32(ctypes.c_void_p(tensor)), ctypes.POINTER(ctypes.c_float)
                )
                data[layer - 1] = np.ctypeslib.as_array(values, (self.width,))
        failed = self.lib.llama_set_adapter_cvec(
            self.context, data.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(data.size), self.width, 1, self.layers
        )
        if failed or not data.any():
            raise RuntimeError(f"{path}: llama.cpp did not take the control vector")

    def set_lora(self, path: Path | None) -> None:
        """Read a file as `--lora` does; None takes all out."""
        if path is None:
            self.lib.llama_set_adapters_lora(self.context, None, ctypes.c_size_t(0), None)
            return
        adapter = self.lib.llama_adapter_lora_init(self.model, str(path).encode())
        adapters, scales = (ctypes.c_void_p * 1)(adapter), (ctypes.c_float * 1)(1.0)
        if not adapter or self.lib.llama_set_adapters_lora(self.context, adapters, ctypes.c_size_t(1), scales):
            raise RuntimeError(f"{path}: llama.cpp did not take the adapter")

    def forget(self) -> None:
        """Begin a new text."""
        self.lib.llama_memory_clear(ctypes.c_void_p(self.lib.llama_get_memory(self.context)), True)

    def likeliest(self, ids: Sequence[int], places: int = 1) -> list[int]:
        """Read tokens on from where the text is; the likeliest next one after each of the last places."""
        tokens, asked = (ctypes.c_int32 * len(ids))(*ids), (ctypes.c_int8 * len(ids))()
        asked[len(ids) - places :] = [1] * places
        batch = LlamaBatch(len(ids), ctypes.cast(tokens, ctypes.c_void_p))
        batch.logits = ctypes.cast(asked, ctypes.c_void_p)
        if self.lib.llama_decode(self.context, batch):
            raise RuntimeError("llama.cpp could not read the text")
        rows = (
            ctypes.cast(self.lib.llama_get_logits_ith(self.context, ctypes.c_int32(len(ids) - places + i)), FLOATS)
            for i in range(places)
        )
        return [int(np.ctypeslib.as_array(row, (self.vocabulary,)).argmax()) for row in rows]

    def answer(self, prompt: Sequence[int], new_tokens: int, ends: set[int]) -> list[int]:
        """Greedy continuation."""
        self.forget()
        text = self.likeliest(prompt)
        while len(text) < new_tokens and text[-1] not in ends:
            text += self.likeliest(text[-1:])
        return text

    def follows(self, prompt: Sequence[int], text: Sequence[int]) -> list[int]:
        """What it would have written at each place of a text."""
        self.forget()
        return self.likeliest([*prompt, *text[:-1]], len(text))


def write_out(source: str, path: Path) -> None:
    """Write a GGUF file with all its weights as float32."""
    reader = gguf.GGUFReader(source)
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    writer = gguf.GGUFWriter(path, fields.pop("general.architecture").contents())
    for name, field in fields.items():
        if name not in ("general.file_type", "general.quantization_version"):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run(config: Config, run: Run) -> None:
    model, tokenizer = open_model(config.gguf, device="cpu", dtype="float32")
    texts = load_corpus(config.corpus, ("en", *config.targets), split="train")
    seen = observe(
        model, tokenizer, texts, sites=[f"{config.layer}.resid_out"], tokens_per_language=config.tokens, shards=2
    )
    with tempfile.TemporaryDirectory() as folder:
        write_out(config.gguf, Path(folder) / "float32.gguf")
        engines = Engine(config.gguf), Engine(str(Path(folder) / "float32.gguf"))
        for name, target, way in ways(config, model, seen):
            file = Path(folder) / f"{name}.gguf"
            with ExitStack() as stack:
                if isinstance(way, SteeringRecipe):
                    export_control_vector(way, file, model_hint=gguf_architecture(model))
                    for engine in engines:
                        engine.set_control_vector(file)
                    stack.enter_context(steer(model, way))
                elif isinstance(way, Delta):
                    export_gguf_lora(way, model, file)
                    for engine in engines:
                        engine.set_lora(file)
                    stack.enter_context(way.applied(model))
                run.log([compare(config, engines, model, tokenizer, name, target)])
            for engine in engines:
                engine.set_control_vector(None)
                engine.set_lora(None)
    if config.out:
        facts = {key: value for key, value in asdict(config).items() if key != "out"}
        facts |= {key: Path(facts[key]).name for key in ("gguf", "corpus")}
        first = {"config": facts, "environment": {**environment(), "xllamacpp": version("xllamacpp")}}
        lines = [json.dumps(line, ensure_ascii=False) for line in (first, *run.results())]
        write_text(Path(config.out) / "llama_cpp.jsonl", "\n".join(lines) + "\n")


def ways(config: Config, model: Any, seen: Any) -> Iterator[tuple[str, str, SteeringRecipe | Delta | None]]:
    """What is exported: nothing, a direction of each target, and a random change of some neurons."""
    yield "untouched", "en", None
    for target in config.targets:
        direction: Direction = mean_direction(seen, target=target, source="en", layer=config.layer)
        yield f"control vector {target}", target, direction.recipe(config.strength, "raw")
    yield "lora", "en", random_delta(config, model)


def random_delta(config: Config, model: Any) -> Delta:
    """Random rows, each a share as long as the neuron's own."""
    layout, generator = layout_of(model), torch.Generator().manual_seed(config.seed)
    chosen = torch.rand(layout.n_layers, layout.d_neuron, generator=generator) < config.share
    rows: dict[str, list[torch.Tensor]] = {}
    for layer in range(layout.n_layers):
        for role, view in layout.neuron_rows(layer).items():
            base = view.detach()[0][chosen[layer]]
            noise = torch.randn(base.shape, generator=generator)
            length = base.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True)
            rows.setdefault(role, []).append(config.size * noise * length)
    parts: dict[str, Any] = {role: torch.cat(found) for role, found in rows.items()}
    return Delta(
        origin=origin_of(model, None),
        languages=(),
        n_neurons=layout.d_neuron,
        offsets=torch.cat([torch.zeros(1, dtype=torch.int64), chosen.sum(dim=1).cumsum(0)]),
        indices=chosen.nonzero()[:, 1].to(torch.int32),
        **parts,
    )


@torch.no_grad()
def compare(
    config: Config, engines: tuple[Engine, Engine], model: Any, tokenizer: Any, name: str, target: str
) -> dict[str, Any]:
    """Answers of both, and how often both find the same next token the likeliest in the toolkit's text."""
    ends = {int(token) for token in np.atleast_1d(model.generation_config.eos_token_id)}
    ours, theirs, same, places, first = [], [], [0, 0], 0, 0
    for prompt in PROMPTS:
        ids = tokenize_prompt(tokenizer, prompt)
        written = model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.int64), do_sample=False,
            max_new_tokens=config.new_tokens,
        )[0, len(ids) :].tolist()  # fmt: skip
        answer = engines[0].answer(ids, config.new_tokens, ends)
        for which, engine in enumerate(engines):
            same[which] += sum(a == b for a, b in zip(written, engine.follows(ids, written), strict=True))
        places, first = places + len(written), first + (written[:8] == answer[:8])
        ours.append(tokenizer.decode(written, skip_special_tokens=True))
        theirs.append(tokenizer.decode(answer, skip_special_tokens=True))
    right = {
        who: sum(judged.verdict == "right" for judged in judge_answers(answers, [target] * len(answers)))
        for who, answers in (("toolkit", ours), ("llama_cpp", theirs))
    }
    return {
        "way": name,
        "target": target,
        "prompts": len(PROMPTS),
        "right_toolkit": right["toolkit"],
        "right_llama_cpp": right["llama_cpp"],
        "places": places,
        **{
            f"{what}{form}": value
            for form, count in zip(("_blocks", "_float32"), same, strict=True)
            for what, value in (
                ("same_likeliest", count),
                ("agreement", round(count / places, 4)),
                ("agreement_interval", [round(bound, 4) for bound in wilson_interval(count, places)]),
            )
        },
        "same_first_8": first,
        "sample_toolkit": ours[0],
        "sample_llama_cpp": theirs[0],
    }


if __name__ == "__main__":
    run_experiment(Config, run)
