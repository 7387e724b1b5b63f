"""Claim: the trainer takes Transformer steps faster than the plain eager loop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from triptych.bench.comparison import Comparison
from triptych.bench.textbook import SEED, by_trainer, clocked, compare, validation
from triptych.learn import Transformer, datasets
from triptych.learn.data.dataset import Dataset
from triptych.learn.data.split import WindowSplit

BATCH_SIZE, STEPS, RATE = 12, 150, 1e-3
SETTINGS = {"batch_size": BATCH_SIZE, "learning_rate": RATE, "grad_clip": 1.0}
NLL_GATE_NATS = 0.05


class Windows(TorchDataset[tuple[Tensor, Tensor]]):
    """Input and target of one window, cut from the text when asked."""

    def __init__(self, tokens: Tensor, block_size: int) -> None:
        self.tokens, self.block_size = tokens, block_size

    def __len__(self) -> int:
        return len(self.tokens) - self.block_size

    def __getitem__(self, start: int) -> tuple[Tensor, Tensor]:
        window = self.tokens[start : start + self.block_size + 1].long()
        return window[:-1], window[1:]


def fresh(data: Dataset) -> Transformer:
    """The model that both sides start from: 4 layers, 4 heads, 128 wide."""
    torch.manual_seed(SEED)
    known = {k: v for k, v in data.known_fields().items() if k in ("vocab_size", "block_size")}
    return Transformer(Transformer.Config(layers=4, heads=4, width=128, **known))


def textbook(data: Dataset) -> Transformer:
    """The loop everyone writes: a DataLoader of windows, cross-entropy, clipping, `loss.item()`, AdamW."""
    assert isinstance(data.train, WindowSplit)
    model, total = fresh(data), 0.0
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=False, foreach=False
    )
    starts = data.train.order(SEED, epoch=0)[: STEPS * BATCH_SIZE].tolist()
    windows = Windows(data.train.tokens, data.train.block_size)
    for inputs, targets in DataLoader(windows, BATCH_SIZE, sampler=starts):
        logits = model(inputs)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += loss.item()
    return model


def compare_text_training() -> list[Comparison]:
    """0.8 M parameters on Shakespeare, 64 characters of context, batch 12."""
    data = datasets.shakespeare(block_size=64, validation=0.002, test=0.002)
    return compare(
        f"train a Transformer of 4 layers, 128 wide, for {STEPS} steps of {BATCH_SIZE} x 64 characters",
        "plain loop: DataLoader of windows, eager, loss.item() each step, unfused AdamW",
        clocked(lambda: textbook(data)),
        lambda: by_trainer(fresh(data), data, STEPS, steps_only=True, **SETTINGS),
        lambda model: validation(model, data),
        what="validation nats per character",
        steps=STEPS,
        gate=NLL_GATE_NATS,
    )
