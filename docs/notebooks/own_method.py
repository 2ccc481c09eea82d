# %% [markdown]
# # Write your own method
#
# A method sees the visual tokens of one picture, `features [N, C]` with keys and scores, and returns what
# it keeps: the places of M tokens, and perhaps a matrix that says what is merged into each. Batches,
# prompts, padding and labels are not its business.

# %%
from dataclasses import dataclass

import torch

import prumerge
from prumerge.tiny import samples


@dataclass(frozen=True, kw_only=True)
class Loudest(prumerge.Reducer):
    """The tokens with the longest feature vectors."""

    keep: int | float = 36

    def __call__(self, tokens: prumerge.VisualTokens) -> prumerge.Reduction:
        return prumerge.Reduction(tokens.features.norm(dim=-1).topk(self.count(len(tokens))).indices)


# %% [markdown]
# That is all: it works wherever a name would.

# %%
model, processor = prumerge.load("tiny")
image = prumerge.open_image(samples()[1].path)
text = "USER: <image>\nwhat does the sign say? ASSISTANT:"
inputs = processor(images=image, text=text, return_tensors="pt")
with prumerge.attach(model, Loudest()):
    output = model.generate(**inputs, max_new_tokens=8)
print(processor.decode(output[0], skip_special_tokens=True))

# %%
with torch.no_grad():
    [(tokens, reduction)] = prumerge.select(model, inputs, Loudest())
prumerge.show(image, tokens.grid, reduction)

# %% [markdown]
# Now merge instead of dropping: every other token goes into the one whose key is most like its own, and
# each that stays becomes the mean of its group. The matrix `W [M, N]` has a row for each token that
# stays.


# %%
@dataclass(frozen=True, kw_only=True)
class LoudestMeans(Loudest):
    """The same, and all others merged into them."""

    def __call__(self, tokens: prumerge.VisualTokens) -> prumerge.Reduction:
        index = super().__call__(tokens).index
        keys = torch.nn.functional.normalize(tokens.keys, dim=-1)
        nearest = (keys @ keys[index].T).argmax(dim=1)  # [N], which of the M each goes into
        groups = torch.nn.functional.one_hot(nearest, len(index)).T.float()
        return prumerge.Reduction(index, groups / groups.sum(dim=1, keepdim=True).clamp(min=1))


with torch.no_grad():
    [(tokens, reduction)] = prumerge.select(model, inputs, LoudestMeans())
prumerge.show(image, tokens.grid, reduction)

# %% [markdown]
# A file in `prumerge/reducers`, or an entry point of a package of your own, makes it a name for every
# command: [Contributing](../contributing.md) says how.
