"""What is kept of prompts stays within its budget."""

import numpy as np

from triptych.infer.prefixes import Prefixes


def test_kept_prompts_stay_within_the_budget_and_the_latest_are_found(text):
    decoder = text.backend.decoder(text.token_graph, 2)
    each = decoder.past_bytes(4) + text.text_sampler.vocab_size * 4
    prefixes = Prefixes(decoder, budget_bytes=2 * each)
    prompts = [[number, 1, 2, 3] for number in range(5)]
    logits = [prefixes.read(0, prompt).copy() for prompt in prompts]
    assert prefixes.held_bytes == 2 * each
    reads = []
    decoder.prefill, plain = lambda slot, tokens: reads.append(tokens) or plain(slot, tokens), decoder.prefill
    for place in (4, 3, 0):
        assert (prefixes.read(1, prompts[place]) == logits[place]).all()
    assert reads == [prompts[0]]
    assert prefixes.held_bytes == 2 * each


def test_a_prompt_larger_than_the_budget_is_not_kept(text):
    prefixes = Prefixes(text.backend.decoder(text.token_graph, 1), budget_bytes=100)
    assert np.isfinite(prefixes.read(0, [1, 2, 3])).all()
    assert prefixes.held_bytes == 0


def test_a_loop_tells_the_most_memory_its_pasts_take(text):
    sampler = text.text_sampler
    row = 2 * sampler.layers * sampler.kv_heads * sampler.block_size * sampler.head_dim * 4
    assert text.decode_loop(4, prefix_bytes=1000).cache_bytes == 4 * row + 1000
