"""Checkpoints in the layouts of the original LLaVA code and of TinyLLaVA Factory."""

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from builders import IMAGE, PICTURE, prompt
from noise import noise
from PIL import Image
from published import on_disk, published, words
from safetensors.torch import save_file
from torch import nn
from transformers import (
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    Qwen2Config,
    StableLmConfig,
)

import prumerge
from prumerge.errors import PrumergeError
from prumerge.loading import sources
from prumerge.loading.original import from_weights, is_published, read


@pytest.mark.parametrize("layout", ["original", "factory"])
@pytest.mark.parametrize("kind", [LlamaConfig, MistralConfig, PhiConfig, Qwen2Config, StableLmConfig])
def test_a_published_checkpoint_is_the_same_model(tmp_path, kind, layout):
    model, config, weights = published(kind, layout)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(weights, tmp_path / "model.safetensors")
    found = read(tmp_path)
    token = found.config.image_token_id
    assert token == IMAGE  # the id after the last word
    inputs = prompt([5, PICTURE, 6, 7], [8, PICTURE, PICTURE, 9])
    other = {**inputs, "input_ids": inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE, 3)}
    with torch.no_grad():
        ours, theirs = found(**inputs).logits, model(**other).logits
        shorter = found(**prumerge.reduce(found, inputs, "prumerge")).logits
        expected = model(**prumerge.reduce(model, other, "prumerge")).logits
    torch.testing.assert_close(ours[..., :IMAGE], theirs)
    torch.testing.assert_close(shorter[..., :IMAGE], expected)


