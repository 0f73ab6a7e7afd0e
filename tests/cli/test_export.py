"""`tfbert-npu export`, `inspect` and `toolchain`, as a user calls them."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys

import pytest


def call(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "tfbert_npu", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    import transformers

    directory = tmp_path_factory.mktemp("checkpoint")
    config = transformers.BertConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=40, num_labels=3,
    )  # fmt: skip
    transformers.BertForTokenClassification(config).save_pretrained(directory)
    return directory


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("platfrom: rk3588", "unknown options platfrom; known are"),
        ("- rk3588", "must hold options by name"),
        ("a: [", "is not YAML"),
        ("platform: rk9999", "'rk9999' is not one of"),
        ("shapes: [1-128]", "is no BATCHxLENGTH"),
    ],
)
def test_a_wrong_configuration_file_is_bad_usage(tmp_path, checkpoint, config, message):
    path = tmp_path / "export.yaml"
    path.write_text(config)
    done = call("export", "rknn", checkpoint, tmp_path / "out", "--config", path)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_configuration_file_stands_for_every_option_and_flags_go_before_it(tmp_path, checkpoint):
    path = tmp_path / "export.yaml"
    path.write_text(f"model: {checkpoint}\nout: {tmp_path / 'm.onnx'}\noutputs: [logits]\n")
    done = call("export", "onnx", "--config", path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m.onnx").is_file()
    again = call("export", "onnx", "--config", path)
    assert again.returncode == 1
    assert "pass --overwrite" in again.stderr
    wrong = call("export", "onnx", "--config", path, "--overwrite", "--outputs", "pooled")
    assert wrong.returncode == 1
    assert "output 'pooled' is unknown" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (("M", "OUT", "--format", "saved-model"), "export saved-model MODEL OUT"),
        (("M", "OUT", "--format=onnx"), "export onnx MODEL OUT"),
        (("--platform", "rk3588", "M", "OUT"), "export rknn MODEL OUT"),
        (("M", "OUT"), "export rknn MODEL OUT"),
    ],
)
def test_the_format_is_a_command_and_old_calls_are_told_which(arguments, command):
    done = call("export", *arguments)
    assert done.returncode == 2
    assert command in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("command", "option"), [("onnx", "--platform"), ("saved-model", "--head"), ("saved-model", "--strict")]
)
def test_a_command_has_only_the_options_that_it_obeys(command, option):
    done = call("export", command, "MODEL", "OUT", option, "x")
    assert done.returncode == 2
    assert f"No such option: {option}" in done.stderr or f"No such option '{option}'" in done.stderr


def test_a_saved_model_keeps_the_head_and_its_preprocessor_and_replaces_the_old_one(tmp_path, checkpoint):
    import numpy as np

    from tfbert_npu import BertTokenizer, pull_from_hub

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(92))]
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(checkpoint, source)
    (source / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    (source / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    out.mkdir()
    (out / "old").write_text("x")
    kept = call("export", "saved-model", source, out)
    assert kept.returncode == 1
    assert "not empty" in kept.stderr
    done = call("export", "saved-model", source, out, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert not (out / "old").exists()
    texts = ["w1 w5 W7", "w3"]
    packed = pull_from_hub(out, component="preprocessor")(texts)
    ours = BertTokenizer.from_pretrained(source)(texts, seq_length=128)
    for name, values in ours.items():
        np.testing.assert_array_equal(packed[name], values)
    inputs = {name: values[:, :16] for name, values in ours.items()}
    expected = pull_from_hub(source, component="model")(inputs)
    again = pull_from_hub(out, component="model")
    assert type(again).__name__ == "BertForTokenClassification"
    np.testing.assert_allclose(again(inputs), expected, atol=1e-6)
    import tensorflow as tf

    served = tf.saved_model.load(str(out)).signatures["serving_default"]
    logits = served(**{name: tf.constant(values) for name, values in inputs.items()})["logits"]
    np.testing.assert_allclose(logits, expected, atol=1e-6)


def test_onnx_as_a_directory_answers_without_a_toolchain(tmp_path, checkpoint):
    out = tmp_path / "out"
    done = call("export", "onnx", checkpoint, out, XDG_DATA_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    written = {"config.json", "manifest.json", "model.onnx", "reference.npz"}
    assert {path.name for path in out.iterdir()} == written
    verified = call("verify", out)
    assert verified.returncode == 0, verified.stderr
    shown = call("inspect", out)
    assert shown.returncode == 0, shown.stderr
    assert "token_classification, fp32" in shown.stdout


@pytest.mark.parametrize("shapes", ["128", "1x", "x128", "ax1", "1x128,", "-1x128"])
def test_shapes_are_batch_by_length(tmp_path, checkpoint, shapes):
    done = call("export", "rknn", checkpoint, tmp_path / "out", f"--shapes={shapes}")
    assert done.returncode == 2
    assert "BATCHxLENGTH" in done.stderr


def test_buckets_are_known_by_name(tmp_path, checkpoint):
    path = tmp_path / "export.yaml"
    path.write_text("shapes: buckets\nprecision: w8a8\n")
    for options in (["--shapes", "buckets", "--precision", "w8a8"], ["--config", path]):
        done = call("export", "rknn", checkpoint, tmp_path / "out", *options)
        assert done.returncode == 1
        # Of the seven the model has positions for three.
        assert "w8a8 files hold one shape each and 3 are wanted; pass" in done.stderr
        assert "--layout static" in done.stderr


def test_without_a_toolchain_one_line_names_the_command(tmp_path, checkpoint):
    done = call(
        "export", "rknn", checkpoint, tmp_path / "out", "--shapes", "1x16", XDG_DATA_HOME=str(tmp_path)
    )
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("tfbert-npu:")]
    assert "run `tfbert-npu toolchain install`" in line
    assert not (tmp_path / "out").exists()
    status = call("toolchain", "status", XDG_DATA_HOME=str(tmp_path))
    assert status.returncode == 1
    assert "toolchain install" in status.stderr


def test_inspect_reads_a_file_without_vendor_code(shared):
    path = shared / "data/rknn/rk_transformers_random_bert/rknn/model_b1_s32_o3.rknn"
    done = call("inspect", path)
    assert done.returncode == 0
    assert "rk3588, rknn-toolkit2 2.3.2, format 6" in done.stdout
    assert "input input_ids int64 1x32" in done.stdout
    values = json.loads(call("inspect", path, "--json").stdout)
    assert values["outputs"] == [{"name": "last_hidden_state", "dtype": "float16", "shape": [1, 32, 32]}]
    assert call("inspect", path, "--operators").returncode == 2


def test_inspect_refuses_what_is_damaged(tmp_path):
    (tmp_path / "model.rknn").write_bytes(b"RKNN" + bytes(200))
    done = call("inspect", tmp_path / "model.rknn")
    assert done.returncode == 1
    assert "damaged or no .rknn file" in done.stderr
    assert call("inspect", tmp_path).returncode == 1
    assert call("inspect", tmp_path / "none").returncode == 2


def small_files_only():
    """Let no file of the process grow beyond 20 kB: what a full disk does, for anybody to try."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path, checkpoint):
    command = [
        sys.executable,
        "-m",
        "tfbert_npu",
        "export",
        "onnx",
        str(checkpoint),
        str(tmp_path / "m.onnx"),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=small_files_only,
    )
    assert done.returncode == 1
    assert "m.onnx could not be written (file too large); raise the limit" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_full_disk_below_the_compiler_leaves_nothing(tmp_path, checkpoint, toolchain):
    command = [sys.executable, "-m", "tfbert_npu", "export", "rknn", str(checkpoint), str(tmp_path / "m")]
    done = subprocess.run(
        [*command, "--shapes", "1x16"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=small_files_only,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_export_and_inspect_a_directory(tmp_path, checkpoint, toolchain):
    out = tmp_path / "out"
    done = call("export", "rknn", checkpoint, out, "--shapes", "1x16,1x32", "--platform", "rk3576", "--json")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["cost"]) == ["1x16", "1x32"]
    assert "compiling model.rknn for 1x16, 1x32" in done.stderr
    shown = call("inspect", out, "--operators", "--verify", "--picture", tmp_path / "cost.png", COLUMNS="200")
    assert shown.returncode == 0, shown.stderr
    assert "token_classification, fp16, rk3576" in shown.stdout
    assert "exSDPAttention" in shown.stdout
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
    (out / "config.json").write_text("{}")
    assert "config.json has 2 bytes" in call("inspect", out, "--verify").stderr
    kept = call("export", "rknn", checkpoint, out, "--shapes", "1x16")
    assert kept.returncode == 1
    assert "not empty" in kept.stderr


@pytest.fixture(scope="session")
def toolchain():
    """The environment with rknn-toolkit2, as in tests/export."""
    from tfbert_npu.rknn.toolchain import find_toolchain, install_toolchain
    from tfbert_npu.rknn.toolchain.environment import ToolchainError

    try:
        return find_toolchain()
    except ToolchainError:
        return install_toolchain()
