"""An attached method: whoever calls `generate` and `forward` notices nothing but the time that is saved."""

import copy
import inspect
import threading

import peft
import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from builders import IMAGE, PAD, PICTURE, answer, llava, pictures, processor, prompt
from PIL import Image
from torch._dynamo.utils import counters
from transformers import (
    CompileConfig,
    DynamicCache,
    GenerationConfig,
    LlavaForConditionalGeneration,
    TextIteratorStreamer,
    Trainer,
    TrainingArguments,
    pipeline,
)

import prumerge

ROWS = [[5, PICTURE, 6, 7], [5, PICTURE, 6, PICTURE, 9]]
SPEC = "prumerge_plus"


@pytest.fixture
def inputs():
    return prompt(*ROWS)


@pytest.fixture
def attached(model):
    """The model with a method attached."""
    prumerge.attach(model, SPEC)
    return model


def reduced(model, inputs, spec=SPEC):
    with torch.no_grad():
        return prumerge.reduce(model, inputs, spec)


def long(*ids):
    return torch.tensor(ids)


# generate


def test_generate_returns_the_callers_prompt_and_the_answer(model, inputs):
    expected = answer(model, reduced(model, inputs))
    with prumerge.attach(model, SPEC):
        sequences = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert torch.equal(sequences, torch.cat([inputs["input_ids"], expected], dim=1))
    assert not torch.equal(expected, answer(model, inputs))


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": True},
        {"do_sample": True, "num_return_sequences": 3},
        {"use_cache": False},
        {"cache_implementation": "static", "disable_compile": True},
        {"repetition_penalty": 1.5},
    ],
    ids=str,
)
def test_ways_to_generate(model, inputs, options):
    options = {"do_sample": False, "max_new_tokens": 4, **options}
    torch.manual_seed(1)
    expected = answer(model, reduced(model, inputs), **options)
    torch.manual_seed(1)
    with prumerge.attach(model, SPEC):
        sequences = model.generate(**inputs, **options)
    prompts = inputs["input_ids"].repeat_interleave(options.get("num_return_sequences", 1), dim=0)
    assert torch.equal(sequences, torch.cat([prompts, expected], dim=1))


@pytest.mark.usefixtures("unchecked")  # what checks annotations is not compiled
def test_steps_with_a_static_cache_are_compiled_in_one_piece(model, inputs):
    """As Transformers does on a GPU: a method that is attached breaks no graph."""
    whole = CompileConfig(backend="eager", fullgraph=True, dynamic=False)
    whole._compile_all_devices = True  # a CPU is left out otherwise
    options = {"do_sample": False, "max_new_tokens": 4}
    counters.clear()
    with prumerge.attach(model, SPEC):
        plain = model.generate(**inputs, **options)
        compiled = model.generate(**inputs, **options, cache_implementation="static", compile_config=whole)
    assert torch.equal(compiled, plain)
    assert counters["stats"]["unique_graphs"] == 1


def test_the_prompt_may_be_given_by_position_or_as_inputs(attached, inputs):
    ids, rest = inputs["input_ids"], {name: value for name, value in inputs.items() if name != "input_ids"}
    options = {**rest, "max_new_tokens": 3, "do_sample": False}
    expected = attached.generate(input_ids=ids, **options)
    assert torch.equal(attached.generate(ids, **options), expected)
    assert torch.equal(attached.generate(inputs=ids, **options), expected)
    config = GenerationConfig(max_new_tokens=3, do_sample=False)
    assert torch.equal(attached.generate(ids, config, **rest), expected)


@pytest.mark.parametrize("where", ["argument", "config", "model"])
def test_max_length_counts_the_callers_prompt(model, inputs, where):
    length = inputs["input_ids"].shape[1] + 4
    with prumerge.attach(model, SPEC):
        if where == "argument":
            sequences = model.generate(**inputs, max_length=length)
        elif where == "config":
            config = GenerationConfig(max_length=length)
            sequences = model.generate(**inputs, generation_config=config)
            assert config.max_length == length
        else:
            model.generation_config.max_length = length
            sequences = model.generate(**inputs)
    assert sequences.shape[1] == length


def test_max_new_tokens_comes_before_a_default_max_length(attached, inputs):
    attached.generation_config.max_length = 1000
    assert attached.generate(**inputs, max_new_tokens=3).shape[1] == inputs["input_ids"].shape[1] + 3


