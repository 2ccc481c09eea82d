# %% [markdown]
# # Quick start
#
# A language model reads hundreds of visual tokens for a picture. Here a real, small LLaVA answers a
# question from all 576 of them, and then from a few. It comes with the package, so nothing is downloaded.

# %%
import torch

import prumerge
from prumerge.tiny import samples

model, processor = prumerge.load("tiny")  # or "llava-hf/llava-1.5-7b-hf"
image = prumerge.open_image(samples()[1].path)
image.resize((336, 336))

# %% [markdown]
# The processor turns picture and question into a prompt, as always.

# %%
question = "what does the sign say?"
inputs = processor(images=image, text=f"USER: <image>\n{question} ASSISTANT:", return_tensors="pt")
print(question)
print(inputs["input_ids"].shape[1], "tokens, most of them the picture's")

# %% [markdown]
# `prumerge.reduce` encodes the picture, keeps the tokens that matter, merges the rest into them, and
# returns a shorter prompt. The model is not changed in any way: the shorter prompt goes where the longer
# one would have gone.

# %%
with torch.no_grad():
    shorter = prumerge.reduce(model, inputs, "prumerge:keep=36")
    everything = model.generate(**inputs, max_new_tokens=8)
    few = model.generate(**shorter, max_new_tokens=8)


def said(output, prompt):
    return processor.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True).strip()


print(f"from {inputs['input_ids'].shape[1]} tokens: {said(everything, inputs)}")
print(f"from {shorter['input_ids'].shape[1]} tokens: {said(few, shorter)}")

# %% [markdown]
# What did it keep? `prumerge.select` gives the visual tokens and the decision, `prumerge.show` draws
# them: the picture, the places that stay, and which token each patch went into.

# %%
with torch.no_grad():
    [(tokens, reduction)] = prumerge.select(model, inputs, "prumerge:keep=36")
prumerge.show(image, tokens.grid, reduction)

# %% [markdown]
# Code that calls `generate` itself is reduced by `attach`, as long as a `with` lasts.

# %%
with prumerge.attach(model, "prumerge") as attached:
    output = model.generate(**inputs, max_new_tokens=8)
    print(attached.average_tokens, "visual tokens, which PruMerge chose by itself")

# %% [markdown]
# Next: [compare methods](compare.md), or [write your own](own_method.md).
