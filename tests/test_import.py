"""What `import tfbert_npu` costs, and that Keras finds our layers whatever is imported first."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tfbert_npu

SLOW = {
    "tensorflow",
    "keras",
    "tensorflow_text",
    "torch",
    "transformers",
    "huggingface_hub",
    "onnx",
    "rich",
    "numpy",
}


def run(code: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def modules_after(statement: str) -> set[str]:
    loaded = run(
        f"{statement}\nimport sys; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    )
    return set(loaded.split())


def test_import_is_light_and_silent() -> None:
    assert run("import tfbert_npu") == ""
    assert not modules_after("import tfbert_npu") & SLOW


def test_the_command_line_is_light() -> None:
    assert not modules_after("import tfbert_npu.cli") & SLOW


def test_the_board_path_is_without_tensorflow() -> None:
    heavy = {"tensorflow", "keras", "tensorflow_text", "torch", "transformers", "huggingface_hub"}
    assert not modules_after("from tfbert_npu import BertTokenizer, BertConfig") & heavy


def test_the_runtime_leans_on_nothing_above_it() -> None:
    """Not even within a function: who makes a backend elsewhere registers it (`runtime.providers`)."""
    above = {
        "cli",
        "train",
        "serve",
        "export",
        "rknn",
        "quantize",
        "onnx",
        "hub",
        "tasks",
        "delegate",
        "models",
    }
    package = Path(tfbert_npu.__file__).parent
    for path in (*(package / "runtime").glob("*.py"), *(package / "artifact").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            parts = {name.split(".")[1] for name in names if name.startswith("tfbert_npu.")}
            assert not parts & above, f"{path.name} imports {parts & above}"


HOMES = {home: [n for n, h in tfbert_npu._HOME.items() if h == home] for home in tfbert_npu._HOME.values()}


@pytest.mark.parametrize("home", HOMES)
def test_every_public_name_loads_in_a_new_process(home: str) -> None:
    """A process for each module that names come from, which is the first of ours there."""
    run(f"from tfbert_npu import {', '.join(HOMES[home])}")


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Bert'"):
        _ = tfbert_npu.Bert
    assert set(tfbert_npu.__all__) <= set(dir(tfbert_npu))


@pytest.mark.parametrize(
    "imports",
    [
        "import keras, tfbert_npu",
        "import tfbert_npu, keras",
        "from tfbert_npu import BertConfig; import keras",
        "from tfbert_npu import BertPreprocessor; import keras",
        "from tfbert_npu import BertEncoder; import keras",
        "import importlib.util, tfbert_npu; assert importlib.util.find_spec('keras'); import keras",
        "import tfbert_npu; __import__('importlib').util.find_spec('keras.layers'); import keras",
    ],
)
def test_keras_finds_our_layers(imports: str) -> None:
    code = f"""{imports}
for name in ("BertEncoder", "MaskedLMEncoder", "BertPreprocessor"):
    assert keras.saving.get_registered_object("tfbert_npu>" + name) is not None, name
"""
    run(code)


def test_a_missing_extra_says_how_to_get_it(tmp_path: Path) -> None:
    code = """
import sys
class Hidden:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
import tfbert_npu
try:
    tfbert_npu.BertEncoder if "keras" in sys.argv else tfbert_npu.BertPreprocessor
except ImportError as error:
    print(type(error).__name__, error)
"""
    for missing in ("keras", "tensorflow_text"):
        assert run(code, missing) == (
            f"MissingExtraError {missing} is not installed; install it with: pip install 'tfbert-npu[tf]'\n"
        )