@pytest.mark.parametrize("where", ["argument", "config"])
def test_min_length_counts_the_callers_prompt(attached, where):
    inputs = prompt(ROWS[0])
    length = inputs["input_ids"].shape[1]
    end = int(answer(attached, inputs)[0, 0])  # would end the answer at once
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": end, "pad_token_id": PAD}
    assert attached.generate(**inputs, **options).shape[1] == length + 1
    options["min_length"] = length + 3
    options = options if where == "argument" else {"generation_config": GenerationConfig(**options)}
    sequences = attached.generate(**inputs, **options)
    assert end not in sequences[0, length : length + 3]
    assert sequences.shape[1] > length + 3


def test_a_dictionary_holds_the_callers_prompt_and_the_short_cache(model, inputs):
    short = reduced(model, inputs)["input_ids"].shape[1]
    with prumerge.attach(model, SPEC):
        plain = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        output = model.generate(
            **inputs, max_new_tokens=4, do_sample=False, return_dict_in_generate=True, output_scores=True
        )
    assert torch.equal(output.sequences, plain)
    assert len(output.scores) == 4
    assert output.past_key_values.get_seq_length() == short + 3


def test_an_answer_streams_from_another_thread(attached):
    inputs, words = prompt(ROWS[0]), processor().tokenizer
    streamer = TextIteratorStreamer(words, skip_prompt=True, timeout=60)
    options = {**inputs, "streamer": streamer, "max_new_tokens": 5, "do_sample": False}
    thread = threading.Thread(target=attached.generate, kwargs=options)
    thread.start()
    streamed = "".join(streamer)
    thread.join()
    assert streamed == words.decode(answer(attached, inputs, tokens=5)[0])


def test_pictures_are_encoded_without_recording_gradients(attached, inputs):
    recording = []
    attached.model.multi_modal_projector.register_forward_hook(
        lambda *_: recording.append(torch.is_grad_enabled())
    )
    attached.generate(**inputs, max_new_tokens=1)
    assert recording == [False]


def test_text_alone_is_answered_as_before(model):
    inputs = prompt([5, 6, 7], [8, 9])
    del inputs["pixel_values"]
    expected = answer(model, inputs)
    with prumerge.attach(model, SPEC):
        assert torch.equal(answer(model, inputs), expected)


def test_a_prompt_that_was_reduced_by_hand_is_not_reduced_again(model, inputs):
    shorter = reduced(model, inputs, "topk:keep=2")
    expected = answer(model, reduced(model, inputs, "topk:keep=2"))
    with prumerge.attach(model, SPEC):
        assert torch.equal(answer(model, shorter), expected)


def test_the_counts_of_the_latest_call_can_be_read(model, inputs):
    kept = [len(reduction) for _, reduction in prumerge.select(model, inputs, SPEC)]
    with prumerge.attach(model, SPEC) as attachment:
        assert attachment.tokens == []
        model.generate(**inputs, max_new_tokens=1)
        assert attachment.tokens == [(16, count) for count in kept]


@pytest.mark.parametrize("rows", [[ROWS[0]], ROWS], ids=["one row", "two rows"])
def test_prompts_without_a_mask(model, rows):
    inputs = prompt(*rows)
    if len(rows) > 1:
        inputs = prompt([5, PICTURE, 6, 7], [5, 6, PICTURE, 9])
    expected = answer(model, reduced(model, inputs))
    del inputs["attention_mask"]
    with prumerge.attach(model, SPEC):
        assert torch.equal(answer(model, inputs), expected)


# more turns on one cache


