"""No GPU is needed to see that a model computes where its weights are: on torch's `meta` device a tensor of
another device is an error, as it is on a GPU.
"""

import pytest
import torch

from triptych.learn.models import FAMILIES, GenerativeModel
from triptych.learn.models.base import Batch, Progress
from triptych.learn.train.device import choose_device

META = torch.device("meta")
CASES = {
    "vae": {"sample_shape": (1, 4, 4), "hidden": (8,)},
    "vae, conditional": {"sample_shape": (1, 4, 4), "hidden": (8,), "classes": 3},
    "wgan-gp": {"sample_shape": (1, 4, 4)},
    "wgan-gp, conditional": {"sample_shape": (1, 4, 4), "classes": 3},
    "vq-vae": {"sample_shape": (1, 4, 4), "channels": (8,), "codes": 6, "prior_width": 8},
    "vq-vae, conditional": {
        "sample_shape": (1, 4, 4),
        "channels": (8,),
        "quantizer": "fsq",
        "levels": (3, 2),
        "classes": 3,
    },
    "transformer": {"vocab_size": 5, "block_size": 4, "layers": 1, "heads": 2, "width": 8, "dropout": 0.1},
}


def on_meta(case: str) -> tuple[GenerativeModel, Batch]:
    family = FAMILIES[case.partition(",")[0]]
    model = family(family.Config(**CASES[case])).to(META)
    if case == "transformer":
        return model, Batch(torch.zeros(6, 5, dtype=torch.long, device=META))
    return model, Batch(torch.zeros(6, 1, 4, 4, device=META), torch.zeros(6, dtype=torch.long, device=META))


@pytest.mark.parametrize("case", CASES)
def test_losses_gradients_and_validation_stay_on_the_device_of_the_weights(case: str) -> None:
    model, batch = on_meta(case)
    for turn in model.turns():
        terms = model.loss(batch, turn, Progress())
        gradients = torch.autograd.grad(terms.total, turn.parameters)
        assert {gradient.device for gradient in gradients} == {META}
    assert model.validate(batch).total.device == META


def test_without_a_gpu_auto_is_the_cpu() -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is a GPU")
    assert choose_device("auto") == torch.device("cpu")
