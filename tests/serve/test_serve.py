"""The service against the clients that people use, and against clients that misbehave."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tiny_bert

from tfbert_npu.checkpoints.sentence_options import SentenceOptions
from tfbert_npu.errors import TfbertNpuError
from tfbert_npu.tasks.sentence_encoder import SentenceEncoder

uvicorn = pytest.importorskip("uvicorn")
app = pytest.importorskip("tfbert_npu.serve.app")

WIDTH = 24
TABLE = np.random.default_rng(0).normal(size=(len(tiny_bert.TOKENS), WIDTH)).astype(np.float32)
OPTIONS = SentenceOptions(normalize=True, prompts={"query": "who "}, max_seq_length=32, stated=True)
TEXTS = ["the cat sat", "a dog ran in berlin", "who", "anna, paris"]


def encoder(delay: Callable[[], None] = lambda: None) -> SentenceEncoder:
    """A model that looks every token up in a table, so that each text has its own vector."""

    def call(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        delay()
        return {"sequence_output": TABLE[inputs["input_word_ids"]]}

    return SentenceEncoder(call, tiny_bert.tokenizer(), OPTIONS, hidden_size=WIDTH)


@contextmanager
def serving(models: Mapping[str, Any] | None = None, **options: Any) -> Iterator[tuple[str, Any]]:
    """A server in a thread: its address, and uvicorn's server."""
    service = app.Service(models or {"tiny": encoder()}, **options)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(service.app(), log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", server
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
    assert not thread.is_alive()


def test_openai_client() -> None:
    openai = pytest.importorskip("openai")
    expected = encoder().encode(TEXTS)
    with serving() as (url, _):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="any")
        assert [model.id for model in client.models.list()] == ["tiny"]
        for form in ("base64", "float"):
            answer = client.embeddings.create(model="tiny", input=TEXTS, encoding_format=form)
            vectors = [item.embedding for item in answer.data]
            if isinstance(vectors[0], str):
                vectors = [np.frombuffer(base64.b64decode(one), "<f4") for one in vectors]
            np.testing.assert_allclose(vectors, expected, atol=1e-6)
        tokens = [len(tiny_bert.tokenizer().encode(text)) + 2 for text in TEXTS]
        assert answer.usage.prompt_tokens == sum(tokens)
        ids = [tiny_bert.tokenizer().encode(text) for text in TEXTS]
        again = client.embeddings.create(model="tiny", input=ids)
        np.testing.assert_allclose([item.embedding for item in again.data], expected, atol=1e-6)
        short = client.embeddings.create(model="tiny", input=TEXTS[0], dimensions=4).data[0].embedding
        np.testing.assert_allclose(short, encoder().encode(TEXTS[0], dimensions=4)[0], atol=1e-6)
        with pytest.raises(openai.NotFoundError, match="no model 'other'"):
            client.embeddings.create(model="other", input="x")


