"""Single heads and neurons patched, paths, circuits, and two languages compared: by hand, and with planted carriers."""

import pytest
import torch
from circuit_cases import EN, FI, lines_of, planted
from conftest import tiny_model, tiny_tokenizer

from babelscope.errors import CorpusError, LanguageError, MeasurementError, SelectionError, SiteError
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.probes.circuits.effect_maps import givers_of, unit_effects
from babelscope.probes.circuits.effect_overlap import compare_effects
from babelscope.probes.circuits.head_circuits import Circuit, choose_circuit, score_circuit
from babelscope.probes.circuits.path_patching import path_effects
from babelscope.probes.circuits.task_prompts import (
    RolePrompt,
    aligned_places,
    read_tasks,
    role_prompt,
    task_pairs,
)
from babelscope.probes.circuits.unit_patching import PromptRuns, Swap, attributed_units


def by_hand(model, path, columns, pairs):
    """Share of the difference that comes along with some columns of a projection's input, with plain hooks."""
    module, moved, gaps = model.get_submodule(path), 0.0, 0.0
    for pair in pairs:
        stored, spots = {}, aligned_places(pair.corrupt, pair.clean)

        def difference(prompt, hook, pair=pair):
            handle = module.register_forward_pre_hook(hook)
            with torch.no_grad():
                logits = model(torch.tensor([prompt.ids])).logits[0, -1]
            handle.remove()
            return float(logits[pair.answer] - logits[pair.foil])

        def see(_, arguments, stored=stored):
            stored["value"] = arguments[0].clone()

        def patch(_, arguments, stored=stored, spots=spots):
            new = arguments[0].clone()
            for to, of in spots:
                new[0, to, columns] = stored["value"][0, of, columns]
            return (new, *arguments[1:])

        clean = difference(pair.clean, see)
        patched, corrupt = difference(pair.corrupt, patch), difference(pair.corrupt, lambda *_: None)
        sign = 1 if clean >= corrupt else -1
        moved, gaps = moved + sign * (patched - corrupt), gaps + sign * (clean - corrupt)
    return moved / gaps


def test_tokens_have_the_role_of_their_part_and_unlike_parts_are_aligned_from_their_end():
    prompt = role_prompt(tiny_tokenizer(), ("a", "b"), ("xy", " z"))
    assert prompt.roles == ("", "a", "a", "b", "b") and len(prompt.ids) == 5
    short = RolePrompt((1, 2, 3, 4), ("", "a", "b", "b"))
    assert aligned_places(prompt, short) == [(2, 1), (4, 3), (3, 2)]
    assert aligned_places(short, RolePrompt((1, 2), ("", "c"))) == []


def test_the_bundled_tasks_are_parallel_in_four_languages_and_their_answers_differ(reference):
    tasks = read_tasks()
    assert {task: len(by_tag) >= 4 for task, by_tag in tasks.items()} == dict.fromkeys(
        ("agreement", "indirect object", "past tense"), True
    )
    for by_tag in tasks.values():
        assert {len(lines) for lines in by_tag.values()} == {10}
        assert len({lines[0].roles for lines in by_tag.values()}) == 1
        for lines in by_tag.values():
            assert all(pair.answer != pair.foil for pair in task_pairs(reference[1], lines))
            assert all(line.clean != line.corrupt for line in lines)


@pytest.mark.parametrize(
    ("at", "unit", "path", "columns"),
    [
        ("attn_heads", (1, 3), "model.layers.1.self_attn.o_proj", slice(24, 32)),
        ("mlp_inner", (2, 5), "model.layers.2.mlp.down_proj", slice(5, 6)),
    ],
)
def test_an_effect_equals_plain_hooks_also_where_prompts_are_of_unlike_length(at, unit, path, columns):
    model, tokenizer = tiny_model("llama", dtype=torch.float64), tiny_tokenizer()
    effects = unit_effects(model, tokenizer, FI, at=at, units=[unit])
    used = [pair for pair, used in zip(task_pairs(tokenizer, FI), effects.used.tolist(), strict=True) if used]
    assert any(len(pair.clean.ids) != len(pair.corrupt.ids) for pair in used)
    assert float(effects.effect[0]) == pytest.approx(by_hand(model, path, columns, used), abs=1e-9)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_a_planted_head_carries_all_and_the_control_nothing_of_it(direction):
    effects = unit_effects(planted(), tiny_tokenizer(), EN, direction=direction)
    by_unit = dict(zip(effects.units, effects.effect.tolist(), strict=True))
    assert by_unit.pop((1, 2)) == pytest.approx(1.0, abs=1e-9) and effects.strongest(1) == [(1, 2)]
    assert max(map(abs, by_unit.values())) < 1e-9
    row = next(row for row in effects.rows(resamples=50) if row.site == "1.attn_heads[2]")
    assert row.low - 1e-9 <= row.estimate <= row.high + 1e-9
    assert row.null == pytest.approx(float(effects.share(effects.null)[effects.units.index((1, 2))]))
    assert abs(row.estimate - row.null) > 0.3
    bare = unit_effects(planted(), tiny_tokenizer(), EN, direction=direction, controls=False)
    assert torch.equal(bare.shift, effects.shift) and bool(bare.null.isnan().all()) and bool(bare.p.isnan().all())


