# %% [markdown]
# # Fine-tune on few tokens
#
# A model that was trained on all visual tokens can learn to read few. `prumerge.reduce` cuts labels with
# the prompt, and gradients flow through the merging, so the loop is the usual one. A few steps, to see it
# work.

# %%
import torch
from peft import LoraConfig, get_peft_model

import prumerge
from prumerge.tiny import samples

torch.manual_seed(0)
model, processor = prumerge.load("tiny")
model = get_peft_model(model, LoraConfig(r=4, target_modules=r".*language_model.*(q_proj|v_proj)"))
model.print_trainable_parameters()

# %% [markdown]
# Pictures, questions and answers, as one batch. Only answers are learned: every other label is -100.

# %%
pairs = [(sample.path, question) for sample in samples() for question in sample.questions][:6]
texts = [f"USER: <image>\n{about.text} ASSISTANT: {about.answer}</s>" for _, about in pairs]
images = [prumerge.open_image(path) for path, _ in pairs]
batch = processor(images=images, text=texts, padding=True, return_tensors="pt")
labels = batch["input_ids"].clone()
for row, (_, about) in enumerate(pairs):
    answer = processor.tokenizer(f" {about.answer}</s>", add_special_tokens=False).input_ids
    labels[row, : -len(answer)] = -100
print(texts[0])

# %% [markdown]
# The prompt has 576 visual tokens for each picture; what is trained on has 4, and PruMerge's one for all
# the rest.

# %%
reduced = prumerge.reduce(model, {**batch, "labels": labels}, "prumerge:keep=4")
print(batch["input_ids"].shape, "->", reduced["input_ids"].shape)

# %%
optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=2e-3)
losses = []
for _step in range(6):
    loss = model(**prumerge.reduce(model, {**batch, "labels": labels}, "prumerge:keep=4")).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
for number, loss in enumerate(losses):
    print(f"step {number}: {loss:.3f} {'#' * round(20 * loss / max(losses))}")

# %% [markdown]
# `prumerge train` does this for folders of pictures and rows in any of the usual forms, at another budget
# each step, resumable, on several GPUs, and without labels as well: [Training](../training.md).