def test_huggingface_client(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # this is loopback
    with serving() as (url, _):
        got = hub.InferenceClient(model=f"{url}/embed").feature_extraction(TEXTS[1])
        np.testing.assert_allclose(np.asarray(got), encoder().encode([TEXTS[1]]), atol=1e-6)


def test_ollama_client() -> None:
    ollama = pytest.importorskip("ollama")
    with serving() as (url, _):
        got = ollama.Client(host=url).embed(model="tiny", input=TEXTS)
        np.testing.assert_allclose(got["embeddings"], encoder().encode(TEXTS), atol=1e-6)
        assert got["prompt_eval_count"] > 0


def test_tei_routes() -> None:
    with serving() as (url, _):
        body = {"inputs": TEXTS, "normalize": False, "prompt_name": "query"}
        got = httpx.post(f"{url}/embed", json=body).json()
        expected = encoder().encode(TEXTS, prompt_name="query", normalize=False)
        np.testing.assert_allclose(got, expected, rtol=1e-5)
        pieces = httpx.post(f"{url}/tokenize", json={"inputs": "the cats"}).json()[0]
        assert [one["text"] for one in pieces] == ["[CLS]", "the", "cat", "s", "[SEP]"] or pieces[1][
            "start"
        ] == 0
        assert [one["id"] for one in pieces[1:-1]] == tiny_bert.tokenizer().encode("the cats")
        info = httpx.get(f"{url}/info").json()
        assert (info["max_input_length"], info["dimensions"]) == (32, WIDTH)
        assert "tfbert_tokens_total" in httpx.get(f"{url}/metrics").text


def test_many_clients_get_their_own_vectors_in_few_calls() -> None:
    """32 clients of 20 requests of mixed size: every vector right, and texts of several clients in one call."""
    calls: list[int] = []

    def slow() -> None:
        calls.append(1)
        time.sleep(0.005)

    words = tiny_bert.WORDS
    expected = dict(zip(words, encoder().encode(words), strict=True))
    model = encoder(slow)

    def client(number: int) -> int:
        random = np.random.default_rng(number)
        right = 0
        with httpx.Client(timeout=60) as http:
            for _ in range(20):
                texts = [str(word) for word in random.choice(words, size=random.integers(1, 6))]
                answer = http.post(f"{url}/embed", json={"inputs": texts})
                assert answer.status_code == 200
                np.testing.assert_allclose(answer.json(), [expected[text] for text in texts], atol=1e-6)
                right += len(texts)
        return right

    with serving({"tiny": model}, workers=3) as (url, _), ThreadPoolExecutor(32) as pool:
        texts = sum(pool.map(client, range(32)))
    assert 2 * len(calls) < 32 * 20 < texts


def test_a_full_queue_is_429_and_what_was_taken_is_answered() -> None:
    gate = threading.Event()
    model = encoder(lambda: gate.wait(30) and None)
    limits = app.Limits(queue=4)
    with serving({"tiny": model}, batch_size=1, limits=limits) as (url, _), ThreadPoolExecutor(8) as pool:
        first = [
            pool.submit(httpx.post, f"{url}/embed", json={"inputs": "cat"}, timeout=30) for _ in range(5)
        ]
        deadline = time.monotonic() + 10
        while "tfbert_waiting_texts 4.0" not in httpx.get(f"{url}/metrics").text:
            assert time.monotonic() < deadline
        refused = httpx.post(f"{url}/embed", json={"inputs": "dog"})
        assert refused.status_code == 429
        assert refused.headers["retry-after"]
        gate.set()
        assert [one.result().status_code for one in first] == [200] * 5


def test_a_deadline_is_503() -> None:
    gate = threading.Event()
    model = encoder(lambda: gate.wait(30) and None)
    with serving({"tiny": model}, limits=app.Limits(timeout=0.05)) as (url, _):
        answer = httpx.post(f"{url}/embed", json={"inputs": "cat"})
        gate.set()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_stopping_answers_what_was_taken() -> None:
    model = encoder(lambda: time.sleep(0.05))
    with ThreadPoolExecutor(16) as pool:
        with serving({"tiny": model}, batch_size=1) as (url, server):
            asked = [
                pool.submit(httpx.post, f"{url}/embed", json={"inputs": "cat"}, timeout=30) for _ in range(16)
            ]
            deadline = time.monotonic() + 10
            while "tfbert_waiting_texts 0.0" in httpx.get(f"{url}/metrics").text:
                assert time.monotonic() < deadline
            server.should_exit = True
        answered = []
        for one in asked:
            try:
                answered.append(one.result().status_code)
            except httpx.ConnectError:
                continue  # it came too late to be taken
    assert answered
    assert set(answered) == {200}


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"{", 422, "Invalid JSON"),
        (b'{"inputs": "\xff"}', 422, "Invalid JSON"),
        (b'{"inputs": []}', 422, "inputs"),
        (b'{"inputs": 3}', 422, "inputs"),
        (b'{"inputs": ["a", 3]}', 422, "inputs"),
        (b"[" * 100_000, 422, "Invalid JSON"),
        (b'{"inputs": "' + b"a" * 5 * 2**20 + b'"}', 413, "larger than"),
        (b'{"inputs": [' + b'"a",' * 9_999 + b'"a"]}', 413, "more than the 2048"),
        (b'{"inputs": "a", "prompt_name": "x"}', 422, "no prompt 'x'"),
        (b'{"inputs": "a", "dimensions": 25}', 422, "at most 24"),
        (b'{"inputs": "a", "dimensions": 0}', 422, "dimensions"),
        (b'{"inputs": "' + b"cat " * 40 + b'", "truncate": false}', 422, "42 tokens, more than 32"),
    ],
)
def test_bad_requests_are_refused_in_a_sentence(content: bytes, status: int, words: str) -> None:
    with serving() as (url, _):
        answer = httpx.post(f"{url}/embed", content=content, timeout=30)
        assert answer.status_code == status
        assert words in answer.json()["error"]
        assert httpx.post(f"{url}/embed", json={"inputs": "cat"}).status_code == 200


