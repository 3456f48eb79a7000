"""Autoencoders of several makers, in one form: units against hand computations and against sae-lens itself."""

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from conftest import tiny_model
from safetensors.torch import save_file

from babelscope import Site, open_model
from babelscope.errors import ArtifactError, PrerequisiteError, SiteError
from babelscope.features import check_fits, decoder_direction, load_sae
from babelscope.features.loading import BUNDLED
from babelscope.files.tensor_files import SUMS, check_sums, write_sums

# sae-lens 6.54 imports a module of transformer-lens 3.9 by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:The 'utils' module has been deprecated:DeprecationWarning")
NEEDS = pytest.mark.skipif(
    find_spec("sae_lens") is None, reason="sae-lens is not installed; pip install 'babelscope[sae]'"
)
HOOK = "blocks.1.hook_resid_post"


def tensors(hidden=4, features=6, seed=0, **more):
    generator = torch.Generator().manual_seed(seed)
    made = {
        "W_enc": torch.randn(hidden, features, generator=generator),
        "b_enc": torch.randn(features, generator=generator),
        "W_dec": 3 * torch.randn(features, hidden, generator=generator),
        "b_dec": torch.randn(hidden, generator=generator),
    }
    return {**made, **more}


def test_the_bundled_autoencoders_fit_the_bundled_model_at_one_place():
    model, _ = open_model("reference", device="cpu")
    fine, coarse = (load_sae(name, model=model) for name in ("reference", "reference-coarse"))
    assert (fine.id, coarse.id) == ("reference", "reference-coarse") and fine.site == coarse.site == Site(
        6, "resid_out"
    )
    assert (fine.n_features, coarse.n_features) == (2048, 192) and fine.hash != coarse.hash
    assert all((path / "LICENSE").is_file() and (path / "README.md").is_file() for path in BUNDLED.values())
    assert sum(file.stat().st_size for path in BUNDLED.values() for file in path.iterdir()) < 5 * 2**20


def folder(path, held, **settings):
    """A folder in the format of sae-lens 6."""
    path.mkdir(parents=True, exist_ok=True)
    hidden, features = held["W_dec"].shape[::-1]
    config = {"d_in": hidden, "d_sae": features, "dtype": "float32", "device": "cpu", "architecture": "standard"}
    config |= {"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"}
    metadata = {"sae_lens_version": "6.54.12", "hook_name": HOOK, "model_name": "made"}
    (path / "cfg.json").write_text(json.dumps({**config, "metadata": metadata, **settings}))
    save_file(held, path / "sae_weights.safetensors")
    return path


def rows(hidden=4, n=9, seed=5):
    return 2 * torch.randn(n, hidden, generator=torch.Generator().manual_seed(seed))


def test_an_autoencoder_with_sums_is_read_only_as_it_was_written(tmp_path):
    path = folder(tmp_path / "made", tensors())
    before = load_sae(path).hash
    write_sums(path, ("cfg.json", "sae_weights.safetensors"))
    assert load_sae(path).hash == before
    assert subprocess.run(["sha256sum", "--check", "--quiet", SUMS], cwd=path).returncode == 0
    for name in ("cfg.json", "sae_weights.safetensors", SUMS):
        whole = (path / name).read_bytes()
        for place in range(0, len(whole), 37):
            changed = bytearray(whole)
            changed[place] ^= 1
            (path / name).write_bytes(changed)
            with pytest.raises(ArtifactError, match="fetch the autoencoder again"):
                load_sae(path)
        (path / name).write_bytes(whole)
    (path / SUMS).unlink()
    (path / SUMS).symlink_to("/dev/zero")
    with pytest.raises(ArtifactError, match="no small plain file"):
        load_sae(path)


@pytest.mark.parametrize("name", BUNDLED)
def test_the_bundled_autoencoders_have_sums(name):
    assert check_sums(BUNDLED[name], ("cfg.json", "sae_weights.safetensors"))


