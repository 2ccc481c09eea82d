"""Training with few visual tokens: rows of pictures and answers, another budget each step, an adapter.

`train(model, processor, rows, "prumerge", output="run", budgets="16-144")` is what `prumerge train` runs.
"""

from prumerge.train.recipe import Recipe
from prumerge.train.rows import Row, Rows
from prumerge.train.run import Outcome, Run, train
from prumerge.train.trainer import ReducedTrainer

__all__ = ["Outcome", "Recipe", "ReducedTrainer", "Row", "Rows", "Run", "train"]
