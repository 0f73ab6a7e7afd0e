"""Data-parallel training: two workers on loopback get the losses of one with the doubled batch."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

WORKER = """
import json, os, pathlib, sys
sys.path[:0] = [{tests!r}, os.path.dirname({tests!r})]
import tensorflow as tf
from tfbert_npu.train.distribution import strategy_scope
devices = int(sys.argv[3])
if devices > 1:
    cpus = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * devices)
scope, replicas = strategy_scope(sys.argv[2]) if devices == 1 else (None, devices)
if devices > 1:
    strategy = tf.distribute.MirroredStrategy([f"CPU:{{i}}" for i in range(devices)])
    scope = strategy.scope()
import keras
import tiny_bert
from tfbert_npu import BertForSequenceClassification
from tfbert_npu.train.batches import Batches, BatchOptions
from tfbert_npu.train.loop import train
from tfbert_npu.train.options import TrainOptions
import test_training as t
out = pathlib.Path(sys.argv[1])
with scope:
    keras.utils.set_random_seed(0)
    model = BertForSequenceClassification(
        tiny_bert.config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), num_labels=2
    )
batches = Batches(t.rows, BatchOptions(batch_size=8, seq_length=16, pad_to=None, drop_remainder=True))
options = TrainOptions(epochs=2, learning_rate=3e-3, clip_norm=0.1)
history = train(model, batches, options, out, progress=False)
(out / f"replicas").write_text(str(replicas))
"""


def start(out, strategy="none", devices=1, **environment):
    here = os.path.dirname(os.path.abspath(__file__))
    return subprocess.Popen(
        [sys.executable, "-c", WORKER.format(tests=here), str(out), strategy, str(devices)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*processes):
    for process in processes:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors[-3000:]


def losses(out):
    return [logs["loss"] for logs in json.loads((out / "history.json").read_text())]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    finish(start(out))
    return out


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def assert_same(found, expected):
    np.testing.assert_allclose(losses(found), losses(expected), rtol=2e-4)
    left, right = (load_file(out / "model.safetensors") for out in (found, expected))
    for name, tensor in right.items():
        if not name.endswith("key.bias"):  # its gradient is rounding errors alone, which Adam blows up
            np.testing.assert_allclose(left[name], tensor, atol=2e-3, err_msg=name)


@pytest.mark.slow
def test_two_workers_on_loopback(tmp_path, alone):
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    for index in range(2):
        cluster = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        out = tmp_path / str(index)
        processes.append(start(out, "multi_worker", TF_CONFIG=json.dumps(cluster)))
    finish(*processes)
    assert (tmp_path / "0" / "replicas").read_text() == "2"
    assert_same(tmp_path / "0", alone)
    # One worker writes.
    assert not (tmp_path / "1" / "model.safetensors").exists()


@pytest.mark.slow
def test_two_devices_of_one_machine(tmp_path, alone):
    finish(start(tmp_path, devices=2))
    assert_same(tmp_path, alone)
