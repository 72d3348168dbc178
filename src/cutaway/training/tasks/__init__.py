"""Tasks: what a trained model is tuned for. One file each, by name in `TASKS`.

A task reads examples from named columns, makes rows of token ids of them, says what is asked of the model about each row,
makes answers for people of what the model says, and scores them.
"""

from __future__ import annotations

from cutaway.training.tasks.classification import Classification
from cutaway.training.tasks.instructions import Instructions
from cutaway.training.tasks.questions import Questions
from cutaway.training.tasks.task import Example, Task
from cutaway.training.tasks.tokens import Tokens
from cutaway.training.tasks.writing import Summarisation, Translation

__all__ = ["TASKS", "Example", "Task"]

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "tokens": Tokens,
    "questions": Questions,
    "translation": Translation,
    "summarisation": Summarisation,
    "instructions": Instructions,
}
