"""Single units described: against plain hooks and weights set to zero."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_model, tiny_tokenizer
from feature_cases import made_sae

import babelscope
from babelscope import FeatureSet, NeuronSet, Site, describe_units, layout_of, open_model, origin_of
from babelscope.cli import main
from babelscope.corpus.batches import make_batch
from babelscope.corpus.tokens import TokenDocument
from babelscope.errors import ArtifactError, LanguageError, SelectionError
from babelscope.languages import parse_languages
from babelscope.recording.watchers import SiteValue
from babelscope.report.dashboards import write_dashboard
from babelscope.report.dashboards.unit_dashboard import FiringContext, UnitDashboard, UnitDescription, in_percent
from babelscope.report.dashboards.unit_firing import UnitFiring
from babelscope.report.dashboards.unit_sources import NeuronSource, Unit

TEXTS = {
    "en": ["the cat sat on a mat", "rain all day", "we walk home"],
    "fi": ["kissa istui matolla", "sataa taas vett\u00e4", "me k\u00e4velemme"],
}
LANGUAGES = parse_languages(["en", "fi"])


def sets_of(model, at="mlp_gate", width=48, share=0.15):
    mask = torch.rand(2, 3, width, generator=torch.Generator().manual_seed(3)) < share
    return NeuronSet.from_mask(
        mask,
        torch.arange(2 * 3 * width).view(2, 3, width).float(),
        origin=origin_of(model, tiny_tokenizer()),
        languages=LANGUAGES,
        at=at,
        method="test",
        parameters={},
    )


def features_of(model, sae):
    return FeatureSet(
        origin=origin_of(model, tiny_tokenizer()),
        languages=LANGUAGES,
        site=sae.site,
        sae_id=sae.id,
        sae_hash=sae.hash,
        n_features=sae.n_features,
        offsets=torch.tensor([0, 2, 6]),
        indices=torch.tensor([4, 9, 3, 11, 20, 30], dtype=torch.int32),
        score=torch.tensor([2.0, 1.0, 4.0, 3.0, 2.0, 1.0]),
        method="test",
        parameters={},
    )


def ids_of(text):
    return torch.tensor([tiny_tokenizer()(text).input_ids])


def plain_nll(model, texts):
    """Summed negative log-likelihood of all tokens but BOS."""
    total = 0.0
    for text in texts:
        ids = ids_of(text)
        logits = model(input_ids=ids).logits
        total += float(F.cross_entropy(logits[0, :-1].double(), ids[0, 1:], reduction="sum"))
    return total


def plain_values(module, of, model, text):
    """What a module gives (or takes) for one text, by a hook of torch's own, without BOS."""
    seen = []
    handle = module.register_forward_hook(lambda _, taken, given: seen.append(of(taken, given)))
    model(input_ids=ids_of(text))
    handle.remove()
    return seen[0].reshape(ids_of(text).shape[1], -1)[1:]


def mlp_values(model, at, layer, text):
    block = model.model.layers[layer].mlp
    if at == "mlp_gate":
        return plain_values(block.act_fn, lambda _, given: given, model, text)
    return plain_values(block.down_proj, lambda taken, _: taken[0], model, text)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize("at", ["mlp_gate", "mlp_inner"])
