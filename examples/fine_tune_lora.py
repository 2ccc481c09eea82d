"""Fine-tune with LoRA on reduced prompts: labels are cut by the same mask, the loss is the usual one."""

import torch
from peft import LoraConfig, get_peft_model

import prumerge
from prumerge.tiny import samples

model, processor = prumerge.load("tiny")
model = get_peft_model(model, LoraConfig(r=4, target_modules=r".*language_model.*(q_proj|v_proj)"))
optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3)

pairs = [(sample.path, question) for sample in samples() for question in sample.questions][:8]
images = [prumerge.open_image(path) for path, _ in pairs]
texts = [f"USER: <image>\n{asked.text} ASSISTANT: {asked.answer}</s>" for _, asked in pairs]
batch = processor(images=images, text=texts, padding=True, return_tensors="pt")
answer_starts = [
    len(processor.tokenizer(f" {asked.answer}</s>", add_special_tokens=False).input_ids) for _, asked in pairs
]
labels = batch["input_ids"].clone()
for row, length in enumerate(answer_starts):
    labels[row, :-length] = -100  # learn the answer only; rows are padded on the left

model.train()
for step in range(3):
    loss = model(**prumerge.reduce(model, {**batch, "labels": labels}, "prumerge")).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step}: loss {loss.item():.3f}")