class Named(nn.Module):
    """Modules under the names that published checkpoints use."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


class First(nn.Module):
    """MobileVLM's projector as published, with the names of torchvision's MobileNetV3 blocks."""

    def __init__(self, channels, width):
        super().__init__()
        mlp = nn.Sequential(nn.Identity(), nn.Linear(channels, width), nn.GELU(), nn.Linear(width, width))
        self.strides = (1, 2)
        blocks = [Named(block=self.block(width, stride)) for stride in self.strides]
        self.model = Named(mlp=mlp, mb_block=nn.Sequential(nn.Identity(), *blocks))

    @staticmethod
    def block(width, stride):
        return nn.Sequential(
            nn.Sequential(
                nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False), nn.LayerNorm(width)
            ),
            Named(fc1=nn.Conv2d(width, 8, 1), fc2=nn.Conv2d(8, width, 1)),
            nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.LayerNorm(width)),
        )

    def forward(self, patches):
        found = self.model.mlp(patches)
        side = int(len(found) ** 0.5)
        grid = found.view(side, side, -1).permute(2, 0, 1)[None]
        for (depthwise, gate, pointwise), stride in zip(
            [one.block for one in self.model.mb_block[1:]], self.strides, strict=True
        ):
            before = grid
            grid = nn.Hardswish()(depthwise[1](depthwise[0](grid).movedim(1, -1)).movedim(-1, 1))
            pooled = nn.AdaptiveAvgPool2d(1)(grid)
            grid = grid * nn.Hardsigmoid()(gate.fc2(nn.ReLU()(gate.fc1(pooled))))
            grid = pointwise[1](pointwise[0](grid).movedim(1, -1)).movedim(-1, 1)
            grid = grid + before if stride == 1 else grid
        return grid[0].flatten(1).T


class Second(nn.Module):
    """MobileVLM V2's."""

    def __init__(self, channels, width):
        super().__init__()
        self.mlp = Named(mlp=nn.Sequential(nn.Linear(channels, width), nn.GELU(), nn.Linear(width, width)))
        self.peg = Named(peg=nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, groups=width)))

    def forward(self, patches):
        found = self.mlp.mlp(patches)
        side = int(len(found) ** 0.5)
        grid = nn.AdaptiveAvgPool2d(side // 2)(found.view(side, side, -1).permute(2, 0, 1)[None])
        return (self.peg.peg(grid) + grid)[0].flatten(1).T


@pytest.mark.parametrize(("kind", "projector"), [("ldpnet", First), ("ldpnetv2", Second)])
def test_a_published_mobilevlm_projects_as_its_own_code_does(kind, projector):
    _, config, weights = published(LlamaConfig, "original")
    torch.manual_seed(1)
    own = projector(32, 32).eval()
    weights = {name: one for name, one in weights.items() if "mm_projector" not in name}
    weights |= {f"model.mm_projector.{name}": one for name, one in own.state_dict().items()}
    model = from_weights({**config, "mm_projector_type": kind}, weights)
    inputs = prompt([5, PICTURE, 6])
    patches = prumerge.select(base_llava(), inputs, "none")[0][0].features
    with torch.no_grad():
        found = model.model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output[0]
        torch.testing.assert_close(found, own(patches), atol=1e-5, rtol=1e-4)
    assert len(found) == len(patches) // 4


def base_llava():
    """The LLaVA whose weights `published` writes: the same tower."""
    return published(LlamaConfig, "original")[0]


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("kind", [PhiConfig, LlamaConfig], ids=["phi", "llama"])
def test_a_published_mixture_of_experts_is_read(kind, top_k):
    """DeepSpeed's names, experts in every second layer, MoE-LLaVA's names of tower and projector."""
    _, config, weights = published(kind, "original")
    weights.pop("lm_head.bias", None)  # MoE-LLaVA's Phi has none
    torch.manual_seed(1)
    for name in [name for name in weights if name.startswith("model.layers.0.mlp.")]:
        weight, last = weights.pop(name), name.removeprefix("model.layers.0.mlp.")
        for number in range(3):
            place = f"model.layers.0.mlp.deepspeed_moe.experts.deepspeed_experts.{number}.{last}"
            weights[place] = weight + 0.1 * torch.randn_like(weight)
    weights["model.layers.0.mlp.deepspeed_moe.gate.wg.weight"] = torch.randn(3, 32)
    moved = {
        "vision_tower.vision_tower": "image_tower.image_tower",
        "mm_projector.": "mm_projector.image_spatial_proj.",
    }
    for old, new in moved.items():
        weights = {name.replace(old, new): one for name, one in weights.items()}
    config["mm_image_tower"] = config.pop("mm_vision_tower")
    config["image_projector_type"] = config.pop("mm_projector_type")
    config["moe"] = {"top_k_experts": top_k}
    model = from_weights(config, weights)
    first, second = model.model.language_model.layers
    assert type(second.mlp) is not type(first.mlp)
    hidden = torch.randn(1, 7, 32)
    expected = []
    with torch.no_grad():
        for token in hidden[0]:
            likely = (weights["model.layers.0.mlp.deepspeed_moe.gate.wg.weight"] @ token).softmax(0)
            best = likely.argsort(descending=True)[:top_k].tolist()
            shares = likely[best] / (likely[best].sum() if top_k > 1 else 1)
            experts = [first.mlp.experts[number](token) for number in best]
            expected.append(sum(share * one for share, one in zip(shares, experts, strict=True)))
        torch.testing.assert_close(first.mlp(hidden)[0], torch.stack(expected))
        assert model(**prumerge.reduce(model, prompt([5, PICTURE, 6]), "prumerge")).logits.isfinite().all()


# folders as they come from the hub


def siglip():
    """TinyLLaVA: SigLIP, Phi, TinyLLaVA Factory's layout."""
    return published(PhiConfig, "factory", "siglip")


def mobile():
    _, config, weights = published(LlamaConfig, "original")
    torch.manual_seed(1)
    weights = {name: one for name, one in weights.items() if "mm_projector" not in name}
    weights |= {f"model.mm_projector.{name}": one for name, one in Second(32, 32).state_dict().items()}
    return None, {**config, "mm_projector_type": "ldpnetv2", "image_aspect_ratio": "pad"}, weights


@pytest.mark.parametrize("form", ["safetensors", "bin"])
@pytest.mark.parametrize(
    ("checkpoint", "places"),
    [(lambda: published(Qwen2Config, "original"), 16), (siglip, 16), (mobile, 4)],
    ids=["llava", "tinyllava", "mobilevlm"],
)
def test_a_folder_as_it_was_published_answers(tmp_path, run, checkpoint, places, form):
    _, config, weights = checkpoint()
    folder = on_disk(tmp_path / "checkpoint", config, weights, form)
    noise((70, 90)).save(tmp_path / "noise.png")
    options = ("w5 w6", "--model", folder, "--reducer", "topk:keep=3", "--max-new-tokens", "4")
    code, out, err = run("answer", tmp_path / "noise.png", *options, "--json", "--compare")
    assert code == 0, err
    untouched, reduced = json.loads(out)
    assert (untouched["visual_tokens"], reduced["visual_tokens"]) == (places, 3)
    assert set(untouched["answer"].split()) <= {f"w{token}" for token in range(IMAGE)}


def test_a_tower_that_is_only_named_is_looked_up(tmp_path):
    model, config, weights = published(PhiConfig, "original")
    model.model.vision_tower.save_pretrained(tmp_path / "tower")
    config = {name: one for name, one in config.items() if name != "vision_config"}
    weights = {name: one for name, one in weights.items() if "vision_tower" not in name}
    folder = on_disk(tmp_path / "checkpoint", config | {"mm_vision_tower": "../tower"}, weights)
    found, processor = prumerge.load(str(folder))
    assert found.config.vision_config.num_hidden_layers == 3
    for name, weight in model.model.vision_tower.state_dict().items():
        assert torch.equal(found.model.vision_tower.state_dict()[name], weight)
    assert processor.tokenizer.padding_side == "left"


def test_a_hub_id_is_fetched_only_if_it_is_published_so(tmp_path, monkeypatch):
    def snapshot_download(name, allow_patterns, **options):
        asked.append((name, options, allow_patterns[-1]))
        return str(folder)

    _, config, weights = published(PhiConfig, "original")
    folder, asked = on_disk(tmp_path / "checkpoint", config, weights, "bin"), []
    other = tmp_path / "other.json"
    other.write_text('{"model_type": "llava"}')
    told = {"some/llava": folder / "config.json", "some/other": other}
    monkeypatch.setattr(sources, "cached_file", lambda name, *_, **options: str(told[name]))
    monkeypatch.setattr(sources, "snapshot_download", snapshot_download)
    with pytest.raises(PrumergeError):
        prumerge.load("some/other")
    assert not asked
    assert prumerge.load("some/llava", revision="v2")[0].config.model_type == "llava_phi"
    assert [kind for *_, kind in asked] == ["*.safetensors", "pytorch_model*.bin"]
    assert {(name, options["revision"]) for name, options, _ in asked} == {("some/llava", "v2")}


def test_pictures_are_padded_to_a_square_where_training_did_so(tmp_path):
    _, config, weights = mobile()
    picture = Image.new("RGB", (56, 28), "white")
    processors = [
        prumerge.load(str(on_disk(tmp_path / ratio, config | {"image_aspect_ratio": ratio}, weights)))[1]
        for ratio in ("pad", "square")
    ]
    padded, cropped = (
        one(images=picture, text="<image>", return_tensors="pt")["pixel_values"] for one in processors
    )
    assert padded.shape == cropped.shape == (1, 3, 56, 56)
    assert torch.equal(padded[0, 0, 28], cropped[0, 0, 28])  # the picture's middle row is white in both
    assert padded[0, 0, 0].abs().max() < 0.02 < cropped[0, 0, 0].min()  # CLIP's mean colour above it


def test_an_answer_holds_no_placeholder():
    _, config, weights = published(PhiConfig, "original")
    weights["lm_head.bias"] -= 1e6  # every word is less likely than the row of zeros
    model = from_weights(config, weights)
    with torch.no_grad():
        ids = model.generate(**prompt([5, PICTURE, 6]), max_new_tokens=3, do_sample=False)
    assert IMAGE not in ids[0, -3:]


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path, run):
    _, config, weights = published(PhiConfig, "original")
    folder = on_disk(tmp_path / "checkpoint", config, weights)
    words(folder, IMAGE + 1)
    with pytest.raises(ValueError, match="the tokenizer has 100 words, the language model 99"):
        prumerge.load(str(folder))
    for file in folder.glob("token*"):
        file.unlink()
    with pytest.raises(ValueError, match="has no tokenizer that can be read"):
        prumerge.load(str(folder))
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    assert run("answer", tmp_path / "a.png", "what?", "--model", folder)[0] == 2