def next_turn(inputs, sequences, new):
    """The caller's prompt, the answer, and something more."""
    ids = torch.cat([sequences, new], dim=1)
    added = ids.shape[1] - inputs["attention_mask"].shape[1]
    mask = torch.cat([inputs["attention_mask"], torch.ones(len(ids), added, dtype=torch.long)], dim=1)
    return {**inputs, "input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("pixels", ["with", "without"])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_second_and_third_turn_on_the_cache_are_those_of_a_fresh_prompt(attached, rows, pixels):
    turn, cache = prompt(*ROWS[-rows:]), DynamicCache(config=attached.config.text_config)
    for new in (long([20, 21, 22], [23, 24, 25]), long([30], [31]), long([32, 33], [34, 35])):
        fresh = attached.generate(**turn, max_new_tokens=4, do_sample=False)
        again = dict(turn)
        if pixels == "without" and cache.get_seq_length():
            del again["pixel_values"]
        sequences = attached.generate(**again, past_key_values=cache, max_new_tokens=4, do_sample=False)
        assert torch.equal(sequences, fresh)
        turn = next_turn(turn, sequences, new[:rows])


def test_a_second_turn_reads_only_what_is_new(attached):
    inputs = prompt(ROWS[0])
    first = attached.generate(**inputs, max_new_tokens=3, do_sample=False, return_dict_in_generate=True)
    lengths = []

    def note(module, arguments, named):
        lengths.append(named["inputs_embeds"].shape[1])

    attached.model.language_model.register_forward_pre_hook(note, with_kwargs=True)
    turn = next_turn(inputs, first.sequences, long([20, 21, 22]))
    attached.generate(**turn, past_key_values=first.past_key_values, max_new_tokens=2, do_sample=False)
    assert lengths == [4, 1]  # the last word of the answer was not read yet


def filled_cache(model, inputs):
    options = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True}
    output = model.generate(**inputs, **options)
    return output.sequences, output.past_key_values


def test_a_new_picture_in_a_used_cache_is_refused(attached):
    inputs = prompt(ROWS[0])
    sequences, cache = filled_cache(attached, inputs)
    turn = next_turn(inputs, sequences, long([20] + [IMAGE] * 16))
    turn["pixel_values"] = pictures(2)
    with pytest.raises(ValueError, match="a new picture cannot join a cache that is in use"):
        attached.generate(**turn, past_key_values=cache, max_new_tokens=2)


def test_a_cache_that_was_filled_without_reduction_is_refused(model):
    inputs = prompt(ROWS[0])
    sequences, cache = filled_cache(model, inputs)
    turn = next_turn(inputs, sequences, long([20]))
    with prumerge.attach(model, SPEC), pytest.raises(ValueError, match="was filled without reduction"):
        model.generate(**turn, past_key_values=cache, max_new_tokens=2)


@pytest.mark.parametrize("change", ["another word", "fewer words", "another batch"])
def test_a_prompt_that_does_not_continue_the_one_in_the_cache_is_refused(attached, change):
    inputs = prompt(ROWS[0])
    sequences, cache = filled_cache(attached, inputs)
    turn = next_turn(inputs, sequences, long([20]))
    if change == "another word":
        turn["input_ids"][0, 0] = 4
    elif change == "fewer words":
        turn["input_ids"] = turn["input_ids"][:, :10]
    else:
        turn["input_ids"] = turn["input_ids"].repeat(2, 1)
    with pytest.raises(ValueError, match="does not continue the one in the cache"):
        attached.generate(**turn, past_key_values=cache, max_new_tokens=2)


def test_embeddings_in_place_of_a_prompt_are_refused(attached):
    with pytest.raises(ValueError, match="inputs_embeds cannot be shortened"):
        attached.generate(inputs_embeds=torch.zeros(1, 20, 32), pixel_values=pictures(1), max_new_tokens=1)


def test_prompt_look_up_is_refused(attached, inputs):
    with pytest.raises(ValueError, match="leave out prompt_lookup_num_tokens"):
        attached.generate(**inputs, prompt_lookup_num_tokens=2, max_new_tokens=2)


# forward


def test_forward_gives_the_loss_of_the_shorter_prompt(model, inputs):
    inputs["labels"] = inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE, -100)
    expected = model(**prumerge.reduce(model, inputs, SPEC))
    with prumerge.attach(model, SPEC):
        output = model(**inputs)
    assert torch.equal(output.loss, expected.loss)
    assert torch.equal(output.logits, expected.logits)
    output.loss.backward()
    assert model.model.multi_modal_projector.linear_1.weight.grad.abs().sum() > 0


def test_forward_takes_arguments_by_position(attached, inputs):
    with torch.no_grad():
        named = attached(**inputs).logits
        by_position = attached(inputs["input_ids"], inputs["pixel_values"], inputs["attention_mask"]).logits
    assert torch.equal(named, by_position)


def test_none_attached_changes_nothing(model, inputs):
    with torch.no_grad():
        logits, words = model(**inputs).logits, answer(model, inputs)
        with prumerge.attach(model, "none"):
            assert torch.equal(model(**inputs).logits, logits)
            assert torch.equal(answer(model, inputs), words)


