"""A method of your own is a frozen dataclass with one function on one image."""

from dataclasses import dataclass

import prumerge
from prumerge.tiny import samples


@dataclass(frozen=True, kw_only=True)
class Loudest(prumerge.Reducer):
    """The tokens with the longest feature vectors."""

    keep: int | float = 36

    def __call__(self, tokens: prumerge.VisualTokens) -> prumerge.Reduction:
        return prumerge.Reduction(tokens.features.norm(dim=-1).topk(self.count(len(tokens))).indices)


model, processor = prumerge.load("tiny")
sample = samples()[0]
image = prumerge.open_image(sample.path)
inputs = processor(
    images=image, text=f"USER: <image>\n{sample.questions[0].text} ASSISTANT:", return_tensors="pt"
)
with prumerge.attach(model, Loudest()) as attached:
    output = model.generate(**inputs, max_new_tokens=8)
print(processor.decode(output[0], skip_special_tokens=True), attached.tokens)
