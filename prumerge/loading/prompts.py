from prumerge.loading.load import question_prompt


def prepare_batch(processor, media, questions):
    prompts = [question_prompt(processor, q, len(m)) for q, m in zip(questions, media)]
    return processor(
        images=[list(m) for m in media], text=prompts, padding=True, return_tensors="pt", verbose=False
    )
