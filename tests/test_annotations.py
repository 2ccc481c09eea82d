"""That annotations are checked while testing, in functions inside functions as well."""

import gc
import weakref
from threading import Thread

import annotations
import jaxtyping
import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

import prumerge.ops

Vector = Float[Tensor, " N"]
checked = jaxtyping.jaxtyped(typechecker=annotations.check)


def adder(constant):
    @checked
    def add(left: Vector, right: Vector, twice: bool = False) -> Vector:
        """A sum."""
        return (left + right + constant) * (1 + twice)

    return add


def test_the_package_is_checked():
    with pytest.raises(TypeCheckError):
        prumerge.ops.top(torch.ones(3), "two")  # type: ignore[arg-type]


def test_each_function_of_one_definition_runs_itself():
    one, two = adder(1.0), adder(torch.arange(3.0))
    assert one(torch.zeros(3), torch.zeros(3)).tolist() == [1, 1, 1]
    assert two(torch.zeros(3), right=torch.zeros(3), twice=True).tolist() == [0, 2, 4]
    assert (one.__name__, one.__doc__) == ("add", "A sum.")


@pytest.mark.parametrize("arguments", [(torch.zeros(3), torch.zeros(2)), (torch.zeros(3), torch.zeros(3), 2)])
def test_what_comes_in_is_checked_however_often_it_is_defined(arguments):
    for constant in range(2):
        with pytest.raises(TypeCheckError, match="parameters"):
            adder(constant)(*arguments)
    assert adder(1)(torch.zeros(2), torch.zeros(2)).tolist() == [
        1,
        1,
    ]  # what was refused is forgotten


def test_what_goes_out_is_checked():
    adder(0)
    with pytest.raises(TypeCheckError, match="return value"):
        adder(torch.zeros(2, 1))(torch.zeros(3), torch.zeros(3))


def test_nothing_of_a_function_that_ran_is_kept_alive():
    add = adder(torch.zeros(3))
    add(torch.zeros(3), torch.zeros(3))
    gone = weakref.ref(add.__wrapped__)
    del add
    gc.collect()
    assert gone() is None


def test_threads_do_not_run_each_others_functions():
    results = {}

    def run(number):
        add = adder(float(number))
        results[number] = {add(torch.zeros(1), torch.zeros(1)).item() for _ in range(200)}

    threads = [Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: {number} for number in range(4)}