@pytest.mark.parametrize("name", ["forward", "generate"])
def test_signatures_stay_those_of_the_model(attached, name):
    plain = llava()
    assert inspect.signature(getattr(attached, name)) == inspect.signature(getattr(plain, name))
    assert getattr(attached, name).__doc__ == getattr(plain, name).__doc__


def test_two_kinds_of_models_keep_their_own_signatures(model):
    class Other(LlavaForConditionalGeneration):
        def forward(self, input_ids=None, pixel_values=None, **others):
            return super().forward(input_ids, pixel_values, **others)

    with prumerge.attach(model, SPEC), prumerge.attach(Other(model.config), SPEC):
        assert inspect.signature(model.forward) == inspect.signature(llava().forward)


# coming and going


def state(model):
    return dict(vars(model))


def test_nothing_is_left_on_the_model(model, inputs):
    before = state(model)
    with prumerge.attach(model, SPEC):
        model.generate(**inputs, max_new_tokens=1)
        model(**inputs)
        assert vars(model).keys() > before.keys()
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items())


def test_the_class_and_other_models_are_never_touched(model, inputs):
    methods = LlavaForConditionalGeneration.forward, LlavaForConditionalGeneration.generate
    other = llava()
    expected = answer(other, inputs)
    with prumerge.attach(model, SPEC):
        assert type(model) is LlavaForConditionalGeneration
        assert (LlavaForConditionalGeneration.forward, LlavaForConditionalGeneration.generate) == methods
        assert torch.equal(answer(other, inputs), expected)


def test_an_error_inside_still_detaches(model):
    before = state(model)
    with pytest.raises(KeyError), prumerge.attach(model, SPEC):
        raise KeyError
    assert vars(model).keys() == before.keys()


def test_detaching_twice_is_harmless(model, inputs):
    expected = answer(model, inputs)
    attachment = prumerge.attach(model, SPEC)
    attachment.detach()
    attachment.detach()
    assert torch.equal(answer(model, inputs), expected)


def test_a_second_method_is_refused_until_the_first_is_detached(model):
    with prumerge.attach(model, "prumerge:keep=4"):
        with pytest.raises(ValueError, match=r"attached to this model already \(prumerge:keep=4\)"):
            prumerge.attach(model, "topk")
        assert model.generate.__self__ is model
    prumerge.attach(model, "topk").detach()


def test_a_wrong_method_leaves_the_model_alone(model):
    before = state(model)
    with pytest.raises(ValueError, match="there is no method"):
        prumerge.attach(model, "magic")
    assert vars(model).keys() == before.keys()


def test_a_deep_copy_is_attached_by_itself(attached, inputs):
    expected = answer(attached, inputs)
    twin = copy.deepcopy(attached)
    plain = answer(llava(), inputs)
    attached._prumerge.detach()
    assert torch.equal(answer(twin, inputs), expected)
    assert torch.equal(answer(attached, inputs), plain)
    with torch.no_grad():
        for weight in attached.parameters():
            weight.zero_()
    twin._prumerge.detach()
    assert torch.equal(answer(twin, inputs), plain)


def test_saving_inside_saves_the_plain_model(model, inputs, tmp_path):
    with prumerge.attach(model, SPEC):
        model.save_pretrained(tmp_path)
    again = LlavaForConditionalGeneration.from_pretrained(tmp_path)
    assert again.config.architectures == ["LlavaForConditionalGeneration"]
    assert torch.equal(answer(again, inputs), answer(model, inputs))


def test_methods_that_others_put_on_the_model_still_run_and_come_back(model, inputs):
    """As accelerate does to spread a model over devices."""
    calls = []

    class Note(ModelHook):
        def pre_forward(self, module, *args, **kwargs):
            calls.append(kwargs["input_ids"].shape[1])
            return args, kwargs

    add_hook_to_module(model, Note())
    hooked = vars(model)["forward"]
    with prumerge.attach(model, "topk:keep=2"):
        model(**inputs)
    assert calls == [7]
    assert vars(model)["forward"] is hooked


# other libraries


