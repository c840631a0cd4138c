import numpy as np
import torch

from curate.pictures.copy_descriptor import SIDE, make_network, net_input
from pipelines.make_weights.copy_descriptor import contrastive_loss, folded, train
from pipelines.make_weights.picture_edits import SOURCE, edited
from tests.curate.tiny import drawn


def sources(count: int) -> np.ndarray:
    return np.stack([drawn(seed, SOURCE, SOURCE) for seed in range(count)])


def test_an_edit_is_a_small_picture_and_the_generator_decides_which() -> None:
    pictures = sources(3)
    made = [edited(pictures[0], pictures, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert made[0].shape == (SIDE, SIDE, 3)
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


def test_folded_weights_say_what_the_trained_net_says() -> None:
    pictures = sources(12)
    trained = train(pictures, seed=5, steps=2)
    shipped = make_network()
    shipped.load_state_dict({name: tensor.float() for name, tensor in folded(trained).items()})
    x = net_input(pictures[:, ::2, ::2][:, :SIDE, :SIDE])
    with torch.no_grad():
        a, b = (torch.nn.functional.normalize(net(x), dim=1) for net in (trained, shipped.eval()))
    assert (a * b).sum(dim=1).min() > 0.999  # they are stored in float16


def test_the_same_seed_trains_the_same_net() -> None:
    first, again = (folded(train(sources(8), seed=7, steps=2)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_loss_falls_as_edits_of_one_picture_meet_and_others_part() -> None:
    generator = torch.Generator().manual_seed(0)
    random = torch.nn.functional.normalize(torch.randn(16, 8, generator=generator), dim=1)
    other = torch.nn.functional.normalize(torch.randn(16, 8, generator=generator), dim=1)
    assert contrastive_loss(random, random) < contrastive_loss(random, other)
    crowded = torch.nn.functional.normalize(random + 3, dim=1)
    assert contrastive_loss(random, random) < contrastive_loss(crowded, crowded)
