"""The reference of `bench serve`: FastAPI and eager PyTorch per request; run by uvicorn with two workers."""

from __future__ import annotations

import torch
from fastapi import FastAPI
from pydantic import BaseModel

from triptych.learn import VAE

LATENT = 20


def decoder() -> VAE:
    """The model both sides serve, with the same weights in every process."""
    torch.manual_seed(0)
    return VAE(VAE.Config(hidden=(400,), latent_dim=LATENT)).eval()


class Body(BaseModel):
    """What one request asks for."""

    n: int = 1
    seed: int | None = None


torch.set_num_threads(1)
app = FastAPI()
model = decoder()


@app.post("/sample")
async def sample(body: Body) -> dict[str, object]:
    """`n` samples, computed here and now."""
    generator = torch.Generator()
    if body.seed is not None:
        generator.manual_seed(body.seed)
    else:
        generator.seed()
    with torch.inference_mode():
        samples = model.decode(torch.randn(body.n, LATENT, generator=generator))
    return {"shape": list(samples.shape), "samples": samples.tolist()}
