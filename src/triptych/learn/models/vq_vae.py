"""The vector-quantised autoencoder, with the prior that makes it generative.

An encoder turns a picture into a small grid of vectors, a quantiser each vector into one of a few codes, a
decoder the codes back into a picture. A Transformer learns which grids of codes there are: to sample is to
draw a grid, code after code, and to decode it.

Source: van den Oord et al. 2017, arXiv:1711.00937; finite scalar quantisation: Mentzer et al. 2023,
arXiv:2309.15505. Deviations: the prior is a Transformer and no PixelCNN, and it learns beside the codes and
not after them, so that every checkpoint can sample (docs/decisions/0075).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from triptych.bundle import noise
from triptych.bundle.manifest import CodeSampler, TensorSpec
from triptych.learn.maths.language import next_token_nll
from triptych.learn.maths.likelihoods import LIKELIHOODS
from triptych.learn.maths.quantization import codebook_loss, commitment, per_code, perplexity
from triptych.learn.models.base import Batch, GenerativeModel, Graph, Progress, Terms, Turn
from triptych.learn.models.condition import label_spec, needed, sample_labels, width
from triptych.learn.models.figures import mean_and_error
from triptych.learn.models.pictures import picture_spec
from triptych.learn.models.transformer import Transformer
from triptych.learn.models.transformer_graphs import next_token
from triptych.learn.models.vq_vae_config import VQVAEConfig
from triptych.learn.models.vq_vae_graphs import Decode, Encode
from triptych.learn.nn import Downward, FiniteScalarQuantizer, MovingQuantizer, Upward, VectorQuantizer

LOG_VAR_LIMIT = 10.0  # log-variances are clamped to [-10, 10]
FIRST_SIGMA = 0.1  # where a learned one starts: about what a few codes leave of a picture


class VQVAE(GenerativeModel):
    """A VQ-VAE of convolutions with a Transformer as prior, small enough for a CPU by default: without the
    codebook and the prior 11,000 weights.

    Weights start as torch's layers have them, those of the prior as in `Transformer`.

    >>> config = VQVAE.Config(sample_shape=(1, 8, 8), channels=(8,), codes=16, prior_width=16)
    >>> VQVAE(config).sample(3, seed=7).shape
    torch.Size([3, 1, 8, 8])
    """

    family = "vq-vae"
    Config = VQVAEConfig
    validation_metric = "negative_elbo_nats"
    config: VQVAEConfig

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__(config)
        self.quantizer = quantizer(config)
        channels = (config.sample_shape[0], *config.channels)
        self.encoder = Downward(channels, self.quantizer.dim, blocks=config.residual_blocks)
        self.decoder = Upward(self.quantizer.dim, channels, blocks=config.residual_blocks)
        self.likelihood = LIKELIHOODS[config.likelihood]
        if self.likelihood.has_scale and config.sigma in (None, "learned"):
            self.pixel_log_var = nn.Parameter(torch.tensor(2 * math.log(FIRST_SIGMA)))
        else:
            fixed = torch.tensor(2 * math.log(float(config.sigma or 1.0)))
            self.register_buffer("pixel_log_var", fixed, persistent=False)
        self.prior = Transformer(
            Transformer.Config(
                vocab_size=self.quantizer.codes + max(1, width(config.classes)),
                block_size=math.prod(config.grid),
                layers=config.prior_layers,
                heads=config.prior_heads,
                width=config.prior_width,
                positions="learned",
                dropout=config.prior_dropout,
            )
        )

    def turns(self) -> tuple[Turn, ...]:
        """The autoencoder moves, then the prior on the codes of the same batch."""
        prior = tuple(self.prior.parameters())
        own = {id(weight) for weight in prior}
        rest = tuple(weight for weight in self.parameters() if id(weight) not in own)
        return Turn("codes", rest), Turn("prior", prior, needs_data=False, betas=(0.9, 0.95))

    def loss(self, batch: Batch, turn: Turn, progress: Progress) -> Terms:
        """What the autoencoder or the prior pays; the prior leaves no gradient on the codes."""
        if turn.name == "codes":
            return self.code_terms(batch.x)
        with torch.no_grad():
            indices = self.quantize(batch.x)[1]
        nll = self.prior_nll(indices, batch.labels).mean()
        return Terms(nll, {"prior_nll_nats": nll})

    def code_terms(self, x: Tensor) -> Terms:
        """The autoencoder's loss, with how varied the codes of the last updates were."""
        z, indices, code = self.quantize(x)
        reconstruction = -self.log_likelihood(x, code).mean()
        penalties = self.penalties(z, indices)
        varied = {"codebook_perplexity": self.quantizer.perplexity()}
        total = reconstruction + sum(penalties.values())
        named = {"reconstruction_nats": reconstruction, **penalties, **varied}
        return Terms(total, named, self.quantizer.statistics(z, indices))

    def absorb(self, turn: Turn, statistics: dict[str, Tensor]) -> None:
        """Move the codebook."""
        self.quantizer.absorb(statistics)

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The encoder's vectors (B, T, Z), the indices of their codes (B, T), and the codes with the
        gradients of the vectors, for x of shape (B, *sample_shape). Codes are chosen in full precision.
        """
        z = self.encoder(x).flatten(2).transpose(1, 2).to(x.dtype)
        with full_precision(x.device.type):
            indices, code = self.quantizer(z)
        return z, indices, code

    def log_likelihood(self, x: Tensor, code: Tensor) -> Tensor:
        """log p(x|code) in nats, (B,), for codes of shape (B, T, Z)."""
        log_var = self.pixel_log_var.clamp(-LOG_VAR_LIMIT, LOG_VAR_LIMIT)
        decoded = self.decoder(self.on_grid(code)).to(x.dtype)
        return self.likelihood.log_density(x.flatten(1), decoded.flatten(1), log_var)

    def on_grid(self, code: Tensor) -> Tensor:
        """Codes (B, T, Z) as a picture (B, Z, h, w)."""
        return code.transpose(1, 2).reshape(len(code), -1, *self.config.grid)

    def penalties(self, z: Tensor, indices: Tensor) -> dict[str, Tensor]:
        """What vectors and codes pay for their distance, summed over the grid: nothing in FSQ."""
        if self.config.quantizer == "fsq":
            return {}
        code = self.quantizer.lookup(indices)
        paid = {"commitment": self.config.setting("commitment") * commitment(z, code).sum(1).mean()}
        if self.config.setting("codebook") == "loss":
            paid["codebook_loss"] = codebook_loss(z, code).sum(1).mean()
        return paid

    def use(self, indices: Tensor) -> dict[str, Tensor]:
        """The perplexity of these codes, and which share of all codes is among them."""
        flat = indices.flatten()
        share = per_code(torch.ones_like(flat, dtype=torch.float32), flat, self.quantizer.codes)
        return {"codebook_perplexity": perplexity(share), "codebook_used": (share > 0).float().mean()}

    def prior_nll(self, indices: Tensor, labels: Tensor | None) -> Tensor:
        """-log p(codes) in nats, (B,), for indices of shape (B, T)."""
        start = self.start(len(indices), labels).to(indices.device)
        logits = self.prior(torch.cat((start, indices[:, :-1]), 1))[..., : self.quantizer.codes]
        return next_token_nll(logits.float(), indices).sum(1)

    def start(self, rows: int, labels: Tensor | None) -> Tensor:
        """The token that each row of the prior begins with, (B, 1): one for each label, after the codes."""
        if self.config.classes is None:
            return torch.full((rows, 1), self.quantizer.codes)
        return self.quantizer.codes + needed(labels)[:, None]

    def validate(self, batch: Batch) -> Terms:
        """Minus a lower bound of log p(x): the reconstruction and what the prior pays for the codes."""
        nll = self.negative_log_likelihoods(batch)
        named = {name: values.mean() for name, values in nll.items()}
        return Terms(named[self.validation_metric], named)

    def negative_log_likelihoods(self, batch: Batch) -> dict[str, Tensor]:
        """-log p(x|codes), -log p(codes) and their sum for each example, in nats."""
        _, indices, code = self.quantize(batch.x)
        reconstruction, prior = -self.log_likelihood(batch.x, code), self.prior_nll(indices, batch.labels)
        return {
            "negative_elbo_nats": reconstruction + prior,
            "reconstruction_nats": reconstruction,
            "prior_nll_nats": prior,
        }

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, condition: object | None = None) -> Tensor:
        """`n` decoded grids of codes drawn from the prior, in [0, 1]; `condition` is `{"label": 3}` or a list
        of labels, in a conditional VQ-VAE, and by default each class in turn.
        """
        noise.check_seed(seed)
        start = self.start(n, sample_labels(condition, n, self.config.classes))
        steps = math.prod(self.config.grid)
        tokens = self.prior.continued(start, seed, steps, self.quantizer.codes)[:, 1:]
        weight = next(self.decoder.parameters())
        return self.decode(tokens.view(n, *self.config.grid).to(weight.device))

    def decode(self, indices: Tensor) -> Tensor:
        """The mean picture of p(x|codes), in [0, 1], (B, *sample_shape), for indices of shape (B, h, w)."""
        picture: Tensor = Decode(self)(indices)
        return picture

    def encode(self, x: Tensor) -> Tensor:
        """The indices of the codes of x, (B, h, w)."""
        return self.quantize(x)[1].view(len(x), *self.config.grid)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, labels: Tensor | None = None) -> Tensor | None:
        """The mean picture of the codes of x."""
        return self.decode(self.encode(x))

    def diagnose(self, batches: Iterable[Batch]) -> dict[str, float | list[float]]:
        """`codebook_perplexity` and `codebook_used`, of all examples together."""
        indices = torch.cat([self.encode(batch.x).flatten() for batch in batches])
        return {name: value.item() for name, value in self.use(indices).items()}

    def figures(self, batches: Iterable[Batch]) -> dict[str, float]:
        """The bound and its parts in nats with standard errors, the mean absolute error of a pixel, and how
        the codes are used.
        """
        nlls: dict[str, list[Tensor]] = {}
        errors, indices = [], []
        for batch in batches:
            codes = self.encode(batch.x)
            indices.append(codes.flatten())
            errors.append((self.decode(codes) - batch.x).abs().flatten(1).mean(1))
            for name, values in self.negative_log_likelihoods(batch).items():
                nlls.setdefault(name, []).append(values)
        figures = {k: v for name, values in nlls.items() for k, v in mean_and_error(name, values).items()}
        use = {name: value.item() for name, value in self.use(torch.cat(indices)).items()}
        return figures | mean_and_error("l1", errors) | use | {"examples": sum(map(len, errors))}

    def graphs(self) -> tuple[Graph, ...]:
        """`decode`: indices to the mean picture x; `encode`: x to indices; `prior`: the next code, with a
        cache.
        """
        x, indices = self.sample_spec(), self.index_spec()
        x = picture_spec(("batch", *x.shape))
        picture = torch.rand(2, *self.config.sample_shape)
        grid = torch.randint(self.quantizer.codes, (2, *self.config.grid))
        return (
            Graph("decode", Decode(self), (indices,), (x,), (grid,)),
            Graph("encode", Encode(self), (x,), (indices,), (picture,)),
            next_token(self.prior, "prior"),
        )

    def index_spec(self) -> TensorSpec:
        """A grid of indices."""
        shape, high = ("batch", *self.config.grid), float(self.quantizer.codes - 1)
        return TensorSpec(name="indices", shape=shape, dtype="int64", low=0.0, high=high)

    def sampler(self) -> CodeSampler:
        """Draw a grid from the prior, code after code, and decode it."""
        cache = self.prior.sampler()
        return CodeSampler(
            graph="prior",
            vocab_size=cache.vocab_size,
            block_size=cache.block_size,
            layers=cache.layers,
            kv_heads=cache.kv_heads,
            head_dim=cache.head_dim,
            codes=self.quantizer.codes,
            code_shape=self.config.grid,
            decode_graph="decode",
            input="indices",
            output="x",
            condition=next(iter(label_spec(self.config.classes)), None),
            standard_graph="prior_standard",
        )

    def sample_spec(self) -> TensorSpec:
        """A picture in [0, 1]."""
        return picture_spec(self.config.sample_shape)


def full_precision(device: str) -> AbstractContextManager[object]:
    """Inside, nothing is computed in bfloat16."""
    available = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if available else nullcontext()


def quantizer(config: VQVAEConfig) -> VectorQuantizer | FiniteScalarQuantizer:
    """The quantiser of a config."""
    if config.quantizer == "fsq":
        return FiniteScalarQuantizer(config.setting("levels"))
    codes, dim = config.setting("codes"), config.setting("code_dim")
    if config.setting("codebook") == "loss":
        return VectorQuantizer(codes, dim)
    return MovingQuantizer(codes, dim, config.setting("codebook_decay"), config.setting("restart_below"))
