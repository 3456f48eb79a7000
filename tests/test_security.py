"""SECURITY.md says what is so: the libraries' calls that could run code are not in the tree."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "pickle.load", "pickle.loads"}
ALLOWED = {"re.compile", "torch.compile"}


def calls():
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield (
                    path,
                    ast.unparse(node.func),
                    {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords},
                )


def test_nothing_evaluates_text_or_unpickles():
    for path, name, keywords in calls():
        assert name in ALLOWED or name not in CALLS, f"{path}: {name}"
        assert keywords.get("shell", "False") == "False" and keywords.get("allow_pickle", "False") == "False", path
        assert name != "torch.load" or keywords.get("weights_only") == "True", path


def test_every_setting_that_the_pages_name_is_one_of_the_limits_and_the_other_way_round():
    from babelscope.files.limits import ARRAYS, LINE, TEMPLATE, TEXT

    page = (ROOT / "docs" / "your-own-text.md").read_text()
    rows = re.findall(r"\| `(BABELSCOPE_MAX_\w+)` \| (\d+) \|", page)
    assert rows == [(limit.setting, str(limit.default)) for limit in (TEXT, LINE, ARRAYS, TEMPLATE)]


def test_the_page_is_short_and_its_links_are_there():
    text = (ROOT / "SECURITY.md").read_text()
    assert len(text.splitlines()) < 60
    for target in re.findall(r"\]\((\S+?)\)", text):
        assert (ROOT / target).exists()
