"""A question about a picture, answered with a part of the visual tokens. Nothing is downloaded."""

import torch

import prumerge
from prumerge.tiny import samples

model, processor = prumerge.load("tiny")  # or "llava-hf/llava-1.5-7b-hf"
sample = samples()[0]
image, question = prumerge.open_image(sample.path), sample.questions[0].text
prompt = f"USER: <image>\n{question} ASSISTANT:"
inputs = processor(images=image, text=prompt, return_tensors="pt")

with torch.no_grad():
    short = prumerge.reduce(model, inputs, "prumerge_plus")
    answer = model.generate(**short, max_new_tokens=8)[0, short["input_ids"].shape[1] :]

print(f"{inputs['input_ids'].shape[1]} prompt tokens became {short['input_ids'].shape[1]}")
print(question, processor.decode(answer, skip_special_tokens=True))