def test_a_small_autoencoder_by_hand(tmp_path):
    held = {
        "W_enc": torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]]),
        "b_enc": torch.tensor([0.5, 0.0, 0.0]),
        "W_dec": torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]),
        "b_dec": torch.tensor([1.0, -1.0]),
        "threshold": torch.tensor([1.0, 3.0, 0.0]),
    }
    sae = load_sae(folder(tmp_path / "made", held, architecture="jumprelu"))
    x = torch.tensor([[2.0, 1.0]])
    # x - b_dec = (1, 2): pre = (1.5, 2, 0); thresholds 1, 3, 0 keep the first alone.
    assert sae.encode(x).tolist() == [[1.5, 0.0, 0.0]]
    assert sae.reconstruct(x).tolist() == [[2.5, -1.0]]
    assert (sae.site, sae.id, sae.n_features) == (Site(1, "resid_out"), "made", 3)
    assert decoder_direction(sae, 1).tolist() == [0.0, 2.0]


def test_a_threshold_is_not_reached_by_its_own_value(tmp_path):
    held = tensors(2, 1, W_enc=torch.tensor([[1.0], [0.0]]), b_enc=torch.zeros(1), threshold=torch.tensor([2.0]))
    sae = load_sae(folder(tmp_path / "s", held, architecture="jumprelu", apply_b_dec_to_input=False))
    assert sae.encode(torch.tensor([[2.0, 0.0], [2.5, 0.0]])).tolist() == [[0.0], [2.5]]


FORMS = {
    "standard": {"architecture": "standard"},
    "standard, input as it is": {"architecture": "standard", "apply_b_dec_to_input": False},
    "jumprelu": {"architecture": "jumprelu"},
    "topk": {"architecture": "topk", "k": 2},
    "topk by decoder norm": {"architecture": "topk", "k": 2, "rescale_acts_by_decoder_norm": True},
    "layer norm": {"architecture": "standard", "normalize_activations": "layer_norm"},
    "constant norm": {"architecture": "jumprelu", "normalize_activations": "constant_norm_rescale"},
}


@NEEDS
@pytest.mark.parametrize("settings", FORMS.values(), ids=FORMS)
def test_every_form_encodes_and_decodes_as_sae_lens_does(tmp_path, settings):
    from sae_lens import SAE

    more = {"threshold": torch.rand(6)} if settings["architecture"] == "jumprelu" else {}
    path = folder(tmp_path / "s", tensors(**more), **settings)
    ours, theirs, x = load_sae(path), SAE.load_from_disk(path), rows()
    expected = theirs.encode(x)
    mine = ours.encode(x)
    scale = theirs.W_dec.norm(dim=1) if not settings.get("rescale_acts_by_decoder_norm") else 1
    assert torch.equal(mine > 0, expected > 0) and bool((mine > 0).any())
    torch.testing.assert_close(mine * ours.decoder_norm, expected * scale, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.reconstruct(x), theirs.decode(expected), rtol=1e-5, atol=1e-5)
    some = torch.tensor([4, 1])
    torch.testing.assert_close(ours.encode_some(x, some), mine[:, some], rtol=1e-6, atol=1e-6)


OLD = {
    "topk": {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2}},
    "topk, version 5": {"activation_fn": "topk", "activation_fn_kwargs": {"k": 2}, "normalize_activations": None},
    "relu": {"activation_fn_str": "relu", "activation_fn_kwargs": {}, "normalize_activations": False},
}


