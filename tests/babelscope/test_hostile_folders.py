"""No code out of any folder or file is run, whatever is answered on the terminal, and nothing is asked there."""

import json
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

CODE = "open({ran!r}, 'a').write(__file__ + '\\n')\nclass C: pass\ndef generate(*a, **k): pass\n"
KERNEL = "evil/kernel"
JINJA = "{{{{ cycler.__init__.__globals__.os.system('touch {ran}') }}}}{{{{ messages }}}}"


def settings(name, **values):
    """A change of a folder: settings put into one of its files."""

    def change(folder):
        file = folder / name
        before = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps({**before, **values}))

    return change


def both(*changes):
    def change(folder):
        for one in changes:
            one(folder)

    return change


def without_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


TOKENIZER = {"auto_map": {"AutoTokenizer": ["evil.C", "evil.C"]}, "tokenizer_class": "Novel"}
MODEL = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.C"}
OPENED = "opened"
FOLDERS = {
    "model": (settings("config.json", model_type="novel", auto_map=MODEL), "'novel' runs by code of its own .*evil.C"),
    "known model": (settings("config.json", auto_map=MODEL), OPENED),
    "unknown type": (settings("config.json", model_type="novel"), "`novel`.*update transformers"),
    "tokenizer": (
        settings("tokenizer_config.json", **TOKENIZER),
        "its tokenizer could not be read, as it runs by code of its own .*evil.C",
    ),
    "slow tokenizer": (
        both(without_tokenizer, settings("tokenizer_config.json", **TOKENIZER)),
        "its tokenizer could not be read, as it runs by code of its own .*evil.C",
    ),
    "known tokenizer": (settings("tokenizer_config.json", auto_map=TOKENIZER["auto_map"]), OPENED),
    "tokenizer in config": (settings("config.json", auto_map=TOKENIZER["auto_map"]), OPENED),
    "processor": (settings("processor_config.json", auto_map={"AutoProcessor": "evil.C"}, processor_class="N"), OPENED),
    "images": (settings("preprocessor_config.json", auto_map={"AutoImageProcessor": "evil.C"}), OPENED),
    "generation": (settings("generation_config.json", custom_generate=".", auto_map={"X": "evil.C"}), OPENED),
    "attention": (settings("config.json", attn_implementation=KERNEL), f"names '{KERNEL}', code of the hub"),
    "attention inside": (
        settings("config.json", parts={"deep": {"_attn_implementation": {"x": KERNEL}}}),
        f"names '{KERNEL}', code of the hub",
    ),
    "experts": (settings("config.json", experts_implementation=KERNEL), f"names '{KERNEL}', code of the hub"),
    "packing": (settings("config.json", quantization_config={"quant_method": "evil"}), "quantised by 'evil'"),
    "adapter": (settings("adapter_config.json", peft_type="evil", auto_mapping={"x": "evil.C"}), "PEFT adapter"),
    "deep": (lambda folder: (folder / "config.json").write_text('{"a": ' + "[" * 5000), "is no JSON"),
    "deep generation": (lambda folder: (folder / "generation_config.json").write_text("[" * 5000), "expected"),
    "names": (settings("config.json", model_type="x\n\x1b[2J\u202e", auto_map={"a\n": "\x9b"}), r"x\\+n\\+x1b\[2J"),
}
OPEN_ALL = """
    import json, sys
    from pathlib import Path
    from babelscope import load_corpus, open_model
    from babelscope.adapters.masks import import_mask
    from babelscope.corpus import Message, render_chat
    from babelscope.errors import ToolkitError
    from babelscope.evaluation import load_prompts
    from babelscope.features import load_sae

    def open_folder(path):
        model, tokenizer = open_model(path, device="cpu")
        model.generate(tokenizer("a", return_tensors="pt")["input_ids"], max_new_tokens=1)
        if "template" in path.name:
            render_chat(tokenizer, [Message("user", "a")])

    root, outcomes = Path(sys.argv[1]), {}
    calls = {str(path): lambda path=path: open_folder(path) for path in sorted((root / "models").iterdir())}
    calls["corpus folder"] = lambda: load_corpus(root / "data", ["en"], split="all")
    calls["corpus script"] = lambda: load_corpus(root / "data" / "data.py", ["en"])
    calls["prompt script"] = lambda: load_prompts(root / "data" / "data.py", kind="clas")
    calls["SAE folder"] = lambda: load_sae(root / "sae")
    calls["SAE pickle"] = lambda: load_sae(root / "sae" / "sae.pt")
    calls["SAE arrays"] = lambda: load_sae(root / "data" / "params.npz", site="1.resid_out")
    calls["mask"] = lambda: import_mask(root / "sae" / "sae.pt", languages=["en"], n_neurons=8)
    calls["zipped mask"] = lambda: import_mask(root / "sae" / "zipped.pt", languages=["en"], n_neurons=8)
    for name, call in calls.items():
        try:
            call()
            outcomes[Path(name).name] = "opened"
        except ToolkitError as err:
            outcomes[Path(name).name] = str(err)
    left = sys.stdin.read()
    Path(sys.argv[2]).write_text(json.dumps({"outcomes": outcomes, "left": left}))
"""


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """What came of every hostile folder and file, in one process to which everything answers yes."""
    root = tmp_path_factory.mktemp("hostile")
    ran, plain = str(root / "RAN"), root / "plain"
    tiny_model("llama").save_pretrained(plain)
    tiny_tokenizer().save_pretrained(plain)
    (plain / "custom_generate").mkdir()
    for name in ("evil.py", "custom_generate/generate.py", "__init__.py", "conftest.py"):
        (plain / name).write_text(CODE.format(ran=ran))
    for name, (change, _) in FOLDERS.items():
        change(shutil.copytree(plain, root / "models" / name))
    template = shutil.copytree(plain, root / "models" / "template")
    (template / "chat_template.jinja").write_text(JINJA.format(ran=ran))
    (root / "data").mkdir(), (root / "sae").mkdir()
    (root / "data" / "en.txt").write_text("text\n")
    for name in ("data.py", "evil.py", "__init__.py"):
        (root / "data" / name).write_text(CODE.format(ran=ran))
    trap = pickle.dumps([Trap(ran)], protocol=2)
    for name in ("sae.pt", "sae_weights.safetensors", "sae_weights.pt"):
        (root / "sae" / name).write_bytes(trap)
    (root / "sae" / "cfg.json").write_text('{"architecture": "standard"}')
    torch.save([Trap(ran)], root / "sae" / "zipped.pt")
    with zipfile.ZipFile(root / "data" / "params.npz", "w") as archive:
        head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n"
        archive.writestr("W_enc.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + trap)
    # Pickles that run when they are opened carelessly: else the test could not fail.
    pickle.loads(trap)[0].close()
    assert (root / "RAN").exists()
    (root / "RAN").unlink()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(OPEN_ALL), root, root / "outcomes.json"],
        input="y\n" * 200,
        capture_output=True,
        text=True,
        cwd=plain,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {"ran": (root / "RAN").exists(), "stdout": done.stdout, **json.loads((root / "outcomes.json").read_text())}


def test_no_code_is_run_nothing_is_asked_and_nothing_printed(opened):
    assert not opened["ran"]
    assert opened["left"] == "y\n" * 200 and opened["stdout"] == ""


@pytest.mark.parametrize("name", FOLDERS)
def test_a_hostile_model_is_refused_in_one_line_or_opened_without_its_code(opened, name):
    outcome = opened["outcomes"][name]
    assert re.search(FOLDERS[name][1], outcome), outcome
    assert (
        "\n" not in outcome and (outcome == OPENED or "expected" in outcome) and "trust_remote_code=True" not in outcome
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("template", "is unsafe"),
        ("corpus folder", OPENED),
        ("corpus script", "is no folder"),
        ("prompt script", "no JSON"),
        ("SAE folder", "damaged"),
        ("SAE pickle", "no cfg.json there"),
        ("SAE arrays", "no array of floating-point numbers"),
        ("mask", "it names 'io.open'"),
        ("zipped mask", "it names 'io.open'"),
    ],
)
def test_a_hostile_file_is_refused_in_one_line(opened, name, words):
    outcome = opened["outcomes"][name]
    assert words in outcome and "\n" not in outcome and "weights_only" not in outcome