def test_the_control_is_patched_from_the_same_class_by_hand():
    model, tokenizer = tiny_model("llama", dtype=torch.float64), tiny_tokenizer()
    effects, runs = (
        unit_effects(model, tokenizer, EN, units=[(0, 1)]),
        PromptRuns.record(layout_of(model), task_pairs(tokenizer, EN)),
    )
    # Every pair's corrupt prompt takes the head from one other pair's corrupt prompt, and none from its own.
    sources = givers_of(len(EN), "denoise", "same class", 0)
    assert sorted(giver for _, giver in sources) == [1, 3, 5, 7, 9, 11]
    assert all(taker % 2 == giver % 2 == 1 and taker != giver for taker, giver in sources)
    swapped = runs.swapped([Swap(taker, giver, ((0, 1),)) for taker, giver in sources])
    assert torch.allclose(effects.null[0], swapped - runs.difference[1::2])
    identity = runs.swapped([Swap(place, place, tuple(runs.units)) for place in range(12)])
    assert torch.allclose(identity, runs.difference, atol=1e-12)


def test_a_planted_neuron_is_first_by_gradient_and_the_only_one_by_patch():
    model, tokenizer = planted(neuron=(2, 7)), tiny_tokenizer()
    runs = PromptRuns.record(layout_of(model), task_pairs(tokenizer, EN), "mlp_inner")
    (top,) = {*attributed_units(runs, 144)} & {(2, 7)}
    effects = unit_effects(model, tokenizer, EN, at="mlp_inner", units=[top, (0, 3), (2, 8)])
    assert abs(float(effects.effect[0])) > 1e-3 and effects.effect[1:].abs().max() < 1e-9


def test_a_path_equals_plain_hooks():
    model, tokenizer = tiny_model("llama", dtype=torch.float64), tiny_tokenizer()
    sender, receiver = (0, 1), (2, 3)
    effects = path_effects(model, tokenizer, EN, senders=[sender], receivers=[receiver])
    projections = [layer.self_attn.o_proj for layer in model.model.layers]
    moved = []
    for pair in task_pairs(tokenizer, EN):
        clean, corrupt = {}, {}

        def run(prompt, change, pair=pair):
            handles = [
                module.register_forward_pre_hook(lambda _, x, n=n: (change(n, x[0].clone()), *x[1:]))
                for n, module in enumerate(projections)
            ]
            with torch.no_grad():
                logits = model(torch.tensor([prompt.ids])).logits[0, -1]
            for handle in handles:
                handle.remove()
            return float(logits[pair.answer] - logits[pair.foil])

        def store(into):
            def change(number, value):
                into[number] = value.clone()
                return value

            return change

        run(pair.clean, store(clean))
        base = run(pair.corrupt, store(corrupt))
        seen = {}

        def freeze(number, value, seen=seen, clean=clean, corrupt=corrupt, pair=pair):
            seen[number] = value.clone()
            new = corrupt[number].clone()
            if number == sender[0]:
                for to, of in aligned_places(pair.corrupt, pair.clean):
                    new[0, to, 8:16] = clean[0][0, of, 8:16]
            return new

        def receive(number, value, seen=seen):
            if number == receiver[0]:
                value[..., 24:32] = seen[2][..., 24:32]
            return value

        run(pair.corrupt, freeze)
        moved.append(run(pair.corrupt, receive) - base)
    assert effects.shift[0].tolist() == pytest.approx(moved, abs=1e-9) and max(map(abs, moved)) > 1e-6
    direct = path_effects(planted(), tokenizer, EN)
    assert direct.strongest(1) == [(1, 2)] and "on its way to the logits" in direct.rows(50)[0].claim


