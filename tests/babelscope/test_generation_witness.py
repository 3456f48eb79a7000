"""Steered words, token by token, against a plain hook in a loop without a cache; for every release of transformers.

Nine gates and schedules, each in six ways of generating. The witness knows nothing of this library: it adds a vector
to columns of a layer's output, by the place of a column in the text.
"""

from functools import cache

import pytest
import torch

from babelscope import Gate, Operation, Schedule, Site, open_model, steer

LAYER, WORDS = 3, 12
TEXTS = ("Vanhan talon ovi oli", "The children walked to the old house and saw that", "Der Lehrer sagte")
CASES = {
    "both": (Gate(), Schedule(), lambda column, prompt, place: 1.0),
    "prompt": (Gate(phase="prompt"), Schedule(), lambda column, prompt, place: float(column < prompt)),
    "generated": (Gate(phase="generated"), Schedule(), lambda column, prompt, place: float(column >= prompt)),
    "third to ninth": (Gate(positions=(2, 9)), Schedule(), lambda column, prompt, place: float(2 <= place < 9)),
    "from the last": (
        Gate(positions=(-1, None)),
        Schedule(),
        lambda column, prompt, place: float(column >= prompt - 1),
    ),
    "first 3": (Gate(), Schedule.first(3), lambda column, prompt, place: float(column - prompt + 1 < 3)),
    "every 2": (
        Gate(phase="generated"),
        Schedule.every(2),
        lambda column, prompt, place: float(column >= prompt and (column - prompt + 1) % 2 == 0),
    ),
    "ramp 5": (Gate(), Schedule.ramp(5), lambda column, prompt, place: 1 - min(1.0, max(0, column - prompt + 1) / 5)),
    "rows": (Gate(rows=(0, 2)), Schedule(), lambda column, prompt, place: 1.0),
}
"""Gate, schedule, and by hand: the factor at a column, of a prompt so long, at a place among its row's real tokens."""
WAYS = {
    "dynamic": {},
    "no cache": {"use_cache": False},
    "static": {"cache_implementation": "static"},
    "chunks": {"prefill_chunk_size": 3},
    "lookup": {"prompt_lookup_num_tokens": 3},
    "beams": {"num_beams": 3},
}
STRENGTH = 250.0


@cache
def opened():
    model, tokenizer = open_model("reference", device="cpu")
    rows = [[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in TEXTS]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return model, ids, mask


def push():
    vector = torch.randn(256, generator=torch.Generator().manual_seed(3))
    return vector / vector.norm()


def generated(rows, **options):
    model, ids, mask = opened()
    new = model.generate(
        ids[rows], attention_mask=mask[rows], max_new_tokens=WORDS, min_new_tokens=WORDS, do_sample=False, **options
    )
    # Prompt lookup may go past the length asked for in some releases.
    return new[:, ids.shape[1] : ids.shape[1] + WORDS].tolist()


def hooked(case, rows, run):
    """What `run` gives while a plain hook adds the vector; every pass must hold all columns."""
    model, ids, mask = opened()
    _, _, factor = CASES[case]
    width, mask = ids.shape[1], mask[rows]
    chosen = {row for row in range(len(rows)) if case != "rows" or rows[row] in (0, 2)}

    def add(_, args, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        beams = len(hidden) // len(rows)
        for line in range(len(hidden)):
            row = line // beams
            pads = int((mask[row] == 0).sum())
            for column in range(pads, hidden.shape[1]):
                if row in chosen:
                    hidden[line, column] += STRENGTH * factor(column, width, column - pads) * push()
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = model.model.layers[LAYER].register_forward_hook(add)
    try:
        return run()
    finally:
        handle.remove()


@cache
def witness(case, rows, beams):
    """The words by hand: for one beam a loop of whole passes, for more `generate` without a cache."""
    model, ids, mask = opened()
    rows = list(rows)
    if beams > 1:
        return hooked(case, rows, lambda: generated(rows, use_cache=False, num_beams=beams))

    def loop():
        text, real = ids[rows], mask[rows]
        for _ in range(WORDS):
            places = (real.cumsum(1) - 1).clamp(min=0)
            with torch.no_grad():
                scores = model(input_ids=text, attention_mask=real, position_ids=places, use_cache=False).logits[:, -1]
            scores[:, model.generation_config.eos_token_id] = -torch.inf
            word = scores.argmax(-1, keepdim=True)
            text, real = torch.cat([text, word], 1), torch.cat([real, torch.ones_like(word)], 1)
        return text[:, ids.shape[1] :].tolist()

    return hooked(case, rows, loop)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_steered_words_are_those_of_a_plain_hook(case, way):
    rows = [0, 1, 2] if way != "lookup" else [1]
    gate, schedule, _ = CASES[case]
    if case == "rows" and way == "lookup":
        gate = Gate(rows=(0,))
        expected = witness("both", tuple(rows), 1)
    else:
        expected = witness(case, tuple(rows), WAYS[way].get("num_beams", 1))
    model, *_ = opened()
    operation = Operation(
        Site(LAYER, "resid_out"), "add", push(), strength=STRENGTH, unit="unit", gate=gate, schedule=schedule
    )
    with steer(model, operation) as receipt:
        words = generated(rows, **WAYS[way])
    assert words == expected
    receipt.check()


@pytest.mark.parametrize("case", CASES)
def test_the_push_of_each_case_changes_words(case):
    """Or their equality would say nothing."""
    plain = generated([0, 1, 2])
    assert witness(case, (0, 1, 2), 1) != plain
    assert witness(case if case != "rows" else "both", (1,), 1) != [plain[1]]
