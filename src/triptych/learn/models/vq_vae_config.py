"""Settings of the VQ-VAE: which of them mean something depends on its quantiser."""

from __future__ import annotations

import math
from typing import Any, Literal

from triptych.learn.maths.likelihoods import LIKELIHOODS
from triptych.learn.models.base import Config

MAX_LEVELS = 256  # beyond them bfloat16 cannot tell levels apart
MAX_CODES = 65_536  # the prior has an output for each
VQ: dict[str, Any] = {
    "codes": 256,
    "code_dim": 32,
    "codebook": "ema",
    "commitment": 0.25,
    "codebook_decay": 0.99,
    "restart_below": 0.25,
}
FSQ: dict[str, Any] = {"levels": (8, 6, 5)}
EMA_ONLY = ("codebook_decay", "restart_below")


class VQVAEConfig(Config, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="vq-vae"):
    """Settings of a VQ-VAE.

    `channels` are the encoder's, mirrored in the decoder; each halves the picture. `residual_blocks` follow
    at the smallest size. `likelihood` and `sigma` are as in a VAE; sigma is learned unless given.

    With `quantizer` "vq": `codes` (none given: 256) vectors of size `code_dim` (32); `codebook` is "ema",
    moving averages with `codebook_decay` (0.99), where codes used less than `restart_below` (0.25) of a fair
    share are redrawn, or "loss", the paper's second term; `commitment` (0.25) is its beta. With "fsq":
    `levels` (8, 6, 5) of each dimension of a code.

    `prior_layers`, `prior_heads`, `prior_width` and `prior_dropout` are the Transformer's. `classes` is how
    many labels there are to condition on; None for a VQ-VAE without labels.
    """

    sample_shape: tuple[int, int, int] = (1, 28, 28)
    channels: tuple[int, ...] = (16, 32)
    residual_blocks: int = 0
    likelihood: str = "laplace"
    sigma: float | Literal["learned"] | None = None
    quantizer: Literal["vq", "fsq"] = "vq"
    codes: int | None = None
    code_dim: int | None = None
    codebook: Literal["ema", "loss"] | None = None
    codebook_decay: float | None = None
    restart_below: float | None = None
    commitment: float | None = None
    levels: tuple[int, ...] | None = None
    prior_layers: int = 2
    prior_heads: int = 4
    prior_width: int = 64
    prior_dropout: float = 0.0
    classes: int | None = None

    def __post_init__(self) -> None:
        self.require("channels", min(self.channels, default=0) > 0, "one or more widths of 1 or more")
        scale = 2 ** len(self.channels)
        fits = min(self.sample_shape) > 0 and all(size % scale == 0 for size in self.sample_shape[1:])
        valid = f"(channels, height, width), both multiples of {scale}, as each of model.channels halves them"
        self.require("sample_shape", fits, valid)
        self.require("residual_blocks", self.residual_blocks >= 0, "0 or more")
        self.require("likelihood", self.likelihood in LIKELIHOODS, ", ".join(LIKELIHOODS))
        if LIKELIHOODS[self.likelihood].has_scale:
            positive = self.sigma in (None, "learned") or 0 < float(self.sigma) < math.inf
            self.require("sigma", positive, '"learned" or a number above 0')
        else:
            remedy = f"a {self.likelihood} likelihood has no sigma: remove it"
            self.require("sigma", self.sigma is None, "nothing", remedy)
        self.check_quantizer()
        for field in ("prior_layers", "prior_heads", "prior_width"):
            self.require(field, getattr(self, field) > 0, "1 or more")
        divides = self.prior_width % self.prior_heads == 0
        self.require("prior_width", divides, f"a multiple of prior_heads = {self.prior_heads}")
        self.require("prior_dropout", 0 <= self.prior_dropout < 1, "0 or more, below 1")
        self.require("classes", self.classes is None or self.classes > 0, "1 or more, or nothing")

    def check_quantizer(self) -> None:
        """Raise `ConfigError` for settings of a quantiser that are out of range, or of the other one."""
        for field in FSQ if self.quantizer == "vq" else VQ:
            remedy = f'remove it: it means nothing with quantizer = "{self.quantizer}"'
            self.require(field, getattr(self, field) is None, "nothing", remedy)
        if self.quantizer == "fsq":
            levels = self.setting("levels")
            self.require(
                "levels",
                all(2 <= level <= MAX_LEVELS for level in levels) and 1 < math.prod(levels) <= MAX_CODES,
                f"numbers from 2 to {MAX_LEVELS} that make up to {MAX_CODES} codes",
            )
            return
        if self.setting("codebook") == "loss":
            for field in EMA_ONLY:
                remedy = 'remove it: it means nothing with codebook = "loss"'
                self.require(field, getattr(self, field) is None, "nothing", remedy)
        self.require("codes", 1 < self.setting("codes") <= MAX_CODES, f"2 to {MAX_CODES}")
        self.require("code_dim", self.setting("code_dim") > 0, "1 or more")
        self.require("codebook_decay", 0 <= self.setting("codebook_decay") < 1, "0 or more, below 1")
        self.require("restart_below", 0 <= self.setting("restart_below") < 1, "0 (never) or more, below 1")
        self.require("commitment", 0 <= self.setting("commitment") < math.inf, "0 or more")

    def setting(self, field: str) -> Any:
        """A setting of the quantiser: what is given, or its default."""
        given = getattr(self, field)
        return (VQ | FSQ)[field] if given is None else given

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid of codes."""
        _, height, across = self.sample_shape
        scale: int = 2 ** len(self.channels)
        return height // scale, across // scale
