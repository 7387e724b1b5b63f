"""The reference of `bench serve`: FastAPI and eager PyTorch per request; run by uvicorn with two workers.

It answers in three ways. `/sample` is what FastAPI's tutorial leads to. `/typed` declares what it returns,
which lets pydantic write the JSON, several times faster. `/npy` returns bytes.
"""

from __future__ import annotations

import io
import os

import numpy as np
import torch
from fastapi import FastAPI, Response
from pydantic import BaseModel

from triptych.learn import VAE

LATENT = 20
HIDDEN = "EAGER_SERVER_HIDDEN"  # names the environment variable: widths, with commas between them


def decoder(hidden: tuple[int, ...] = (400,)) -> VAE:
    """The model both sides serve, with the same weights in every process."""
    torch.manual_seed(0)
    return VAE(VAE.Config(hidden=hidden, latent_dim=LATENT)).eval()


def noise(n: int, seed: int | None) -> torch.Tensor:
    """The latents of `n` samples."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return torch.randn(n, LATENT, generator=generator)


class Body(BaseModel):
    """What one request asks for."""

    n: int = 1
    seed: int | None = None


torch.set_num_threads(1)
app = FastAPI()
model = decoder(tuple(map(int, os.environ.get(HIDDEN, "400").split(","))))


@torch.inference_mode()
def draw(body: Body) -> torch.Tensor:
    """`n` samples, computed here and now."""
    return model.decode(noise(body.n, body.seed))


@app.post("/sample", response_model=None)
def sample(body: Body) -> dict[str, object]:
    """As JSON, by FastAPI's own encoder."""
    samples = draw(body)
    return {"shape": list(samples.shape), "samples": samples.tolist()}


@app.post("/typed")
async def typed(body: Body) -> dict[str, object]:
    """As JSON, by pydantic: the declared type tells it that there is nothing to convert."""
    samples = draw(body)
    return {"shape": list(samples.shape), "samples": samples.tolist()}


@app.post("/npy")
async def npy(body: Body) -> Response:
    """As the bytes of `numpy.save`."""
    file = io.BytesIO()
    np.save(file, draw(body).numpy())
    return Response(file.getvalue(), media_type="application/x-npy")
