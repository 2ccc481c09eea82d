"""How far next tokens are from the untouched model's, until an answer goes another way."""

import pytest
import torch

from prumerge.evaluate.divergence import Follower, Listener, divergences, likeliest

IDS = torch.zeros(1, 1, dtype=torch.long)


def test_nothing_is_apart_from_itself():
    logits = torch.randn(3, 5, 40)
    assert divergences(logits, *likeliest(logits, 8)).abs().max() < 1e-6


def test_with_the_whole_vocabulary_it_is_the_divergence_of_kullback_and_leibler():
    ours, theirs = torch.randn(2, 6, 40, dtype=torch.float64).float()
    expected = torch.nn.functional.kl_div(
        ours.log_softmax(-1), theirs.log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    torch.testing.assert_close(divergences(ours, *likeliest(theirs, 40)), expected, atol=2e-5, rtol=1e-4)


def test_with_the_likeliest_alone_it_is_never_more():
    ours, theirs = torch.randn(2, 6, 40)
    whole = divergences(ours, *likeliest(theirs, 40))
    some = divergences(ours, *likeliest(theirs, 4))
    assert (some <= whole + 1e-5).all()
    assert (some > 0).all()


def test_what_neither_may_say_counts_nothing():
    logits = torch.randn(2, 10)
    logits[:, 4:] = -torch.inf
    assert divergences(logits, *likeliest(logits, 8)).abs().max() < 1e-6


def heard(answers, ends, scores):
    """What a model was heard to say: tokens of each answer, and how many of them count."""
    listener = Listener()
    for step in scores:
        assert listener(IDS, step) is step
    return listener.heard([""] * len(answers), torch.tensor(answers), ends)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ([5, 6, 7], 3),  # the same: to its end
        ([5, 9, 7], 2),  # with the first token that differs, and what comes after it no more
        ([9, 6, 7], 1),
        ([5, 6, 9], 3),
        ([5], 1),  # an answer that ended before
    ],
)
def test_tokens_count_until_the_first_that_differs(now, until):
    theirs, ours = torch.randn(2, 3, 1, 40)
    follower = Follower(heard([[5, 6, 7]], [3], theirs), torch.device("cpu"))
    for step in ours[: len(now)]:
        assert follower(IDS, step) is step
    [(total, count)] = follower.compared(torch.tensor([now]))
    each = [float(divergences(ours[step], *likeliest(theirs[step], 32))[0]) for step in range(until)]
    assert (count, total) == (until, pytest.approx(sum(each), rel=1e-5))


def test_a_row_is_compared_to_its_own_end_and_not_to_that_of_its_batch():
    theirs, ours = torch.randn(2, 4, 2, 40)
    follower = Follower(heard([[5, 6, 7, 8], [5, 2, 0, 0]], [4, 2], theirs), torch.device("cpu"))
    for step in ours:
        follower(IDS, step)
    assert [count for _, count in follower.compared(torch.tensor([[5, 6, 7, 8], [5, 2, 0, 0]]))] == [4, 2]


def test_more_tokens_than_the_untouched_model_said_are_not_compared():
    theirs = torch.randn(2, 1, 40)  # steps, rows, words
    ours = torch.randn(4, 1, 40)
    follower = Follower(heard([[5, 6]], [2], theirs), torch.device("cpu"))
    for step in ours:
        follower(IDS, step)
    assert follower.compared(torch.tensor([[5, 6, 7, 8]]))[0][1] == 2
