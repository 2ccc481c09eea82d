"""Stages B and C: projector and language model learn to answer, on cached features of the frozen tower.

All questions about one picture share its visual tokens: they are packed into one sequence whose attention
mask lets a question see the picture and itself only. It learns on evenly strewn tokens first: with few of
them most questions have no answer in what is seen, and little is learnt. Then subsets are random in size and
place, from strewn to gathered, or made of tokens that are alike, and in half of the pictures tokens are
merged: with similar ones, with their neighbours, or with any. So the few, clustered, uniform and merged
tokens that methods hand over are known to the model, but every token is as likely to be kept as any other,
whatever it shows.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from prumerge.tiny import clips
from prumerge.tiny.learn_vision import cut
from prumerge.tiny.questions import FAMILIES, Question, questions
from prumerge.tiny.scenes import GRID, Scene, scene

PATCHES = GRID * GRID
ALL_FAMILIES = [*FAMILIES, *clips.FAMILIES]
FEWEST, MOST = 16, 224  # visual tokens in a subset
OTHERS, ABSORBED = 128, 8  # tokens that may be absorbed, and how many of them one token absorbs
WHOLE = 0.5  # how often all tokens are shown in the last stage: with fewer of them nothing can be counted
ALIKE = 0.75  # how many subsets are of tokens that are alike, where features are at hand
CLIPS_EVERY = 8  # one step in so many is about clips
PREFIX = "USER:"
IGNORE = -100


def merged_at_random(
    features: Float[Tensor, "batch all width"],
    places: Int[Tensor, "batch all"],
    kept: int,
    seed: Sequence[int],
) -> Float[Tensor, "batch kept width"]:
    """The first `kept` tokens of each picture; in half of the pictures some of them absorb others.

    A model this small takes any token it never saw for something else. With this, merged tokens are not
    foreign to it, whichever method merged them; which tokens are merged does not depend on the picture.
    """
    random = np.random.default_rng(seed)
    found = [merged(*picture, kept, random) for picture in zip(features, places, strict=True)]
    return torch.stack(found)


def merged(
    features: Float[Tensor, "all width"],
    places: Int[Tensor, "all"],
    kept: int,
    random: np.random.Generator,
) -> Float[Tensor, "kept width"]:
    """One picture's tokens after one kind of merging."""
    own, others = features[:kept], features[kept:]
    kind = str(random.choice(["nothing", "nothing", "nothing", "similar", "near", "mixed"]))
    if kind == "nothing" or len(others) < ABSORBED:
        return own
    if kind == "similar":
        which = (F.normalize(own, dim=-1) @ F.normalize(others, dim=-1).T).topk(ABSORBED).indices
    elif kind == "near":
        away = (places[:kept, None] // GRID - places[None, kept:] // GRID).abs()  # frames are far apart
        away = away + (places[:kept, None] % GRID - places[None, kept:] % GRID).abs()
        which = away.topk(ABSORBED, largest=False).indices
    else:
        which = torch.from_numpy(random.integers(0, len(others), (kept, ABSORBED))).to(places)
    share = torch.from_numpy(random.dirichlet(np.ones(ABSORBED), kept)).to(features)
    absorbed = (others[which] * share[..., None]).sum(1)
    if kind == "mixed":  # some tokens stand for everything that was left out
        absorbed = torch.where(
            torch.from_numpy(random.random((kept, 1)) < 0.5).to(own.device), absorbed, others.mean(0)
        )
    scale, summed, chosen = torch.from_numpy(random.random((3, kept, 1))).to(features)
    mixture = torch.where(summed < 0.5, own + scale * absorbed, own + 0.9 * scale * (absorbed - own))
    if kind == "mixed":
        mixture = torch.where(summed < 0.5, mixture, scale * absorbed)
    most = 0.15 if kind == "mixed" else 1.0  # tokens without likeness to their own place are few
    return torch.where(chosen < most * random.random(), mixture, own)


@cache
def contents(seed: int) -> Scene:
    """A scene without its pixels, which questions do not need."""
    return replace(scene(seed), image=Image.new("RGB", (1, 1)))


@cache
def clip_contents(seed: int) -> clips.Clip:
    drawn = clips.clip(seed)
    frames = tuple(replace(frame, image=Image.new("RGB", (1, 1))) for frame in drawn.frames)
    return replace(drawn, frames=frames)


def size_at_random(most: int, random: np.random.Generator) -> int:
    """How many visual tokens of a picture are kept: twice as few are as frequent."""
    return int(np.exp(random.uniform(np.log(min(FEWEST, most)), np.log(min(MOST, most) + 0.99))))


def places_at_random(count: int, random: np.random.Generator) -> Int[np.ndarray, "count"]:
    """Places in the grid, from evenly strewn to gathered in a few spots, whatever the picture shows there."""
    spots = np.kron(random.normal(size=(GRID // 4, GRID // 4)), np.ones((4, 4)))
    spots = np.roll(spots, random.integers(0, 4, 2), axis=(0, 1))
    strewn = random.normal(size=(GRID, GRID)) * random.choice([0.2, 1.0, 100.0])
    return np.sort((spots + strewn).ravel().argsort()[:count])


def alike_at_random(
    features: Float[np.ndarray, "patches width"], count: int, random: np.random.Generator
) -> Int[np.ndarray, "count"]:
    """Places of tokens that are alike: those nearest to any one of them, or neighbours in an order of the
    features, along their first principal component or any direction.

    Methods that score tokens leave prompts of nothing but objects, or nothing but edges. So does this, but
    the token in the middle is any, and the window falls anywhere on the circle of the order: no place is
    likelier to be kept for showing an object.
    """
    kind = random.integers(3)
    if kind == 0:
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        return np.sort((-unit @ unit[random.integers(len(unit))]).argsort()[:count])
    around, direction = features - features.mean(0), random.normal(size=features.shape[1])
    for _ in range(4 if kind == 1 else 0):  # power iteration
        direction = around.T @ (around @ direction)
        direction /= np.linalg.norm(direction)
    order = (around @ direction).argsort()
    return np.sort(np.roll(order, random.integers(len(order)))[:count])


class PicturesToCache(Dataset):
    """The scenes and then the frames of the clips that `QuestionBatches` asks about, so many at a time."""

    def __init__(self, first: int, scenes: int, clips: int, batch: int):
        self.first, self.scenes, self.clips, self.batch = first, scenes, clips, batch

    def __len__(self) -> int:
        return -(-(self.scenes + clips.FRAMES * self.clips) // self.batch)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        last = self.scenes + clips.FRAMES * self.clips
        rows = range(place * self.batch, min((place + 1) * self.batch, last))
        pictures = [cut(self.picture(row)) for row in rows]
        if not pictures:
            raise IndexError(place)
        every = torch.arange(PATCHES).expand(len(pictures), -1)
        return {"patches": torch.from_numpy(np.stack(pictures)), "index": every}

    def picture(self, row: int) -> Scene:
        if row < self.scenes:
            return scene(self.first + row)
        number, frame = divmod(row - self.scenes, clips.FRAMES)
        return whole_clip(self.first + number).frames[frame]


@lru_cache(2)
def whole_clip(seed: int) -> clips.Clip:
    return clips.clip(seed)


class QuestionBatches(Dataset):
    """Batch number i: some of the cached pictures, with fresh questions and a fresh subset of tokens.

    Cached are the features of `scenes` scenes from seed `first` on, then those of the frames of `clips` clips
    from the same seed on. `alike` batches in a row (one for each process) are of the same kind and size.
    `few` takes subsets of all sizes up to `visual` or `MOST` and of all shapes; mostly all tokens if
    `visual` is that many.
    """

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
        clips: int = 0,
        alike: int = 1,
        few: bool = False,
        features: np.ndarray | None = None,
    ):
        self.tokenizer, self.first, self.scenes, self.clips = tokenizer, first, scenes, clips
        self.batch, self.visual, self.asked, self.count, self.seed = batch, visual, asked, count, seed
        self.often, self.alike, self.few, self.features = often, alike, few, features

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        if place >= self.count:
            raise IndexError(place)
        step = place // self.alike
        random, common = (
            np.random.default_rng((self.seed, place)),
            np.random.default_rng((self.seed, step, 1)),
        )
        of_clips = self.clips > 0 and step % CLIPS_EVERY == CLIPS_EVERY - 1
        pictures = self.clips if of_clips else self.scenes
        rows = random.choice(pictures, self.batch, replace=self.batch > pictures)
        everything = self.few and self.visual == PATCHES and common.random() < WHOLE
        visual = size_at_random(self.visual, common) if self.few else None
        if everything:
            visual = 2 * PATCHES if of_clips else PATCHES
        return self.pack(rows, place, random, visual, of_clips)

    def pack(
        self,
        rows: Int[np.ndarray, "batch"],
        salt: int,
        random: np.random.Generator,
        visual: int | None = None,
        of_clips: bool = False,
    ) -> dict[str, Tensor]:
        """Questions about these scenes or clips, `visual` tokens of each (of a clip, of all its frames)."""
        frames = clips.FRAMES if of_clips else 1
        each = (visual or self.visual) // frames
        visual, patches = each * frames, frames * PATCHES
        prefix = self.tokenizer(PREFIX).input_ids
        index, positions, sequences = [], [], []
        for row in rows:
            first = self.scenes + frames * int(row) if of_clips else int(row)
            chosen = np.concatenate(
                [n * PATCHES + self.places(first + n, each, random) for n in range(frames)]
            )
            left = np.delete(np.arange(patches), chosen)
            others = random.choice(left, min(OTHERS, len(left)), replace=False)
            spread = random.random() < 0.5  # positions as in the whole picture, or close together
            start = len(prefix) + (patches if spread else visual)
            places = np.arange(len(prefix)), len(prefix) + (chosen if spread else np.arange(visual))
            index.append(np.concatenate([chosen, others]))
            positions.append(np.concatenate(places))
            sequences.append(self.texts(self.ask(int(row), salt, of_clips), start))
        longest = max(len(sequence) for sequence in sequences)
        padded = np.stack([np.pad(s, ((0, longest - len(s)), (0, 0)), constant_values=-1) for s in sequences])
        text, at, blocks, labels, families = torch.from_numpy(padded).unbind(-1)
        shared, taken = torch.from_numpy(np.stack(positions)), torch.from_numpy(np.stack(index))
        pictures = torch.from_numpy(self.scenes + frames * rows if of_clips else np.asarray(rows))
        return {
            "rows": pictures[:, None] + taken // PATCHES,  # of each token, in the cached features
            "index": taken % PATCHES,
            "places": taken,
            "prefix": torch.tensor(prefix).expand(len(rows), -1),
            "text": text.clamp(min=0),
            "positions": torch.cat([shared, at.clamp(min=0)], 1),
            "blocks": torch.cat([torch.zeros_like(shared), blocks], 1),
            "labels": torch.where(labels < 0, IGNORE, labels),
            "families": families,
        }

    def places(self, row: int, count: int, random: np.random.Generator) -> Int[np.ndarray, "count"]:
        if self.few and self.features is not None and random.random() < ALIKE:
            return alike_at_random(self.features[row].astype(np.float32), count, random)
        if self.few:
            return places_at_random(count, random)
        return np.sort(random.choice(PATCHES, count, replace=False))

    def ask(self, row: int, salt: int, of_clips: bool) -> list[Question]:
        if of_clips:
            return clips.clip_questions(clip_contents(self.first + row), salt, self.asked // 2)
        return questions(contents(self.first + row), salt, self.asked, often=self.often)

    def texts(self, asked: list[Question], start: int) -> Int[np.ndarray, "tokens 5"]:
        """Questions one after the other: token, position, number of the question, label, family."""
        found = []
        for number, question in enumerate(asked, 1):
            prompt = self.ids(f"{question.text} ASSISTANT:")
            tokens = [*prompt, *self.ids(question.answer), self.tokenizer.eos_token_id]
            family = ALL_FAMILIES.index(question.family)
            for place, token in enumerate(tokens):  # a place's label is the token after it
                answering = len(prompt) - 1 <= place < len(tokens) - 1
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
                family = ALL_FAMILIES[int(batch["families"][row][here][0])]
                found.append((family, not bool(wrong[row][here].any())))
    return found
