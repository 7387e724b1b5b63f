"""What a served model answers, through real processes and sockets."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

import triptych
from triptych.bundle.pictures import png


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.fixture(scope="module")
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_served_npy_is_the_engine_s(served, bundles: Path) -> None:
    with triptych.load(bundles / "vae", threads=1) as engine:
        assert served.sample(n=5, seed=7).content == npy(engine.sample(5, seed=7))


def test_a_request_in_a_crowd_of_64_has_the_bytes_it_has_alone(served) -> None:
    alone = [served.sample(n=1 + seed % 3, seed=seed).content for seed in range(64)]
    with ThreadPoolExecutor(64) as crowd:
        together = list(crowd.map(lambda seed: served.sample(n=1 + seed % 3, seed=seed).content, range(64)))
    assert together == alone


def test_json_says_where_it_comes_from_and_repeats(served) -> None:
    first = served.sample("application/json", n=2)
    body = first.json()
    assert body["model"] == "vae" == first.headers["triptych-model"]
    assert body["version"] == first.headers["triptych-version"]
    assert body["shape"] == [2, 1, 8, 8] == list(np.shape(body["samples"]))
    assert str(body["seed"]) == first.headers["triptych-seed"]
    assert served.sample("application/json", n=2, seed=body["seed"]).content == first.content


@pytest.mark.parametrize(("n", "size"), [(1, (8, 8)), (4, (17, 17))])
def test_png_is_one_picture_or_a_grid(served, n: int, size: tuple[int, int]) -> None:
    with Image.open(io.BytesIO(served.sample("image/png", n=n, seed=1).content)) as picture:
        assert picture.size == size


def test_a_graph_run_equals_the_engine_s(served, bundles: Path) -> None:
    z = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    path = "/v1/models/vae/run/decode"
    with triptych.load(bundles / "vae", threads=1) as engine:
        outputs = engine.run("decode", {"z": z})
    name, wanted = next(iter(outputs.items()))
    answer = served.client.post(path, json={"inputs": {"z": z.tolist()}}).json()["outputs"]
    assert np.array_equal(np.array(answer[name]["values"], np.float32), wanted)
    headers = {"content-type": "application/x-npy", "accept": "application/x-npy"}
    if len(outputs) == 1:
        assert served.client.post(path, content=npy(z), headers=headers).content == npy(wanted)


def test_the_steps_of_several_texts_run_at_once_as_each_alone(served, bundles: Path) -> None:
    """The number of tokens is a scalar, for all rows of one request and not for those beside it."""
    with triptych.load(bundles / "text") as engine:
        specs = engine.graph("next_token").inputs[3:]

    def run(length: int) -> list[float]:
        past = {spec.name: np.zeros((2, *spec.shape[1:])).tolist() for spec in specs}
        told = {"tokens": [[3] * length] * 2, "seqlens_k": [length - 1] * 2, "total_sequence_length": length}
        answer = served.client.post("/v1/models/text/run/next_token", json={"inputs": told | past})
        assert answer.status_code == 200, answer.text
        return answer.json()["outputs"]["logits"]["values"]

    lengths = [1, 3, 3, 5, 2, 4] * 2
    with ThreadPoolExecutor(len(lengths)) as crowd:
        assert list(crowd.map(run, lengths)) == [run(length) for length in lengths]


def test_more_tokens_than_a_model_sees_are_the_client_s_mistake(served) -> None:
    answer = served.client.post("/v1/models/text/run/score", json={"inputs": {"tokens": [[0] * 65]}})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "score.tokens")


def test_the_openai_client_completes_and_streams_the_same_text(client, bundles: Path) -> None:
    request = {"model": "text", "prompt": "To be", "max_tokens": 12, "temperature": 0.8, "seed": 3}
    whole = client.completions.create(**request)
    chunks = list(client.completions.create(**request, stream=True, stream_options={"include_usage": True}))
    with triptych.load(bundles / "text", threads=1) as engine:
        wanted = engine.generate("To be", max_tokens=12, temperature=0.8, seed=3)
    assert whole.choices[0].text == wanted.text
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == wanted.text
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage == whole.usage
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (5, 12)


def test_choices_differ_and_log_probabilities_come(client) -> None:
    answer = client.completions.create(
        model="text", prompt=[1, 2, 3], max_tokens=4, seed=1, n=3, logprobs=0, extra_body={"top_k": 50}
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.text for choice in answer.choices}) == 3
    assert all(value < 0 for choice in answer.choices for value in choice.logprobs.token_logprobs)


def test_a_prompt_of_any_length_can_be_echoed(client) -> None:
    request = {"model": "text", "prompt": "To be " * 1000, "max_tokens": 2, "seed": 3, "echo": True}
    whole = client.completions.create(**request)
    assert whole.choices[0].text.startswith(request["prompt"])
    assert whole.usage.prompt_tokens == 6000
    chunks = list(client.completions.create(**request, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert [len(chunk.choices[0].text) for chunk in chunks] == [6000, 1, 1]


def test_stop_ends_a_text_before_it_and_echo_repeats_the_prompt(client) -> None:
    request = {"model": "text", "prompt": "ab", "max_tokens": 30, "seed": 5}
    text = client.completions.create(**request).choices[0].text
    stopped = client.completions.create(**request, stop=[text[4]], echo=True).choices[0]
    assert stopped.text == "ab" + text[: text.index(text[4])]
    assert stopped.finish_reason == "stop"


def test_every_setting_of_a_text_reaches_the_engine(client, bundles: Path) -> None:
    settings = {"max_tokens": 9, "temperature": 2.0, "seed": 3, "top_p": 0.9, "logit_bias": {5: 3.0}}
    penalties = {"frequency_penalty": 0.5, "presence_penalty": -0.5}
    additions = {"min_p": 0.01, "repetition_penalty": 1.2, "top_k": 40}
    answer = client.completions.create(
        model="text", prompt="To be", **settings, **penalties, extra_body=additions, echo=True, logprobs=3
    ).choices[0]
    with triptych.load(bundles / "text", threads=1) as engine:
        wanted = engine.generate(
            "To be", **settings, **penalties, **additions, echo=True, logprobs=True, top_logprobs=3
        )
        names = [engine.tokenizer.decode([token]) for token in wanted.token_ids]
    assert answer.text == wanted.text
    assert answer.logprobs.tokens == names
    assert answer.logprobs.token_logprobs == wanted.logprobs
    assert answer.logprobs.text_offset == list(range(14))
    assert answer.logprobs.top_logprobs[0] is None
    for name, logprob, shown in zip(
        names[1:], wanted.logprobs[1:], answer.logprobs.top_logprobs[1:], strict=True
    ):
        assert shown[name] == logprob
        assert 3 <= len(shown) <= 4


def test_settings_that_clients_send_always_are_taken_where_they_change_nothing(client) -> None:
    greedy = {"model": "text", "prompt": "ab", "max_tokens": 6, "temperature": 0}
    additions = {"top_k": 3, "min_p": 0.2}
    answer = client.completions.create(**greedy, n=2, seed=4, top_p=0.5, user="me", extra_body=additions)
    wanted = client.completions.create(**greedy).choices[0].text
    assert [choice.text for choice in answer.choices] == [wanted, wanted]


def test_the_best_of_several_is_the_likeliest(client) -> None:
    request = {"model": "text", "prompt": "ab", "max_tokens": 6, "seed": 5}
    every = client.completions.create(**request, n=4, logprobs=0).choices
    best = client.completions.create(**request, best_of=4)
    ranked = max(every, key=lambda choice: sum(choice.logprobs.token_logprobs))
    assert [choice.text for choice in best.choices] == [ranked.text]
    assert best.choices[0].logprobs is None
    assert best.usage.completion_tokens == 24


def test_no_prompt_is_an_empty_one(client) -> None:
    texts = [client.completions.create(model="text", prompt=p, max_tokens=4, seed=1) for p in (None, "")]
    assert texts[0].choices == texts[1].choices


def test_a_prompt_alone_is_scored(client) -> None:
    answer = client.completions.create(model="text", prompt="To be", max_tokens=0, echo=True, logprobs=0)
    assert (answer.choices[0].text, answer.usage.completion_tokens) == ("To be", 0)
    assert [value is None for value in answer.choices[0].logprobs.token_logprobs] == [True] + [False] * 4


def test_the_openai_client_understands_the_errors(client) -> None:
    with pytest.raises(openai.NotFoundError, match="text"):
        client.completions.create(model="tex", prompt="a")
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="text", prompt="a", temperature=-1)
    assert caught.value.param == "temperature"


def test_the_openai_client_gets_each_picture_as_a_png(client, bundles: Path) -> None:
    made = client.images.generate(
        model="vae", prompt="", n=3, size="8x8", response_format="b64_json", extra_body={"seed": 7}
    )
    wanted = triptych.load(bundles / "vae").sample(3, seed=7)
    assert [base64.b64decode(image.b64_json) for image in made.data] == [
        png(wanted[i : i + 1]) for i in range(3)
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": "a cat"}, "prompt"),
        ({"size": "9x9"}, "size"),
        ({"model": "text"}, "model"),
        ({"n": 100_000}, "n"),
        ({"response_format": "url"}, "response_format"),
    ],
)
def test_a_picture_that_cannot_be_is_refused_as_openai_does(client, fields, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(**{"model": "vae", "prompt": "", **fields})
    assert refused.value.param == param


def test_models_are_listed(client) -> None:
    assert {model.id for model in client.models.list()} == {"vae", "text"}
    assert client.models.retrieve("vae").id == "vae"


def test_a_text_model_samples_texts(served) -> None:
    answer = served.client.post("/v1/models/text/sample", json={"n": 2, "seed": 4})
    assert answer.json()["shape"] == [2]
    assert [len(text) > 0 for text in answer.json()["samples"]] == [True, True]


SAMPLE, RUN, COMPLETE = "/v1/models/vae/sample", "/v1/models/vae/run/decode", "/v1/completions"
JSON, NPY = {"content-type": "application/json"}, {"content-type": "application/x-npy"}

BAD = [
    (SAMPLE, b"", {}, 400, "body"),
    (SAMPLE, b"{", {}, 400, "body"),
    (SAMPLE, b"[]", {}, 400, "body"),
    (SAMPLE, b"\xff\xfe", {}, 400, "body"),
    (SAMPLE, b'{"n": NaN}', {}, 400, "body"),
    (SAMPLE, b'{"n": 0}', {}, 400, "n"),
    (SAMPLE, b'{"n": -1}', {}, 400, "n"),
    (SAMPLE, b'{"n": 1.5}', {}, 400, "n"),
    (SAMPLE, b'{"n": true}', {}, 400, "n"),
    (SAMPLE, b'{"n": "3"}', {}, 400, "n"),
    (SAMPLE, b'{"n": 100000}', {}, 400, "n"),
    (SAMPLE, b'{"seed": -1}', {}, 400, "seed"),
    (SAMPLE, b'{"seed": 9223372036854775808}', {}, 400, "seed"),
    (SAMPLE, b'{"sede": 1}', {}, 400, "sede"),
    (SAMPLE, b'{"condition": 3}', {}, 400, "condition"),
    (SAMPLE, b"[" * 5000, {}, 400, "body"),
    (SAMPLE, b" " * 100001, {}, 413, "body"),
    (SAMPLE, b"{}", {"content-type": "text/xml"}, 415, "Content-Type"),
    (SAMPLE, b"{}", {"accept": "text/html"}, 406, "Accept"),
    (SAMPLE, b"{}", {"request-timeout": "soon"}, 400, "Request-Timeout"),
    (SAMPLE, b"{}", {"request-timeout": "-1"}, 400, "Request-Timeout"),
    ("/v1/models/vea/sample", b"{}", {}, 404, "model"),
    ("/v1/models/vae/run/decod", b"{}", {}, 404, "graph"),
    ("/v1/models/vae%2F..%2F..%2Fetc/sample", b"{}", {}, 404, "path"),
    (RUN, b"{}", {}, 400, None),
    (RUN, b'{"inputs": {}}', {}, 400, "decode"),
    (RUN, b'{"inputs": {"y": [[1]]}}', {}, 400, "decode"),
    (RUN, b'{"inputs": {"z": [[1, 2, 3]]}}', {}, 400, "decode.z"),
    (RUN, b'{"inputs": {"z": [[1, 2], [3]]}}', {}, 400, "decode.z"),
    (RUN, b'{"inputs": {"z": [["a", "b", "c", "d"]]}}', {}, 400, "decode.z"),
    (RUN, b'{"inputs": {"z": [[1, 2, 3, NaN]]}}', {}, 400, "body"),
    (RUN, b'{"inputs": {"z": [[1, 2, 3, 1e39]]}}', {}, 400, "decode.z"),
    (RUN, b'{"inputs": {"z": []}}', {}, 400, "decode.z"),
    (RUN, b"not npy", NPY, 400, "body"),
    (RUN, npy(np.zeros((1, 4), np.float64)), NPY, 400, "decode.z"),
    (RUN, npy(np.full((1, 4), np.nan, np.float32)), NPY, 400, "decode.z"),
    (RUN, npy(np.zeros((1, 4), np.float32))[:-3], NPY, 400, "body"),
    (RUN, npy(np.zeros((300, 4), np.float32)), NPY, 400, "rows"),
]


@pytest.mark.parametrize(("path", "body", "headers", "status", "param"), BAD)
def test_bad_input_is_refused_in_words(served, path, body, headers, status, param) -> None:
    answer = served.client.post(path, content=body, headers={**JSON, **headers})
    error = answer.json()["error"]
    assert answer.status_code == status
    assert set(error) == {"type", "message", "param", "hint"}
    assert error["message"]
    assert "Traceback" not in answer.text
    if param is not None:
        assert error["param"] == param


BAD_COMPLETIONS = [
    ({}, "model"),
    ({"model": "vae"}, "model"),
    ({"prompt": {"a": 1}}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [1, "a"]}, "prompt"),
    ({"prompt": [5000]}, "prompt"),
    ({"prompt": "\u00e9"}, "prompt"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 10**9}, "max_tokens"),
    ({"n": 1000}, "n"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": 1000}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_k": -1}, "top_k"),
    ({"stop": ""}, "stop"),
    ({"stop": [1]}, "stop"),
    ({"seed": "one"}, "seed"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"presence_penalty": 2.1}, "presence_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"min_p": -1}, "min_p"),
    ({"logprobs": 21}, "logprobs"),
    ({"logit_bias": {"a": 1}}, "logit_bias"),
    ({"logit_bias": {"96": 1}}, "logit_bias"),
    ({"n": 3, "best_of": 2}, "best_of"),
    ({"best_of": 2, "stream": True}, "best_of"),
    ({"prompt": "a" * 65, "echo": True, "logprobs": 1}, "echo"),
    ({"suffix": "x"}, "suffix"),
    ({"temprature": 1}, "temprature"),
]


@pytest.mark.parametrize(("fields", "param"), BAD_COMPLETIONS)
def test_a_bad_completion_is_refused_as_openai_does(served, fields, param) -> None:
    body = {"model": "text", "prompt": "a", **fields} if fields else {}
    answer = served.client.post(COMPLETE, json=body)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert param in (error["param"] or error["message"])


def test_wrong_methods_and_paths_are_named(served) -> None:
    assert served.client.get(SAMPLE).status_code == 405
    assert served.client.get(SAMPLE).headers["allow"] == "POST"
    assert served.client.get("/nothing").status_code == 404
    assert served.client.post("/livez").status_code == 405


def test_a_post_without_a_length_is_refused(served) -> None:
    request = httpx.Request("POST", served.url + SAMPLE)
    del request.headers["content-length"]
    assert served.client.send(request).status_code == 411


def test_an_operator_sees_health_workers_metrics_and_docs(served) -> None:
    assert served.sample().status_code == 200
    assert served.client.get("/livez").status_code == 200
    assert served.client.get("/readyz").json()["ready"] is True
    assert [worker["state"] for worker in served.workers()] == ["ready", "ready"]
    page = served.client.get("/metrics").text
    for name in (
        'requests_total{code="200",model="vae"}',
        "request_duration_seconds",
        "queue_duration_seconds",
        "compute_duration_seconds",
        "batch_rows",
        "batch_emitted_total",
        "in_progress",
        "queue_depth",
        "time_to_first_token_seconds",
        "time_per_output_token_seconds",
        "worker_restarts_total",
        "redelivered_total",
        "dead_lettered_total",
        "expired_total",
        "cancelled_total",
    ):
        assert f"triptych_{name}" in page
    assert "/v1/models/{name}/sample" in served.client.get("/openapi.json").json()["paths"]
    assert "temperature" in served.client.get("/docs").text