def test_what_is_not_read_is_refused(tmp_path):
    _, config, weights = published(PhiConfig, "original")
    assert is_published(config)
    assert not is_published({"model_type": "llava"})
    with pytest.raises(ValueError, match="is no checkpoint of the original LLaVA code"):
        (tmp_path / "config.json").write_text("{}")
        read(tmp_path)
    with pytest.raises(ValueError, match="a projector of type 'linear' is not read"):
        from_weights({**config, "mm_projector_type": "linear"}, weights)
    with pytest.raises(ValueError, match="the language model of 'LlavaMptForCausalLM' is not read"):
        from_weights({**config, "architectures": ["LlavaMptForCausalLM"]}, weights)
    without = {name: weight for name, weight in weights.items() if "vision_tower" not in name}
    with pytest.raises(ValueError, match="holds no vision tower"):
        from_weights(config, without)
    named = {name: value for name, value in config.items() if name != "vision_config"}
    with pytest.raises(ValueError, match="the tower 'some/tower' is only named"):
        from_weights(named, weights)


def test_weights_that_are_missing_are_named_and_unknown_ones_are_a_warning():
    _, config, weights = published(PhiConfig, "original")
    lost = {name: one for name, one in weights.items() if name != "model.mm_projector.0.bias"}
    with pytest.raises(PrumergeError, match=r"is not complete: model.multi_modal_projector.linear_1.bias"):
        from_weights(config, lost)
    other = {**weights, "model.mm_projector.0.bias": torch.zeros(5)}
    with pytest.raises(PrumergeError, match=r"linear_1.bias is \[5\], not \[32\]"):
        from_weights(config, other)
    with pytest.warns(UserWarning, match="holds more than its model has: left.over left out"):
        from_weights(config, {**weights, "left.over": torch.zeros(3)})


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("model.safetensors", b"", "are damaged or cut short"),
        ("model.safetensors", bytes(range(256)) * 20, "are damaged or cut short"),
        ("pytorch_model.bin", b"", "are damaged or cut short"),
        ("pytorch_model.bin", b"something", "cannot be read"),
        ("config.json", b"[1]", "holds no names and values"),
        ("config.json", b"prose", "config.json' cannot be read"),
    ],
)
def test_a_broken_file_is_named(tmp_path, file, text, sentence):
    _, config, weights = published(PhiConfig, "original")
    folder = on_disk(
        tmp_path / "checkpoint", config, weights, "bin" if file.endswith("bin") else "safetensors"
    )
    for stale in folder.glob("pytorch_model*.bin"):
        stale.unlink()
    (folder / file).write_bytes(text)
    for reader in (prumerge.load, read):
        with pytest.raises(PrumergeError, match=sentence) as refused:
            reader(folder)
        assert file in str(refused.value)


@pytest.mark.parametrize(
    "wrong", [{"vision_config": "word"}, {"vision_config": [1]}, {"hidden_size": "wide"}]
)
def test_a_configuration_that_describes_no_model_is_refused(wrong):
    _, config, weights = published(PhiConfig, "original")
    with pytest.raises(PrumergeError, match="describes no model that Transformers knows"):
        from_weights(config | wrong, weights)


def test_a_pickle_that_holds_no_weights_is_refused(tmp_path):
    _, config, weights = published(PhiConfig, "original")
    folder = on_disk(tmp_path / "checkpoint", config, weights, "bin")
    torch.save([1, 2], folder / "pytorch_model-00001-of-00001.bin")
    with pytest.raises(PrumergeError, match="holds no weights by their names"):
        prumerge.load(folder)