@NEEDS
@pytest.mark.parametrize("settings", OLD.values(), ids=OLD)
def test_folders_of_sae_lens_before_version_6_mean_what_they_meant(tmp_path, settings):
    from sae_lens import SAE

    path = folder(tmp_path / "s", {**tensors(), "scaling_factor": torch.ones(6)})
    old = {"d_in": 4, "d_sae": 6, "dtype": "float32", "device": "cpu", "hook_point": HOOK, "model_name": "made"}
    written = {**old, "architecture": "standard", "apply_b_dec_to_input": False, **settings}
    (path / "cfg.json").write_text(json.dumps(written))
    ours, theirs, x = load_sae(path), SAE.load_from_disk(path), rows()
    torch.testing.assert_close(ours.encode(x), theirs.encode(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.reconstruct(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert ours.activation == settings.get("activation_fn", settings.get("activation_fn_str"))
    assert (ours.site, ours.model) == (Site(1, "resid_out"), "made")


@NEEDS
def test_an_average_norm_is_folded_in_as_sae_lens_does_and_asked_for_where_it_is_missing(tmp_path):
    from sae_lens import SAE

    held = tensors(threshold=torch.rand(6))
    path = folder(tmp_path / "s", held, architecture="jumprelu", normalize_activations="expected_average_only_in")
    with pytest.raises(ArtifactError, match="average_norm is None; expected that length"):
        load_sae(path)
    theirs, x = SAE.load_from_disk(path), rows()
    theirs.fold_activation_norm_scaling_factor(2 / 5.0)
    ours = load_sae(path, average_norm=5.0)
    torch.testing.assert_close(ours.encode(x), theirs.encode(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.reconstruct(x), theirs(x), rtol=1e-5, atol=1e-5)


def scope(path, **more):
    path.mkdir(parents=True)
    held = {name: tensor.numpy() for name, tensor in tensors(threshold=torch.full((6,), 0.7), **more).items()}
    np.savez(path / "params.npz", **held)
    return held


def test_gemma_scope_params_have_raw_units_and_their_layer_in_the_path(tmp_path):
    path = tmp_path / "gemma-scope-2b-pt-res" / "layer_20" / "width_16k" / "average_l0_71"
    held = scope(path)
    sae, x = load_sae(path), rows()
    pre = x.numpy().astype(np.float64) @ held["W_enc"] + held["b_enc"]
    expected = np.where(pre > 0.7, pre, 0)
    np.testing.assert_allclose(sae.encode(x).numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(
        sae.reconstruct(x).numpy(), expected @ held["W_dec"] + held["b_dec"], rtol=1e-5, atol=1e-5
    )
    assert sae.site == Site(20, "resid_out") and sae.id == "layer_20/width_16k/average_l0_71"
    assert load_sae(path / "params.npz", site="20.resid_out").hash == sae.hash
    with pytest.raises(ArtifactError, match="trained at '20.resid_out'"):
        load_sae(path, site="19.resid_out")


def test_params_in_the_hubs_cache_are_links_whose_own_path_names_the_layer(tmp_path):
    blob, cache = tmp_path / "blobs", tmp_path / "models--google--gemma-scope-2b-pt-res" / "snapshots" / "main"
    scope(blob)
    path = cache / "layer_20" / "width_16k" / "average_l0_71"
    path.mkdir(parents=True)
    (path / "params.npz").symlink_to(blob / "params.npz")
    for given in (path, path / "params.npz", path / ".." / "average_l0_71"):
        sae = load_sae(given)
        assert (sae.site, sae.id) == (Site(20, "resid_out"), "layer_20/width_16k/average_l0_71")


def test_params_that_name_no_place_need_a_site(tmp_path):
    scope(tmp_path / "mine")
    with pytest.raises(SiteError, match="names no place"):
        load_sae(tmp_path / "mine")
    assert load_sae(tmp_path / "mine", site="2.resid_out").site == Site(2, "resid_out")


def fake_hub(monkeypatch, root):
    """sae-lens's downloads come from a folder, by repository and file name."""
    from sae_lens.loading import pretrained_sae_loaders as loaders

    def download(repo_id, filename, subfolder=None, **_):
        return str(root / repo_id / (f"{subfolder}/{filename}" if subfolder else filename))

    monkeypatch.setattr(loaders, "hf_hub_download", download)
    return loaders


@NEEDS
def test_a_gemma_scope_release(tmp_path, monkeypatch):
    loaders = fake_hub(monkeypatch, tmp_path)
    whole = loaders.get_gemma_2_config_from_hf
    monkeypatch.setattr(loaders, "get_gemma_2_config_from_hf", lambda *given: {**whole(*given), "d_in": 4, "d_sae": 6})
    held = scope(tmp_path / "google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71")
    sae, x = load_sae("gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71"), rows()
    pre = x.numpy().astype(np.float64) @ held["W_enc"] + held["b_enc"]
    np.testing.assert_allclose(sae.encode(x).numpy(), np.where(pre > 0.7, pre, 0), rtol=1e-5)
    assert sae.site == Site(20, "resid_out") and sae.model == "gemma-2-2b"


@NEEDS
def test_a_gemma_scope_2_release(tmp_path, monkeypatch):
    loaders = fake_hub(monkeypatch, tmp_path)
    name = "resid_post/layer_22_width_16k_l0_medium"
    path = tmp_path / "google/gemma-scope-2-1b-pt" / name
    path.mkdir(parents=True)
    held = tensors(threshold=torch.full((6,), 0.7))
    save_file({key.lower(): value for key, value in held.items()}, path / "params.safetensors")
    config = {
        "architecture": "jump_relu",
        "model_name": "google/gemma-3-1b-pt",
        "hf_hook_point_in": "model.layers.22.output",
    }
    (path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", lambda *_: {"w_enc": [4, 6], "w_dec": [6, 4]})
    sae, x = load_sae("gemma-scope-2-1b-pt-res", "layer_22_width_16k_l0_medium"), rows()
    pre = x.double() @ held["W_enc"].double() + held["b_enc"].double()
    torch.testing.assert_close(sae.encode(x).double(), torch.where(pre > 0.7, pre, 0), rtol=1e-5, atol=1e-6)
    assert sae.site == Site(22, "resid_out")


@NEEDS
def test_a_llama_scope_release_has_its_input_factor_and_one_threshold(tmp_path, monkeypatch):
    fake_hub(monkeypatch, tmp_path)
    path = tmp_path / "fnlp/Llama3_1-8B-Base-LXR-8x" / "Llama3_1-8B-Base-L0R-8x"
    (path / "checkpoints").mkdir(parents=True)
    held = {name: tensor.bfloat16() for name, tensor in tensors().items()}
    settings = {"d_model": 4, "d_sae": 6, "jump_relu_threshold": 0.5, "hook_point_in": "blocks.0.hook_resid_post"}
    settings |= {"dataset_average_activation_norm": {"in": 1.6, "out": 1.6}}
    (path / "hyperparams.json").write_text(json.dumps(settings))
    stored = {
        "encoder.weight": held["W_enc"].T.contiguous(),
        "encoder.bias": held["b_enc"],
        "decoder.weight": held["W_dec"].T.contiguous(),
        "decoder.bias": held["b_dec"],
    }
    save_file(stored, path / "checkpoints" / "final.safetensors")
    sae, x = load_sae("llama_scope_lxr_8x", "l0r_8x"), rows()
    factor = 58.935251798561154  # this layer's, in sae-lens's table of releases
    pre = factor * x.double() @ held["W_enc"].double() + held["b_enc"].double()
    value = torch.where(pre > 0.5 * 2 / 1.6, pre, 0)
    torch.testing.assert_close(sae.encode(x).double(), value, rtol=2e-3, atol=1e-3)
    expected = (value @ held["W_dec"].double() + held["b_dec"].double()) / factor
    torch.testing.assert_close(sae.reconstruct(x).double(), expected, rtol=1e-2, atol=1e-2)


@NEEDS
def test_a_release_that_is_not_here_is_one_line_offline(monkeypatch):
    from sae_lens.loading import pretrained_sae_loaders as loaders

    def refuse(*_, **__):
        raise ConnectionError("no network\nsecond line")

    monkeypatch.setattr(loaders, "hf_hub_download", refuse)
    with pytest.raises(PrerequisiteError, match="no network second line.*fetch it once online") as caught:
        load_sae("gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71")
    assert "\n" not in str(caught.value)
    with pytest.raises(PrerequisiteError, match="nowhere"):
        load_sae("gemma-scope-2b-pt-res", "nowhere")


@NEEDS
def test_a_release_with_code_in_its_pickle_is_one_line_without_torchs_advice_to_run_it(monkeypatch):
    from pickle import UnpicklingError

    from sae_lens.loading import pretrained_sae_loaders as loaders

    def refuse(*_, **__):
        raise UnpicklingError("Weights only load failed. You may set weights_only=False, GLOBAL os.system")

    monkeypatch.setattr(loaders, "hf_hub_download", refuse)
    with pytest.raises(PrerequisiteError, match="a file with more in it than tensors") as caught:
        load_sae("gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71")
    assert "weights_only" not in str(caught.value)


def test_without_sae_lens_folders_open_and_releases_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    assert load_sae(folder(tmp_path / "s", tensors())).n_features == 6
    with pytest.raises(PrerequisiteError, match="pip install"):
        load_sae("gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71")


def test_an_autoencoder_must_fit_the_model(tmp_path):
    model = tiny_model("llama")
    good = folder(tmp_path / "good", tensors(32))
    assert load_sae(good, model=model).d_hidden == 32
    with pytest.raises(ArtifactError, match="reads 4 values at '1.resid_out', where the model has 32"):
        load_sae(folder(tmp_path / "narrow", tensors(4)), model=model)
    deep = folder(tmp_path / "deep", tensors(32), metadata={"hook_name": "blocks.3.hook_resid_post"})
    with pytest.raises(SiteError, match="layers 0–2"):
        load_sae(deep, model=model)
    for family, path in (("llama", "model.layers.1"), ("gpt2", "transformer.h.1")):
        sae = folder(tmp_path / family, tensors(32), metadata={"hook_name": path})
        assert load_sae(sae, model=tiny_model(family)).site == Site(1, "resid_out")
        with pytest.raises(ArtifactError, match=f"trained at the module '{path}'"):
            load_sae(sae, model=tiny_model("gpt2" if family == "llama" else "llama"))
    other = {"hook_name": HOOK, "model_hash": "0123456789abcdef", "model_name": "other"}
    with pytest.raises(ArtifactError, match="was trained on 'other'"):
        check_fits(load_sae(folder(tmp_path / "other", tensors(32), metadata=other)), model)


BROKEN = {
    "gated": ({"architecture": "gated"}, {}, "architecture 'gated'"),
    "whitened": ({"normalize_activations": "covariance_whitening"}, {}, "scaling 'covariance_whitening'"),
    "no threshold": ({"architecture": "jumprelu"}, {}, "expected W_dec, W_enc, b_dec, b_enc, threshold"),
    "a training file": ({}, {"topk_threshold": torch.zeros(1)}, "save it for inference"),
    "tanh": ({"activation_fn_str": "tanh-relu"}, {}, "activation 'tanh-relu'"),
    "no k": ({"architecture": "topk"}, {}, "k None"),
    "scaled": ({}, {"scaling_factor": torch.full((6,), 2.0)}, "expected W_dec, W_enc, b_dec, b_enc"),
    "a row": ({}, {"W_enc": torch.zeros(4)}, r"W_enc is \[4\]"),
    "NaN": ({}, {"b_enc": torch.full((6,), torch.nan)}, "NaN"),
    "metadata": ({"metadata": [1]}, {}, "metadata is '.1.'; expected dict"),
    "no scaling": ({"normalize_activations": [None]}, {}, "normalize_activations is '.None.'; expected str or bool"),
    "kwargs": ({"activation_fn": "topk", "activation_fn_kwargs": [3]}, {}, "activation_fn_kwargs is '.3.'"),
    "hook": ({"metadata": {"hook_name": 7}}, {}, "hook_name is '7'; expected str"),
    "a true k": ({"architecture": "topk", "k": True}, {}, "k True"),
    "bias": ({"apply_b_dec_to_input": "no"}, {}, "apply_b_dec_to_input is 'no'; expected bool"),
    "shapes": ({}, {"W_dec": torch.zeros(5, 4)}, "do not belong together"),
}


@pytest.mark.parametrize(("settings", "more", "message"), BROKEN.values(), ids=BROKEN)
def test_files_that_can_not_be_read_rightly_are_refused_in_one_line(tmp_path, settings, more, message):
    path = folder(tmp_path / "s", tensors(**more), **settings)
    with pytest.raises(ArtifactError, match=message) as caught:
        load_sae(path)
    assert "\n" not in str(caught.value)


def test_a_missing_or_torn_folder_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="expected 'reference', a sae-lens folder"):
        load_sae(tmp_path / "nothing")
    path = folder(tmp_path / "s", tensors())
    (path / "sae_weights.safetensors").write_bytes(b"\x01")
    with pytest.raises(ArtifactError, match="damaged"):
        load_sae(path)
    for text in ('{"x": ' + "[" * 5000, "[]", '{"a\\ud800": ', "\0"):
        path = folder(tmp_path / f"t{len(text)}", tensors())
        (path / "cfg.json").write_text(text)
        with pytest.raises(ArtifactError, match="is no JSON|is no table|nested too deep") as caught:
            load_sae(path)
        assert "\n" not in str(caught.value)


def test_equal_weights_have_equal_hashes_and_others_not(tmp_path):
    one, same = (load_sae(folder(tmp_path / name, tensors())) for name in ("one", "same"))
    other = load_sae(folder(tmp_path / "other", tensors(seed=1)))
    assert one.hash == same.hash != other.hash
    assert one.to("cpu").hash == one.hash