@torch.no_grad()
def test_neurons_are_described_as_plain_hooks_see_them(family, at):
    model = tiny_model(family)
    found = describe_units(sets_of(model, at), model, tiny_tokenizer(), TEXTS, language="fi", top=6, contexts=2)
    assert found.kind == "neuron" and found.total == sets_of(model, at).sizes["fi"]
    assert len(found.units) == 6
    tokens = {tag: sum(ids_of(text).shape[1] - 1 for text in texts) for tag, texts in TEXTS.items()}
    assert dict(found.tokens) == tokens
    for unit in found.units:
        counts, peaks = {}, []
        for tag, texts in TEXTS.items():
            values = [mlp_values(model, at, unit.layer, text)[:, unit.index] for text in texts]
            counts[tag] = sum(int((value > 0).sum()) for value in values)
            for text, value in zip(texts, values, strict=True):
                if float(value.max()) > 0:
                    peaks.append((float(value.max()), tag, text, int(value.argmax())))
        assert unit.rates == pytest.approx({tag: count / tokens[tag] for tag, count in counts.items()})
        peaks.sort(key=lambda peak: -peak[0])
        assert [(context.value, str(context.language)) for context in unit.contexts] == [
            (pytest.approx(value, rel=1e-5), tag) for value, tag, _, _ in peaks[:2]
        ]
        for context, (_, _, text, place) in zip(unit.contexts, peaks, strict=False):
            whole = text.encode()
            assert context.token.encode() == whole[place : place + 1] or "\ufffd" in context.token
            around = context.before + context.token + context.after
            assert around in text or "\ufffd" in around


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@torch.no_grad()
def test_harm_of_a_neuron_alone_is_that_of_its_column_at_zero(family):
    model = tiny_model(family)
    found = describe_units(sets_of(model), model, tiny_tokenizer(), TEXTS, language="fi", top=3)
    base = plain_nll(model, TEXTS["fi"])
    for unit in found.units:
        for name, harm in ((unit.unit, unit.harm), (unit.control, unit.control_harm)):
            site, _, index = name.partition("[")
            layer = Site.parse(site).layer
            assert layer == unit.layer
            column = model.model.layers[layer].mlp.down_proj.weight[:, int(index[:-1])]
            kept = column.clone()
            column.zero_()
            assert harm == pytest.approx(plain_nll(model, TEXTS["fi"]) / base - 1, abs=2e-6)
            column.copy_(kept)
        assert not sets_of(model).mask()[:, unit.layer, int(unit.control.partition("[")[2][:-1])].any()
    assert max(abs(unit.harm or 0) for unit in found.units) > 1e-4


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@torch.no_grad()
def test_tokens_that_a_neuron_writes_are_those_of_its_column_through_norm_and_head(family):
    model = tiny_model(family)
    if family == "gemma3_text":
        for block in model.model.layers:
            block.post_feedforward_layernorm.weight.uniform_(-1, 3, generator=torch.Generator().manual_seed(5))
    found = describe_units(sets_of(model), model, tiny_tokenizer(), language="fi", top=4, tokens=5)
    for unit in found.units:
        block = model.model.layers[unit.layer]
        column = block.mlp.down_proj.weight[:, unit.index].clone()
        if family == "gemma3_text":
            column = block.post_feedforward_layernorm(column)
        ids = model.lm_head(model.model.norm(column)).topk(5).indices
        assert unit.writes == tuple(tiny_tokenizer().decode([int(token)]) for token in ids)


@torch.no_grad()
def test_an_experts_neuron_is_read_only_where_tokens_were_given_to_its_expert():
    model = tiny_model("mixtral")
    width = model.config.intermediate_size
    sets = sets_of(model, width=4 * width, share=0.05)
    found = describe_units(sets, model, tiny_tokenizer(), TEXTS, language="fi", top=200, effects=False)
    tokens = sum(ids_of(text).shape[1] - 1 for text in TEXTS["fi"])
    assert len(found.units) == found.total > 10
    counts = {unit.unit: 0 for unit in found.units}
    for text in TEXTS["fi"]:
        for layer, block in enumerate(model.model.layers):
            hidden = plain_values(block.mlp, lambda taken, _: taken[0], model, text)
            chosen = block.mlp.gate(hidden)[2]
            for unit in found.units:
                if unit.layer == layer:
                    expert, place = divmod(unit.index, width)
                    gate = hidden @ block.mlp.experts.gate_up_proj[expert][place]
                    counts[unit.unit] += int(((F.silu(gate) > 0) & (chosen == expert).any(dim=1)).sum())
    assert {unit.unit: unit.rates["fi"] for unit in found.units} == pytest.approx(
        {name: count / tokens for name, count in counts.items()}
    )
    assert sum(counts.values()) > 0


@torch.no_grad()
def test_features_are_described_as_the_encoder_fires():
    model, sae = tiny_model("llama"), made_sae()
    found = describe_units(features_of(model, sae), model, tiny_tokenizer(), TEXTS, language="fi", sae=sae, tokens=4)
    assert found.kind == "feature" and {unit.index for unit in found.units} == {3, 11, 20, 30}
    base = plain_nll(model, TEXTS["fi"])
    for unit in found.units:
        fired, tokens, peak = 0, 0, 0.0
        for text in TEXTS["fi"]:
            stream = plain_values(model.model.layers[1], lambda _, given: given, model, text)
            pre = stream @ sae.w_enc[:, unit.index] + sae.b_enc[unit.index]
            value = torch.where(pre > sae.threshold[unit.index], pre, 0)
            fired, tokens, peak = fired + int((value > 0).sum()), tokens + len(value), max(peak, float(value.max()))
        assert unit.rates["fi"] == pytest.approx(fired / tokens)
        finnish = [context.value for context in unit.contexts if context.language == "fi"]
        assert all(value <= peak + 1e-4 for value in finnish)
        ids = model.lm_head(model.model.norm(sae.w_dec[unit.index])).topk(4).indices
        assert unit.writes == tuple(tiny_tokenizer().decode([int(token)]) for token in ids)
        direction = sae.w_dec[unit.index] / sae.w_dec[unit.index].norm()

        def project(_, taken, given, direction=direction):
            new = given - (given @ direction)[..., None] * direction
            return torch.cat([given[:, :1], new[:, 1:]], dim=1)

        handle = model.model.layers[1].register_forward_hook(project)
        assert unit.harm == pytest.approx(plain_nll(model, TEXTS["fi"]) / base - 1, abs=2e-6)
        handle.remove()