def test_a_pipeline_answers_with_fewer_tokens(model):
    tools = processor()
    picture = Image.effect_mandelbrot((80, 60), (-2, -1, 1, 1), 20).convert("RGB")
    text = "w5 <image> w6 w7"
    ask = pipeline("image-text-to-text", model=model, processor=tools)
    shorter = reduced(model, tools(images=picture, text=text, return_tensors="pt"))
    expected = tools.decode(answer(model, shorter, tokens=4)[0])
    with prumerge.attach(model, SPEC) as attachment:
        (said,) = ask(images=picture, text=text, max_new_tokens=4, do_sample=False)
    assert said["generated_text"] == f"{text} {expected}"
    assert attachment.tokens[0][1] < 16


def lora(model, seed=3):
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=2,
        target_modules=r".*language_model.*\.(q_proj|v_proj)",
        modules_to_save=["multi_modal_projector"],
        init_lora_weights=False,
    )
    return peft.get_peft_model(model, config)


@pytest.mark.parametrize("order", ["method first", "adapter first"])
def test_an_adapter_and_a_method_go_together_in_any_order(inputs, order):
    adapted = lora(llava())
    expected = answer(adapted, reduced(adapted, inputs))
    assert not torch.equal(expected, answer(llava(), reduced(llava(), inputs)))
    model = llava()
    if order == "method first":
        attachment = prumerge.attach(model, SPEC)
        model = lora(model)
    else:
        model = lora(model)
        attachment = prumerge.attach(model, SPEC)
    assert torch.equal(answer(model, inputs), expected)
    inputs["labels"] = inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE, -100)
    model(**inputs).loss.backward()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in trained)
    attachment.detach()
    del inputs["labels"]
    assert torch.equal(answer(model, inputs), answer(lora(llava()), inputs))


def test_a_trainer_trains_with_fewer_tokens(model, tmp_path):
    lengths = []

    def note(module, arguments, named):
        lengths.append(named["inputs_embeds"].shape[1])

    model.model.language_model.register_forward_pre_hook(note, with_kwargs=True)
    rows = [prompt([5, PICTURE, 6, 7 + number], seed=number) for number in range(4)]
    rows = [{name: value[0] for name, value in row.items()} for row in rows]
    for row in rows:
        row["labels"] = row["input_ids"].masked_fill(row["input_ids"] == IMAGE, -100)
    before = model.model.multi_modal_projector.linear_1.weight.detach().clone()
    arguments = TrainingArguments(
        tmp_path,
        max_steps=2,
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    with prumerge.attach(model, "topk:keep=4"):
        Trainer(model, arguments, train_dataset=rows).train()
    assert lengths == [7, 7]
    assert not torch.equal(model.model.multi_modal_projector.linear_1.weight, before)


@pytest.mark.parametrize("explicit_positions", [False, True])
def test_decoding_by_hand_with_the_callers_mask_is_generate(attached, explicit_positions):
    inputs = prompt([5, PICTURE, 6, 7, 8, 9], [4, PICTURE, 3])  # the second row is padded on the left
    expected = answer(attached, inputs, tokens=4)
    mask, ids, cache, tokens = inputs["attention_mask"], inputs["input_ids"], None, []
    step = dict(inputs)
    with torch.no_grad():
        for _ in range(4):
            if explicit_positions:
                positions = (mask.cumsum(1) - 1).clamp_min(0)
                step["position_ids"] = positions[:, -step["input_ids"].shape[1] :]
            output = attached(**step, past_key_values=cache, use_cache=True)
            ids, cache = output.logits[:, -1:].argmax(-1), output.past_key_values
            tokens.append(ids)
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
            step = {"input_ids": ids, "attention_mask": mask}
    assert torch.equal(torch.cat(tokens, dim=1), expected)


def test_a_pickled_model_comes_back_without_its_attachment_and_can_be_attached(model, inputs, tmp_path):
    plain = answer(copy.deepcopy(model), inputs)  # Transformers' hooks of a first run cannot be pickled
    with prumerge.attach(model, "prumerge:keep=3"):
        torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(answer(loaded, inputs), plain)
    with prumerge.attach(loaded, "prumerge:keep=3") as attached:
        answer(loaded, inputs)
    assert [after for _, after in attached.tokens] == [4] * len(attached.tokens)


def test_a_model_without_a_head_can_be_attached_too(model, inputs):
    base = model.model
    with torch.no_grad():
        full = base(**inputs).last_hidden_state
        with prumerge.attach(base, "prumerge:keep=3"):
            short = base(**inputs).last_hidden_state
    assert short.shape[1] < full.shape[1]
    assert not {"forward", "generate", "_prumerge"} & set(vars(base))
