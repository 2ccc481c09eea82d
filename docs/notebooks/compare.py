# %% [markdown]
# # Compare methods
#
# At the same number of tokens methods keep very different things. `prumerge.names()` lists all there are.

# %%
import torch

import prumerge
from prumerge.generate.answer import answer
from prumerge.tiny import held_out, samples

print(*prumerge.names())

# %%
model, processor = prumerge.load("tiny")
image, question = prumerge.open_image(samples()[1].path), "what does the sign say?"
inputs = processor(images=image, text=f"USER: <image>\n{question} ASSISTANT:", return_tensors="pt")
specs = ("prumerge:keep=36", "spatial:keep=36", "sequential:keep=36")


def drawn(spec):
    with torch.no_grad():
        [(tokens, reduction)] = prumerge.select(model, inputs, spec)
    return prumerge.show(image, tokens.grid, reduction)


# %% [markdown]
# PruMerge keeps what the class token attends to.

# %%
drawn(specs[0])

# %% [markdown]
# `spatial` keeps an even grid, whatever the picture shows.

# %%
drawn(specs[1])

# %% [markdown]
# `sequential` keeps the first tokens, which are the top rows: a baseline that has to lose.

# %%
drawn(specs[2])

# %% [markdown]
# Does it matter? Six questions about pictures that the model has never seen. `answer` also says how long
# each stage took; without a method it asks the untouched model.

# %%
right = dict.fromkeys([None, *specs], 0)
asked = list(held_out(6))
for picture, about in asked:
    for spec in right:
        found = answer(model, processor, picture, about.text, spec, max_new_tokens=4)
        right[spec] += found.answer == about.answer
for spec, count in right.items():
    print(f"{spec or 'untouched':20} {'#' * count:12} {count} of {len(asked)} right")

# %% [markdown]
# Six questions are an illustration, no measurement. `prumerge evaluate` asks hundreds, with intervals,
# also about [your own pictures](../evaluating.md); which method to take is on [a page of its
# own](../choosing.md).
