"""Transformers' own Trainer on few visual tokens: attach a method, and the rest stays as it is."""

import tempfile
import warnings

from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

import prumerge
from prumerge.tiny import samples
from prumerge.train import Rows
from prumerge.train.batches import Batches

warnings.filterwarnings("ignore", category=FutureWarning)  # peft's, about names in Transformers

model, processor = prumerge.load("tiny")
model = get_peft_model(model, LoraConfig(r=4, target_modules=r".*language_model.*(q_proj|v_proj)"))

# Any list of rows does; the batches' labels are the answers and what ends them.
rows = Rows.read(
    [
        {"image": str(sample.path), "question": asked.text, "answer": asked.answer}
        for sample in samples()
        for asked in sample.questions
    ][:8]
)
arguments = TrainingArguments(
    output_dir=tempfile.mkdtemp(),
    max_steps=3,
    per_device_train_batch_size=4,
    learning_rate=1e-3,
    remove_unused_columns=False,
    report_to="none",
    save_strategy="no",
    logging_steps=1,
    disable_tqdm=True,
    use_cpu=True,
)
trainer = Trainer(model, arguments, train_dataset=rows, data_collator=Batches(processor))
with prumerge.attach(model, "prumerge:keep=36") as attached:
    trainer.train()
print("visual tokens of the last batch, before and after:", attached.tokens)
