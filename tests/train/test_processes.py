"""Several processes learn what one would."""

import processes
import pytest
import torch


def test_two_processes_learn_what_one_does_with_their_rows_together(tmp_path):
    losses, weights = processes.trained(processes.trainer(2))
    for own, found in processes.in_two("two_of_one", tmp_path):
        assert own == pytest.approx(losses, abs=1e-6)
        for name, weight in weights.items():
            assert torch.allclose(found[name], weight, atol=1e-6), name


def test_sharded_layers_give_the_plain_model_s_losses_and_gradients(tmp_path):
    losses, gradients = processes.whole()
    for rank, (loss, found) in enumerate(processes.in_two("sharded", tmp_path)):
        assert torch.allclose(loss, losses[rank], atol=1e-6)
        assert set(found) == set(gradients)
        for name, gradient in gradients.items():
            assert torch.allclose(found[name], gradient, atol=1e-6), name
