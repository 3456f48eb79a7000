"""lm-evaluation-harness over a steered model: an `HFLM` with a recipe installed, its cache keyed by the recipe."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import simple_parse_args_string
from transformers import PreTrainedTokenizerBase

from babelscope.adapters.harness_ids import cut_left, fit_pair, is_split, say
from babelscope.artifacts import Direction, Operation, Schedule, SteeringRecipe
from babelscope.artifacts.recipe_hashes import recipe_hash
from babelscope.axes import Float, Int, Tensor
from babelscope.corpus import encode_texts, pad_of, pad_rows, prefix_of, tokenize_prompt
from babelscope.errors import SteeringError
from babelscope.models import eval_mode, layout_of, measured, open_model, weights_hash
from babelscope.models.plain import CausalModel
from babelscope.steering import steer
from babelscope.steering.checking import check_recipe

# Its decorator hides the class from type checkers.
_Harness: Any = HFLM


class SteeredLM(_Harness):
    """A model under a recipe, as lm-evaluation-harness takes it: `lm_eval.simple_evaluate(model=SteeredLM(…))`.

    Generation is steered as in `steer`: prompt, generated tokens and pads are told apart. A log-likelihood is one pass
    over context and continuation without the boundary between them, so only operations without a phase, positions, a
    condition or a schedule have a meaning there; others raise SteeringError when such a request comes.
    """

    def __init__(
        self, model: CausalModel, tokenizer: PreTrainedTokenizerBase, recipe: SteeringRecipe, **options: Any
    ) -> None:
        """options: those of HFLM, such as batch_size. Raises SteeringError for another model's recipe."""
        layout = layout_of(model)
        check_recipe(recipe, model)
        # The harness puts the model into eval mode and leaves it so; here each pass does, and the flags come back.
        self._steered_tokenizer, self._chats = tokenizer, False
        with eval_mode(model):
            super().__init__(pretrained=model, tokenizer=tokenizer, **options)
        self.recipe, self._layout = recipe, layout
        self.steered_with = recipe_hash(recipe)
        self._happened, self._bare = Counter[str](), False
        self._whole_length = self.max_length

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "SteeredLM":
        """What `--model babelscope --model_args pretrained=MODEL,steering=ARTIFACT` makes; folders or hub ids.

        With strength=… (and unit=raw, unit or relative) the artifact is a Direction, without one a SteeringRecipe,
        which carries its own. device and dtype are those of `open_model`; the others are options of HFLM, such as
        batch_size. Raises SteeringError where one of the two names did not come.
        """
        arguments = {
            **arg_dict,
            **{name: value for name, value in (additional_config or {}).items() if value is not None},
        }
        if not {"pretrained", "steering"} <= arguments.keys():
            raise SteeringError(
                f"model arguments {', '.join(sorted(arg_dict)) or 'of no name'} came; expected pretrained=MODEL and "
                "steering=ARTIFACT; give both"
            )
        source, strength, unit = (
            arguments.pop("steering"),
            arguments.pop("strength", None),
            arguments.pop("unit", "raw"),
        )
        where = {name: arguments.pop(name) for name in ("device", "dtype") if name in arguments}
        if strength is None:
            recipe = SteeringRecipe.from_pretrained(source)
        else:
            recipe = Direction.from_pretrained(source).recipe(float(strength), unit)
        model, tokenizer = open_model(arguments.pop("pretrained"), **where)
        return cls(model, tokenizer, recipe, **arguments)

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> "SteeredLM":
        """The same from "name=value,name=value"."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, left_truncate_len: int | None = None, **_: Any
    ) -> list[int]:
        """Ids by the package's own rule, which the harness leaves to each tokenizer: what begins a text once, nothing
        at the end.

        Control tokens that are spelt in a text stay text; once the harness has rendered a chat, what it asks for is
        rendered text. add_special_tokens=False, or the harness's add_bos_token=False, leaves out what begins a text.
        left_truncate_len: what begins a text stays in front of what is left.
        """
        begun = self.add_bos_token if add_special_tokens is None else add_special_tokens
        if begun is False or self._bare:
            (encoded,) = encode_texts(self._steered_tokenizer, [string], rendered=self._chats)
            ids = list(encoded.ids)
        else:
            ids = tokenize_prompt(self._steered_tokenizer, string, rendered=self._chats)
        if left_truncate_len and len(ids) > left_truncate_len:
            self._happened["cut"] += 1
            ids = cut_left(ids, left_truncate_len, prefix_of(self._steered_tokenizer))
        return ids

    def tok_batch_encode(
        self,
        strings: Sequence[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Ids and mask of several texts, each as by `tok_encode`; the harness's `truncation` cuts nothing here."""
        rows = [self.tok_encode(string, left_truncate_len=left_truncate_len) for string in strings]
        return pad_rows(rows, pad_of(self._steered_tokenizer), side="right" if padding_side == "right" else "left")

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """As the harness does; that a token spans the border, or that a text was cut, is counted."""
        head, tail = super()._encode_pair(context, continuation)
        text = context + continuation
        if not is_split(self.tok_encode(text), head):
            self._happened["merged"] += 1
        if len(head) + len(tail) > self.max_length + 1:
            self._happened["cut"] += 1
        return fit_pair(head, tail, self.max_length + 1, prefix_of(self._steered_tokenizer)), tail

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As the harness does; one line in the log says where its ids are not the package's own."""
        with self._saying(len(requests), sum(not request.args[0] for request in requests)):
            return super().loglikelihood(requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """As the harness does, with what begins a text once: it puts that in front itself, and leaves room for it."""
        more = max(0, len(prefix_of(self._steered_tokenizer)) - 1)
        with self._saying(len(requests), len(requests)), self._reading(self._whole_length - more):
            self._bare = True
            try:
                return super().loglikelihood_rolling(requests, disable_tqdm)
            finally:
                self._bare = False

    @contextmanager
    def _reading(self, length: int) -> Iterator[None]:
        """While open, the harness takes the model to read so many tokens."""
        before, self._max_length = self._max_length, length
        try:
            yield
        finally:
            self._max_length = before

    @property
    def prefix_token_id(self) -> int:
        """The token that the harness puts before a text without context: the first of what the tokenizer begins a text
        with, and the harness's own choice where that is nothing or it was told one.
        """
        prefix = prefix_of(self._steered_tokenizer)
        return super().prefix_token_id if self.custom_prefix_token_id is not None or not prefix else prefix[0]

    def _loglikelihood_tokens(
        self, requests: Sequence[Any], *positional: Any, **keywords: Any
    ) -> list[tuple[float, bool]]:
        """As the harness does; where it began a text with one token, the others that begin one follow."""
        prefix, first = list(prefix_of(self._steered_tokenizer)), [self.prefix_token_id]
        if first == prefix[:1]:
            requests = [
                (key, prefix, tail) if head == first and (key is None or not key[0]) else (key, head, tail)
                for key, head, tail in requests
            ]
        with self._reading(self._whole_length):
            return super()._loglikelihood_tokens(requests, *positional, **keywords)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """As the harness does; one line in the log says how many prompts were cut."""
        with self._saying(len(requests), 0):
            return super().generate_until(requests, disable_tqdm)

    @contextmanager
    def _saying(self, requests: int, empty: int) -> Iterator[None]:
        self._happened.clear()
        if not prefix_of(self._steered_tokenizer):
            self._happened["unbegun"] = empty
        yield
        say(self._happened, requests)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The chat as text; from here on the texts of requests are taken for rendered ones."""
        self._chats = True
        return super().apply_chat_template(chat_history, add_generation_prompt=add_generation_prompt)

    def expect_plain_text(self) -> None:
        """Take the texts of requests for plain ones again, until the harness renders a chat."""
        self._chats = False

    def _model_call(
        self, inps: Int[Tensor, "batch token"], attn_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> Float[Tensor, "batch token vocab"]:
        unclear = [operation for operation in self.recipe if not _steady(operation)]
        if unclear:
            raise SteeringError(
                f"a log-likelihood came for an operation at '{unclear[0].site}' with phase, positions, condition or "
                "schedule; its pass has no end of the prompt; expected generation tasks, or a plain operation"
            )
        with measured(self._layout), self._on():
            return super()._model_call(inps, attn_mask=attn_mask, labels=labels)

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **generation_kwargs: Any) -> Tensor:
        with measured(self._layout), self._on():
            return super()._model_generate(context, max_length=max_length, stop=stop, **generation_kwargs)

    def _on(self) -> Any:
        return steer(self.model, self.recipe, tokenizer=self._steered_tokenizer)

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes beside its results; the model is one in memory, so the hub is not asked."""
        model: Any = self.model
        return {
            "model_num_parameters": model.num_parameters(),
            "model_dtype": model.dtype,
            "model_revision": self.recipe.origin.revision,
            "model_sha": self.recipe.origin.model_hash,
            "steering_recipe": self.steered_with,
        }


register_model("babelscope")(SteeredLM)


def _steady(operation: Operation) -> bool:
    gate = operation.gate
    plain = gate.phase == "both" and gate.positions is None and gate.condition is None and gate.rows is None
    return plain and operation.schedule == Schedule()


def cache_name(lm: SteeredLM, folder: str | Path) -> str:
    """The `use_cache` for one recipe, model and dtype in a folder of caches.

    The harness keys its cache by the request alone, so one file for two recipes would give the first one's answers to
    the second.
    """
    model: Any = lm.model
    return str(Path(folder) / f"{weights_hash(model)}-{lm.steered_with}")


def evaluate_harness(
    lm: SteeredLM, tasks: Sequence[str | dict[str, Any] | object], *, cache: str | Path | None = None, **options: Any
) -> dict[str, Any]:
    """`lm_eval.simple_evaluate` of a steered model, with its answers kept in `cache` under the recipe's hash.

    options: those of `simple_evaluate`, such as limit, num_fewshot and bootstrap_iters.
    """
    cache_path = None if cache is None else cache_name(lm, cache)
    run: Any = lm_eval.simple_evaluate
    lm.expect_plain_text()
    results = run(model=lm, tasks=list(tasks), use_cache=cache_path, **options)
    return dict(results or {})