def test_units_come_by_the_lead_of_their_own_language(tmp_path):
    model = tiny_model("llama")
    found = describe_units(sets_of(model), model, tiny_tokenizer(), TEXTS, language="en", top=8, effects=False)
    leads = [unit.rates["en"] - unit.rates["fi"] for unit in found.units]
    assert leads == sorted(leads, reverse=True)
    assert (
        str(found) == "\n".join(found.lines()) and len(repr(found).splitlines()) == 1 and "tensor(" not in repr(found)
    )
    everything = describe_units(sets_of(model), model, tiny_tokenizer(), TEXTS, language="en", top=500, effects=False)
    assert max(unit.lead(LANGUAGES[0]) for unit in everything.units) == leads[0]
    assert all(unit.harm is None and unit.control == "" for unit in everything.units)
    rows = list(csv.DictReader(found.write_csv(tmp_path / "units.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["unit"] for row in rows] == [unit.unit for unit in found.units]
    assert float(rows[0]["rate_en"]) == found.units[0].rates["en"]
    assert json.loads(json.dumps(found.rows()))[0]["contexts"][0]["token"] == found.units[0].contexts[0].token


def test_without_text_only_the_units_and_what_they_write_are_given():
    model = tiny_model("llama")
    sets = sets_of(model)
    found = describe_units(sets, model, tiny_tokenizer(), language="fi", top=3)
    assert [(unit.layer, unit.index) for unit in found.units] == sets.as_dict()[LANGUAGES[1]][:3]
    assert [unit.score for unit in found.units] == sets["fi"].score[:3].tolist()
    assert all((unit.rates, unit.contexts, unit.harm) == ({}, (), None) and unit.writes for unit in found.units)


def test_page_has_every_unit_with_its_places_marked_and_asks_no_host(tmp_path):
    model = tiny_model("llama")
    found = describe_units(sets_of(model), model, tiny_tokenizer(), TEXTS, language="fi", top=4, effects=False)
    text = write_dashboard(found, tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("<mark>") == sum(len(unit.contexts) for unit in found.units) > 0
    for unit in found.units:
        assert f'id="unit-{unit.layer}-{unit.index}"' in text
        assert f"{unit.unit}: active on {100 * unit.rates['fi']:.1f} % of Finnish" in text
    assert not re.search("https?:", text) and 'class="drawing"' in text
    bare = describe_units(sets_of(model), model, tiny_tokenizer(), language="fi", top=4)
    assert "<mark>" not in write_dashboard(bare, tmp_path / "page.html").read_text(encoding="utf-8")
    with pytest.raises(ArtifactError, match="is a folder"):
        write_dashboard(found, tmp_path)


@pytest.fixture
def saved(tmp_path):
    model = tiny_model("llama")
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    opened, tokenizer = open_model(tmp_path / "model", device="cpu")
    sets = replace(sets_of(model), origin=origin_of(opened, tokenizer))
    sets.save(tmp_path / "neurons")
    (tmp_path / "text").mkdir()
    for tag, texts in TEXTS.items():
        (tmp_path / "text" / f"{tag}.txt").write_text("\n".join(texts * 4), encoding="utf-8")
    return tmp_path


def test_show_prints_a_table_for_people_and_the_same_as_json(saved, capsys):
    words = ["show", saved / "neurons", saved / "model", saved / "text", "--language", "fi", "--top", "2",
             "--split", "all", "--csv", saved / "fi.csv", "--out", saved / "fi.html"]  # fmt: skip
    assert main([*map(str, words), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [len(result["units"]), result["kind"], result["language"]] == [2, "neuron", "fi"]
    assert len((saved / "fi.csv").read_text(encoding="utf-8").splitlines()) == 3
    assert (saved / "fi.html").is_file()
    assert main([*map(str, words)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for unit in result["units"]:
        row = next(line for line in lines if line.startswith(unit["unit"]))
        assert f"{100 * unit['rates']['fi']:.1f} %" in row
        assert f"{100 * unit['harm']:+.3f} %".replace("-", "−") in row
        assert repr(unit["writes"][0]) in row


def test_show_reads_the_text_of_the_languages_that_are_named(saved, capsys):
    words = ["show", saved / "neurons", saved / "model", saved / "text", "--language", "fi", "--top", "1",
             "--split", "all", "--no-effects", "--json"]  # fmt: skip
    (saved / "text" / "ru.txt").write_text("кошка сидит\nидёт дождь\nмы идём домой\n", encoding="utf-8")
    rates = {}
    for name, more in (("all", ()), ("one", ("--languages", "en")), ("own", ("--languages", "fi"))):
        assert main([*map(str, words), *more]) == 0
        rates[name] = json.loads(capsys.readouterr().out)["tokens"]
    assert [*rates["all"]] == ["en", "fi", "ru"]
    assert set(rates["one"]) == {"en", "fi"} and set(rates["own"]) == {"fi"}
    assert rates["one"]["en"] == rates["all"]["en"]
    assert main([*map(str, words), "--languages", "ja"]) == 1
    assert "no file for ja" in capsys.readouterr().err
    assert main([*map(str, (*words[:3], *words[4:6])), "--languages", "en"]) == 2
    assert "--languages came, which is used only with a CORPUS" in capsys.readouterr().err


def test_show_refuses_before_the_model_is_opened_what_it_would_not_use(saved, capsys):
    words = ["show", str(saved / "neurons"), str(saved / "nowhere")]
    assert main([*words, "--language", "fi"]) == 1
    assert "nowhere" in capsys.readouterr().err
    words[-1] = str(saved / "model")
    assert main([*words, "--language", "fi", "--max-tokens", "5"]) == 2
    assert "--max-tokens" in capsys.readouterr().err
    assert main([*words, str(saved / "text"), "--language", "fi", "--sae", "reference"]) == 2
    assert "--sae" in capsys.readouterr().err
    assert main([*words, "--language", "ru"]) == 1
    assert "language 'ru' is not in this set" in capsys.readouterr().err


def test_what_does_not_fit_is_refused_in_one_line():
    model, sae = tiny_model("llama"), made_sae()
    tools = SimpleNamespace(model=model, tokenizer=tiny_tokenizer())
    with pytest.raises(LanguageError, match="language 'ru' is not in this set"):
        describe_units(sets_of(model), tools.model, tools.tokenizer, TEXTS, language="ru")
    with pytest.raises(LanguageError, match="no text of 'fi' came"):
        describe_units(sets_of(model), tools.model, tools.tokenizer, {"en": TEXTS["en"]}, language="fi")
    with pytest.raises(ArtifactError, match="no autoencoder came with features of SAE 'made'"):
        describe_units(features_of(model, sae), tools.model, tools.tokenizer, TEXTS, language="fi")
    with pytest.raises(ArtifactError, match="an autoencoder came with a NeuronSet"):
        describe_units(sets_of(model), tools.model, tools.tokenizer, TEXTS, language="fi", sae=sae)
    with pytest.raises(ArtifactError, match="expected the same model"):
        describe_units(sets_of(model), tiny_model("llama", seed=1), tools.tokenizer, TEXTS, language="fi")
    with pytest.raises(SelectionError, match="no neuron was selected for 'fi'"):
        describe_units(sets_of(model, share=0.0), tools.model, tools.tokenizer, TEXTS, language="fi")
    with pytest.raises(SelectionError, match="every neuron belongs to a language"):
        describe_units(sets_of(model, share=1.1), tools.model, tools.tokenizer, TEXTS, language="fi", top=1)


def described(unit="1.mlp_gate[5]", rates=None, harm=0.0125):
    return UnitDescription(
        unit=unit, layer=1, index=5, score=2.0, rates=rates or {}, harm=harm, control="1.mlp_gate[7]",
        control_harm=-0.001, contexts=(FiringContext(LANGUAGES[1], "a ", "cat", "\nsat", 3.25),), writes=(" the", "x"),
    )  # fmt: skip


def test_the_lead_of_a_unit_is_over_the_largest_of_the_other_languages():
    en, fi, ru = parse_languages(["en", "fi", "ru"])
    unit = described(rates={en: 0.25, fi: 0.75, ru: 0.5})
    assert unit.lead(fi) == 0.25 and unit.lead(en) == -0.5
    assert described(rates={fi: 0.75}).lead(fi) == 0.75
    assert [in_percent(harm) for harm in (0.0125, -0.001, None)] == ["+1.250 %", "−0.100 %", "–"]


def test_a_units_row_has_its_numbers_and_the_fired_token_between_marks(tmp_path):
    en, fi = LANGUAGES
    board = UnitDashboard(
        kind="neuron", language=fi, model="tiny", method="lape", total=9, tokens={en: 40, fi: 50}, seed=0,
        units=(described(rates={en: 0.25, fi: 0.75}),),
    )  # fmt: skip
    (row,) = board.flat_rows()
    assert (row["rate_en"], row["rate_fi"], row["harm"], row["writes"]) == (0.25, 0.75, 0.0125, "' the' 'x'")
    assert row["context_1"] == "a ‹cat›\nsat"
    title, head, unit, context = board.lines()
    assert (
        title
        == "1 of 9 neurons of fi in tiny, by lape; active: share of 50 tokens; off alone: rise of the loss on fi text; "
        "control: a unit of no language off alone"
    )
    assert head.split("  ")[0].startswith("neuron of fi") and "next most" in head
    assert re.split(r"  +", unit.strip()) == [
        "1.mlp_gate[5]", "75.0 %", "25.0 % en", "+1.250 %", "−0.100 %", "' the' 'x'",
    ]  # fmt: skip
    assert context == "    fi 3.25  a ‹cat› sat"
    without = replace(board, units=(replace(board.units[0], harm=None, control_harm=None),))
    assert without.lines()[0].endswith("share of 50 tokens") and "off alone" not in without.lines()[1]
    with board.write_csv(tmp_path / "units.csv").open(encoding="utf-8", newline="") as file:
        (read,) = csv.DictReader(file)
    assert read == {name: str(value) for name, value in row.items()}


def batch_of(*places):
    """Documents of one token at these places."""
    return make_batch([TokenDocument(0, str(at), (3,), (True,), 0, 1) for at in places], 0)


def test_firing_is_put_where_the_units_and_documents_are():
    first, second = Site(0, "mlp_gate"), Site(2, "mlp_gate")
    units = [Unit(second, 4), Unit(first, 1), Unit(second, 0)]
    assert str(units[0]) == "2.mlp_gate[4]"
    model = tiny_model("llama")
    firing = UnitFiring.empty(NeuronSource(layout_of(model), sets_of(model), LANGUAGES[1]), units, documents=3)
    assert {site: places.tolist() for site, places in firing.by_site.items()} == {second: [0, 2], first: [1]}
    firing.add(batch_of(2, 0), {
        first: (torch.tensor([3]), torch.tensor([[1.5], [-torch.inf]]), torch.tensor([[7], [0]])),
        second: (torch.tensor([1, 2]), torch.tensor([[0.5, 2.0], [3.0, 4.0]]), torch.tensor([[1, 2], [3, 4]])),
    })  # fmt: skip
    firing.add(batch_of(1), {first: (torch.tensor([4]), torch.tensor([[9.0]]), torch.tensor([[6]]))})
    assert firing.active.tolist() == [1, 7, 2]
    none = -torch.inf
    assert firing.greatest.tolist() == [[3.0, none, 4.0], [none, 9.0, none], [0.5, 1.5, 2.0]]
    assert firing.token.tolist() == [[3, 0, 4], [0, 6, 0], [1, 7, 2]]


def test_an_experts_neuron_is_silent_where_its_expert_was_not_chosen():
    model = tiny_model("llama")
    source = NeuronSource(layout_of(model), sets_of(model), LANGUAGES[1])
    value = torch.tensor([[[[1.0, -2.0], [3.0, 4.0]]]])  # one token; two of its experts; two neurons each
    site_value = SiteValue(value, value, torch.tensor([[[2, 0]]]), torch.tensor([[True]]))
    read = source.read(site_value, torch.tensor([0, 1, 2, 5]))  # neurons 0 and 1 of expert 0, 0 of 1, 1 of 2
    assert read.value.tolist() == [[[3.0, 4.0, 0.0, -2.0]]]
    assert read.active.tolist() == [[[True, True, False, False]]]


def test_the_words_of_a_page_keep_the_distance_of_its_other_sections():
    style = (Path(babelscope.__file__).parent / "figures" / "page.css").read_text()
    rules = re.findall(r"([^\n{}]*)\{ margin-top: \d+px;[^}]*\}", style)
    distances = [rule for rule in rules if ".group > section" in rule]
    assert len(distances) == 3 and all("#words" in rule for rule in distances)