def test_a_planted_circuit_is_faithful_and_nothing_is_left_without_it():
    model, tokenizer = planted(), tiny_tokenizer()
    effects = unit_effects(model, tokenizer, EN[:3])
    circuit = choose_circuit(model, tokenizer, EN[:3], effects)
    assert circuit.heads == ((1, 2),)
    score = score_circuit(model, tokenizer, EN[3:], circuit, draws=19)
    assert score.faithfulness == pytest.approx(1.0, abs=1e-9) and score.incompleteness == pytest.approx(0, abs=1e-9)
    assert abs(score.without) < 0.2 and {row.n for row in score.rows()} == {3}
    wrong = score_circuit(model, tokenizer, EN[3:], Circuit("toy", Language("en"), ((0, 0), (2, 1))), draws=3)
    assert wrong.faithfulness == pytest.approx(score.without, abs=1e-9) and wrong.without == pytest.approx(1.0)


def test_a_head_of_one_language_works_in_the_run_of_another():
    model, tokenizer = planted(), tiny_tokenizer()
    across = unit_effects(model, tokenizer, EN, givers=FI)
    runs = PromptRuns.record(layout_of(model), [*task_pairs(tokenizer, EN), *task_pairs(tokenizer, FI)])
    swapped = runs.swapped([Swap(2 * pair + 1, 12 + 2 * pair, ((1, 2),)) for pair in range(6)])
    place = across.units.index((1, 2))
    assert torch.allclose(across.shift[place], swapped - runs.difference[1:12:2])
    assert {(row.language, row.against) for row in across.rows(50)} == {("en", "fi")}
    with pytest.raises(CorpusError, match="line i of both"):
        unit_effects(model, tokenizer, EN, givers=FI[:4])


def test_maps_that_agree_share_their_strongest_units_beyond_permuted_ones():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    effects = unit_effects(model, tokenizer, EN)
    overlap = compare_effects(effects, effects, strongest=3, draws=199)
    assert overlap.shared == 3 and overlap.correlation == pytest.approx(1.0) and overlap.correlation_p <= 0.01
    assert overlap.expected < 3 and len(overlap.rows()) == 2
    with pytest.raises(SelectionError, match="same units"):
        compare_effects(effects, unit_effects(model, tokenizer, EN, units=[(0, 0)]))


def test_bad_input_is_one_line(tmp_path):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    table = tmp_path / "tasks.tsv"
    for text, match in (
        ("task\n", "its first line"),
        ("\t".join(("a", "en", "x|y", "p", "q|r", "s", "t")), "first line"),
    ):
        table.write_text(text)
        with pytest.raises(CorpusError, match=match):
            read_tasks(table)
    header = "task\tlanguage\troles\tclean\tcorrupt\tanswer\tfoil\n"
    table.write_text(header + "\t".join(("a", "en", "x|y", "p", "q|r", "s", "t")))
    with pytest.raises(CorpusError, match="line 2: expected 7 cells"):
        read_tasks(table)
    for lines, error, match in (
        (EN[:2], LanguageError, "at least 3"),
        (lines_of([("a", "b")] * 3, answer="xa", foil="xb"), CorpusError, "same token"),
        (lines_of([("a", "a")] * 3), MeasurementError, "tells them apart"),
    ):
        with pytest.raises(error, match=match) as raised:
            unit_effects(model, tokenizer, lines)
        assert "\n" not in str(raised.value)
    with pytest.raises(SelectionError, match="expected layers 0–2"):
        unit_effects(model, tokenizer, EN, units=[(0, 9)])
    with pytest.raises(SelectionError, match="later layers"):
        path_effects(model, tokenizer, EN, senders=[(2, 0)], receivers=[(1, 0)])
    with pytest.raises(SiteError, match="mixture of experts"):
        unit_effects(tiny_model("mixtral"), tokenizer, EN, at="mlp_inner")
    with pytest.raises(LanguageError, match="same task"):
        score_circuit(model, tokenizer, EN, Circuit("other", Language("en"), ((0, 0),)))
