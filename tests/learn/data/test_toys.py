"""Toys: modes where the papers have them, scaled into the unit square, and counted."""

import pytest
import torch

from triptych.errors import ConfigError
from triptych.learn import data as datasets
from triptych.learn.data.toys import grid, mixture, ring
from triptych.learn.train.recipe import check_data, load_data


def test_a_ring_has_eight_modes_at_four_tenths_from_the_middle() -> None:
    centres = ring(8, 0.004).centres
    assert centres.shape == (8, 2)
    torch.testing.assert_close(centres[0], torch.tensor([0.9, 0.5]))
    torch.testing.assert_close((centres - 0.5).norm(dim=1), torch.full((8,), 0.4))


def test_a_grid_has_twenty_five_modes_a_fifth_apart() -> None:
    centres = grid(5, 0.005).centres
    assert centres.shape == (25, 2)
    torch.testing.assert_close(centres[0], torch.tensor([0.1, 0.1]))
    torch.testing.assert_close(centres[1] - centres[0], torch.tensor([0.0, 0.2]))


@pytest.mark.parametrize(("name", "modes"), [("toy_ring", 8), ("toy_grid", 25)])
def test_the_data_hit_every_mode_and_lie_within_three_deviations(name: str, modes: int) -> None:
    data = load_data({"name": name, "examples": 4000})
    assert data.spec.sample_shape == (2,)
    x = data.train.take(torch.arange(2500)).x
    assert 0 <= x.min() < x.max() <= 1
    drawn = mixture(data.section)
    assert drawn is not None
    found = drawn.figures(x)
    assert (found["modes_hit"], found["modes_missed"]) == (modes, 0)
    assert found["high_quality"] == pytest.approx(1 - 2.718281828**-4.5, abs=0.006)  # a Rayleigh tail


def test_labels_name_the_mode_and_the_section_makes_the_same_data_again() -> None:
    data = datasets.toy_ring(examples=1000, seed=3)
    batch = data.train.take(torch.arange(500))
    drawn = mixture(data.section)
    assert drawn is not None
    assert batch.labels is not None
    assert torch.cdist(batch.x, drawn.centres).argmin(1).equal(batch.labels)
    check_data(data.section)
    assert load_data(data.section).spec.digest == data.spec.digest
    assert datasets.toy_ring(examples=1000, seed=4).spec.digest != data.spec.digest


def test_all_samples_in_one_mode_hit_one() -> None:
    drawn = ring(8, 0.004)
    found = drawn.figures(drawn.centres[:1].repeat(100, 1))
    assert found == {"modes_hit": 1, "modes_missed": 7, "high_quality": 1.0}


def test_other_data_have_no_known_modes() -> None:
    assert mixture(datasets.digits().section) is None


@pytest.mark.parametrize("given", [{"sigma": 0.2}, {"sigma": 0.0}, {"modes": 1}])
def test_modes_that_touch_or_are_none_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"data\.(sigma|modes)"):
        datasets.toy_ring(**given)
