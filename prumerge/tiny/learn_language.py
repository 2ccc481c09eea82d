"""Stages B and C: projector and language model learn to answer, on cached features of the frozen tower.

All questions about one picture share its visual tokens: they are packed into one sequence whose attention
mask lets a question see the picture and itself only. Subsets of the visual tokens are random in size and
place, from strewn to gathered, and some tokens are merged at random: few, clustered and merged tokens are
known to the model, but none is ever chosen by what it shows.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import Dataset
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from prumerge.tiny.questions import FAMILIES, questions
from prumerge.tiny.scenes import GRID, scene

FEWEST = 32  # visual tokens in a subset
MERGED, OTHERS = 0.15, 8  # share of the tokens that are merged in half of the pictures, and with how many
PREFIX = "USER:"
IGNORE = -100


def merged_at_random(
    features: Float[Tensor, "batch tokens width"], seed: Sequence[int]
) -> Float[Tensor, "batch tokens width"]:
    """In half of the pictures some tokens absorb a few random others, or all, or become a mixture of them.

    A model this small takes any token it never saw for something else. With this, merged tokens are not
    foreign to it, whichever method merged them; which tokens are merged does not depend on the picture.
    """
    random = np.random.default_rng(seed)
    batch, tokens, _ = features.shape
    chosen = (random.random((batch, tokens)) < MERGED) & (random.random((batch, 1)) < 0.5)
    other = torch.from_numpy(random.integers(0, tokens, (batch, tokens, OTHERS)))
    share = torch.from_numpy(random.dirichlet(np.ones(OTHERS), (batch, tokens))).to(features)
    few = (features[torch.arange(batch)[:, None, None], other] * share[..., None]).sum(2)
    own, all_of_them, scale = torch.from_numpy(random.random((3, batch, tokens, 1))).to(features)
    taken = torch.where(all_of_them < 0.5, few, features.mean(1, keepdim=True)) * scale
    mixed = (own < 0.5) * features + taken
    return torch.where(torch.from_numpy(chosen).to(features.device)[..., None], mixed, features)


def places_at_random(count: int, random: np.random.Generator) -> Int[np.ndarray, "count"]:
    """Places in the grid, from evenly strewn to gathered in a few spots, whatever the picture shows there."""
    spots = np.kron(random.normal(size=(GRID // 4, GRID // 4)), np.ones((4, 4)))
    spots = np.roll(spots, random.integers(0, 4, 2), axis=(0, 1))
    strewn = random.normal(size=(GRID, GRID)) * random.choice([0.2, 1.0, 100.0])
    return np.sort((spots + strewn).ravel().argsort()[:count])


class QuestionBatches(Dataset):
    """Batch number i: some of the cached pictures, with fresh questions and a fresh subset of tokens."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        first: int,
        scenes: int,
        batch: int,
        visual: int,
        asked: int,
        count: int,
        seed: int,
        often: Sequence[float] = (),
    ):
        self.tokenizer, self.first, self.scenes = tokenizer, first, scenes
        self.batch, self.visual, self.asked, self.count, self.seed = batch, visual, asked, count, seed
        self.often = often

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        if place >= self.count:
            raise IndexError(place)
        random = np.random.default_rng((self.seed, place))
        rows = random.choice(self.scenes, self.batch, replace=self.batch > self.scenes)
        fewest = min(FEWEST, self.visual)
        visual = self.visual if self.visual == GRID * GRID else int(random.integers(fewest, self.visual + 1))
        return self.pack(rows, place, random, visual)

    def pack(
        self,
        rows: Int[np.ndarray, "batch"],
        salt: int,
        random: np.random.Generator,
        visual: int | None = None,
    ) -> dict[str, Tensor]:
        visual = visual or self.visual
        patches = GRID * GRID
        prefix = self.tokenizer(PREFIX).input_ids
        index, positions, sequences = [], [], []
        for row in rows:
            chosen = places_at_random(visual, random)
            spread = random.random() < 0.5  # positions as in the whole picture, or close together
            start = len(prefix) + (patches if spread else visual)
            places = np.arange(len(prefix)), len(prefix) + (chosen if spread else np.arange(visual))
            index.append(chosen)
            positions.append(np.concatenate(places))
            sequences.append(self.texts(self.first + int(row), salt, start))
        longest = max(len(sequence) for sequence in sequences)
        padded = np.stack([np.pad(s, ((0, longest - len(s)), (0, 0)), constant_values=-1) for s in sequences])
        text, at, blocks, labels, families = torch.from_numpy(padded).unbind(-1)
        shared = torch.from_numpy(np.stack(positions))
        return {
            "rows": torch.from_numpy(np.asarray(rows)),
            "index": torch.from_numpy(np.stack(index)),
            "prefix": torch.tensor(prefix).expand(len(rows), -1),
            "text": text.clamp(min=0),
            "positions": torch.cat([shared, at.clamp(min=0)], 1),
            "blocks": torch.cat([torch.zeros_like(shared), blocks], 1),
            "labels": torch.where(labels < 0, IGNORE, labels),
            "families": families,
        }

    def texts(self, seed: int, salt: int, start: int) -> Int[np.ndarray, "tokens 5"]:
        """Questions one after the other: token, position, number of the question, label, family."""
        found = []
        for number, question in enumerate(questions(scene(seed), salt, self.asked, often=self.often), 1):
            asked = self.ids(f"{question.text} ASSISTANT:")
            tokens = [*asked, *self.ids(question.answer), self.tokenizer.eos_token_id]
            family = list(FAMILIES).index(question.family)
            for place, token in enumerate(tokens):  # a place's label is the token after it
                answering = len(asked) - 1 <= place < len(tokens) - 1
                found.append((token, start + place, number, tokens[place + 1] if answering else -1, family))
        return np.array(found or [(0, start, 1, -1, 0)], np.int64)

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids


