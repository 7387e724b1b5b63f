"""A GPT-2 from `transformers`, imported and served: what it streams is what `transformers` says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from openai import OpenAI
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from triptych.learn.data.text import bpe_tokenizer

PROMPT, TOKENS = "日本 là", 24


def test_an_imported_gpt2_streams_the_text_of_transformers(serve: Callable[..., Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe_tokenizer(["là où été 日本 🙂"] * 9, 290))
    sizes = {"vocab_size": len(tokenizer), "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 4}
    model = GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.3, eos_token_id=0)).eval()
    model.save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    command = [
        sys.executable,
        "-m",
        "triptych",
        "import",
        str(tmp_path / "gpt2"),
        "--out",
        str(tmp_path / "mine"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "note: bos_token_id 50256 is not in the vocabulary" in done.stdout
    read = tokenizer(PROMPT, return_tensors="pt")
    made = model.generate(**read, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)[0]
    expected = tokenizer.decode(made[read["input_ids"].shape[1] :], skip_special_tokens=True)
    client = OpenAI(base_url=serve(str(tmp_path / "mine")).url + "/v1", api_key="none", max_retries=0)
    asked = {"model": "mine", "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0.0}
    assert client.completions.create(**asked).choices[0].text == expected
    pieces = [
        part.choices[0].text for part in client.completions.create(**asked, stream=True) if part.choices
    ]
    assert "".join(pieces) == expected
