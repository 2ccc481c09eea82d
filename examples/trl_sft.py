"""TRL's SFTTrainer on few visual tokens: attach after it is made, since it replaces the model's forward.

Needs trl: pip install trl
"""

import tempfile
import warnings

from datasets import Dataset, Image
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

import prumerge
from prumerge.tiny import samples

warnings.filterwarnings("ignore", category=FutureWarning)  # peft's, about names in Transformers

model, processor = prumerge.load("tiny")
rows = [(sample, asked) for sample in samples() for asked in sample.questions][:8]
data = Dataset.from_dict(
    {
        # `prompt` and `completion`, not `messages`: then placeholders of pictures are never labels.
        "prompt": [[{"role": "user", "content": asked.text}] for _, asked in rows],
        "completion": [[{"role": "assistant", "content": asked.answer}] for _, asked in rows],
        "images": [[str(sample.path)] for sample, _ in rows],
    }
).cast_column("images", [Image()])
arguments = SFTConfig(
    output_dir=tempfile.mkdtemp(),
    max_steps=3,
    per_device_train_batch_size=4,
    learning_rate=1e-3,
    max_length=None,  # TRL counts all 576 tokens, the model reads 37
    bf16=False,
    gradient_checkpointing=False,
    report_to="none",
    save_strategy="no",
    logging_steps=1,
    disable_tqdm=True,
    use_cpu=True,
)
adapter = LoraConfig(r=4, target_modules=r".*language_model.*(q_proj|v_proj)")
trainer = SFTTrainer(
    model, args=arguments, train_dataset=data, processing_class=processor, peft_config=adapter
)
with prumerge.attach(trainer.model, "prumerge:keep=36") as attached:
    trainer.train()
print("visual tokens of the last batch, before and after:", attached.tokens)