def answer_logits(
    model: LlavaForConditionalGeneration,
    features: Float[Tensor, "batch visual width"],
    batch: dict[str, Tensor],
) -> Float[Tensor, "batch text vocabulary"]:
    """Logits at the places of the text."""
    language = model.model.language_model
    visual = model.model.multi_modal_projector(features)
    prefix, text = language.embed_tokens(batch["prefix"]), language.embed_tokens(batch["text"])
    states = language(
        inputs_embeds=torch.cat([prefix, visual.to(prefix.dtype), text], 1),
        attention_mask=mask(batch["blocks"])[:, None],
        position_ids=batch["positions"],
        use_cache=False,
    ).last_hidden_state
    return model.lm_head(states[:, -text.shape[1] :])


def mask(blocks: Int[Tensor, "batch tokens"]) -> Bool[Tensor, "batch tokens tokens"]:
    """Who sees whom: block 0 (the picture) is seen by all, a question by itself, the future by nobody."""
    allowed = (blocks[:, None, :] == 0) | (blocks[:, None, :] == blocks[:, :, None])
    return allowed.tril()


def language_loss(
    model: LlavaForConditionalGeneration, features: Tensor, batch: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the answers, and the share of answer tokens that are right."""
    answering = batch["labels"] != IGNORE
    logits, labels = answer_logits(model, features, batch)[answering].float(), batch["labels"][answering]
    loss = F.cross_entropy(logits, labels)
    return loss, {"loss": loss, "tokens_right": (logits.argmax(-1) == labels).float().mean()}


def exact_match(
    model: LlavaForConditionalGeneration, features: Tensor, batch: dict[str, Tensor]
) -> list[tuple[str, bool]]:
    """Family and correctness of each question, as greedy decoding would answer it."""
    with torch.no_grad():
        guess = answer_logits(model, features, batch).argmax(-1)
    wrong = (guess != batch["labels"]) & (batch["labels"] != IGNORE)
    blocks = batch["blocks"][:, -guess.shape[1] :]
    found = []
    for row in range(len(guess)):
        for number in range(1, int(blocks[row].max()) + 1):
            here = blocks[row] == number
            if (batch["labels"][row][here] != IGNORE).any():
                family = list(FAMILIES)[int(batch["families"][row][here][0])]
                found.append((family, not bool(wrong[row][here].any())))
    return found
