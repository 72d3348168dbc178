"""Tuning, loss by loss, beside the `Trainer` of transformers on the same weights and the same rows."""

import json
import shutil
import warnings

import pytest
from torch.utils.data import DataLoader

import cutaway
from cutaway.training.data import examples
from cutaway.training.data.buckets import Buckets
from cutaway.training.loop import Trainer
from cutaway.training.tasks import TASKS
from cutaway.training.tasks.items import TaskItems
from cutaway.training.tasks.setup import opened
from cutaway.training.tuning import recipe_for

STEPS, LENGTH = 30, 20
KINDS = {
    "classification": ("reviews", "AutoModelForSequenceClassification"),
    "tokens": ("names", "AutoModelForTokenClassification"),
    "questions": ("squad", "AutoModelForQuestionAnswering"),
}


@pytest.fixture(scope="module")
def still(encoder, tmp_path_factory):
    """The encoder without dropout."""
    folder = tmp_path_factory.mktemp("still") / "model"
    shutil.copytree(encoder, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def theirs(batch):
    """A batch as models of transformers take it."""
    rows, labels = batch.rows, batch.labels
    given = {"input_ids": rows.ids} | ({} if rows.padding is None else {"attention_mask": rows.padding.long()})
    if rows.segments is None:
        return given | {"labels": labels}
    return given | {"token_type_ids": rows.segments, "start_positions": labels[:, 0], "end_positions": labels[:, 1]}


def losses_of_their_trainer(model, batches, chosen, folder):
    import transformers

    found = []

    class Recorded(transformers.Trainer):
        def get_train_dataloader(self):
            return DataLoader(batches, batch_size=None)

        def get_decay_parameter_names(self, model):
            return [name for name in super().get_decay_parameter_names(model) if "embeddings" not in name]

        def create_scheduler(self, num_training_steps, optimizer=None):
            schedule = super().create_scheduler(num_training_steps, optimizer)
            schedule.step()  # their first update has a rate of 0, our last
            return schedule

        def compute_loss(self, *given, **more):
            loss = super().compute_loss(*given, **more)
            found.append(loss.item())
            return loss

    optimizer = chosen.optimizer
    arguments = transformers.TrainingArguments(
        str(folder), max_steps=STEPS, learning_rate=optimizer.rate, weight_decay=optimizer.decay,
        adam_beta1=optimizer.betas[0], adam_beta2=optimizer.betas[1], adam_epsilon=optimizer.eps,
        max_grad_norm=optimizer.clip, lr_scheduler_type="linear", warmup_steps=round(chosen.schedule.warmup * STEPS),
        use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the schedule's order
        Recorded(model, arguments).train()
    return found


@pytest.mark.parametrize("name", KINDS)
def test_each_loss_is_that_of_transformers(name, still, request, tmp_path):
    import transformers

    data, automatic = KINDS[name]
    kind, file = TASKS[name], request.getfixturevalue(data)
    found = kind.read(examples(file))
    model, task = opened(str(still), kind, kind.classes(found), length=LENGTH, device="cpu", seed=1)
    rows = task.encode(found).rows
    if name == "questions":
        rows = [row for row in rows if len(row.ids) == LENGTH]  # there padding may be pointed at
    batches = Buckets(TaskItems(rows), 8, seed=2)
    settings = {"loop.steps": STEPS, "optimizer.rate": 1e-2, "optimizer.decay": 0.1, "optimizer.clip": 0.3}
    chosen = recipe_for(str(still), name, [str(file)], {key: str(value) for key, value in settings.items()})
    cutaway.save(model, tmp_path / "begin", tokenizer=task.tokenizer)

    trainer = Trainer(model, task.objective(model), batches, chosen)
    ours = [trainer.step(n) for n in range(1, STEPS + 1)]
    peer = getattr(transformers, automatic).from_pretrained(tmp_path / "begin")
    given = [theirs(batches.batch(n)) for n in range(STEPS)]
    expected = losses_of_their_trainer(peer, given, chosen, tmp_path)
    assert [step.loss for step in ours] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert sum(step.loss for step in ours[-6:]) < 0.95 * sum(step.loss for step in ours[:6])
    assert any(step.norm > 0.3 for step in ours)  # clipped