def test_a_token_id_outside_of_the_vocabulary() -> None:
    with serving() as (url, _):
        answer = httpx.post(f"{url}/v1/embeddings", json={"input": [[5, -1]]})
        assert answer.status_code == 422
        assert "outside of the vocabulary" in answer.json()["error"]["message"]


def test_a_model_that_fails_leaves_the_others() -> None:
    with serving({"tiny": encoder(), "broken": "its file is damaged; download it again"}) as (url, _):
        assert httpx.get(f"{url}/health").json()["failed"] == {
            "broken": "its file is damaged; download it again"
        }
        assert httpx.post(f"{url}/embed", json={"inputs": "cat"}).status_code == 200
        refused = httpx.post(f"{url}/v1/embeddings", json={"input": "cat", "model": "broken"})
        assert refused.status_code == 503


def test_a_backend_that_fails_is_503_and_the_service_goes_on() -> None:
    fails = [True]

    def fail_once() -> None:
        if fails.pop() if fails else False:
            raise TfbertNpuError("the NPU gave no answer; ask again")

    with serving({"tiny": encoder(fail_once)}) as (url, _):
        assert httpx.post(f"{url}/embed", json={"inputs": "cat"}).status_code == 503
        assert httpx.post(f"{url}/embed", json={"inputs": "cat"}).status_code == 200


def test_an_api_key() -> None:
    with serving(api_key="s3cret") as (url, _):
        assert httpx.post(f"{url}/embed", json={"inputs": "cat"}).status_code == 401
        key = {"Authorization": "Bearer s3cret"}
        assert httpx.post(f"{url}/embed", json={"inputs": "cat"}, headers=key).status_code == 200
        assert httpx.get(f"{url}/health").status_code == 200


def test_a_client_that_hangs_up_costs_nobody_else() -> None:
    with serving({"tiny": encoder(lambda: time.sleep(0.02))}) as (url, _):
        host, _, port = url.removeprefix("http://").partition(":")
        for _ in range(5):
            with socket.create_connection((host, int(port))) as connection:
                body = b'{"inputs": "cat"}'
                head = f"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)
        assert httpx.post(f"{url}/embed", json={"inputs": "cat"}, timeout=30).status_code == 200


@pytest.mark.slow
def test_the_command_serves_and_ends_on_sigterm(tmp_path: Path) -> None:
    directory = tiny_bert.write_checkpoint(tmp_path / "model")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tfbert_npu", "serve", str(directory), "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stderr is not None
        while "serving on" not in (line := process.stderr.readline()):
            assert process.poll() is None, line
        deadline = time.monotonic() + 60
        while True:
            try:
                answer = httpx.post(f"http://127.0.0.1:{port}/embed", json={"inputs": TEXTS}, timeout=60)
                break
            except httpx.ConnectError:
                assert time.monotonic() < deadline
        np.testing.assert_allclose(
            answer.json(), SentenceEncoder.from_pretrained(directory).encode(TEXTS), atol=1e-5
        )
        taken = subprocess.run(command, capture_output=True, text=True, check=False)
        assert taken.returncode == 1
        assert "choose another with --port" in taken.stderr
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(30) == 0
