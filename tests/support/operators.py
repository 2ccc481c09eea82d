"""Counting what the device is asked to do."""

from torch.utils._python_dispatch import TorchDispatchMode


class Operators(TorchDispatchMode):
    """The names of the aten operators that run while a `with` lasts; inside `torch.vmap` one for all
    pictures."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __len__(self):
        return len(self.names)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def operators(call, *args):
    """How many operators a call takes."""
    with Operators() as counted:
        call(*args)
    return len(counted)
