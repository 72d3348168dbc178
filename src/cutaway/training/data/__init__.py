"""Data: from files to batches. `examples` → `tokenise` → `Windows` → `Loader`, each of use by itself.

>>> import tempfile, pathlib
>>> file = pathlib.Path(tempfile.mkdtemp()) / "tiny.txt"
>>> _ = file.write_text("to be or not to be, that is the question")
>>> texts = examples(file)
>>> tokenizer = characters(text for (text,), _ in texts.texts())
>>> train, valid = tokenise(texts, tokenizer).split(0.25)
>>> loader = Loader(Windows(train, 8, overlap=1, place="shifted"), rows=2)
>>> loader.batch(0).ids.shape
torch.Size([2, 8])
"""

from cutaway.training.batch import Pairs, Rows
from cutaway.training.data.loader import Loader
from cutaway.training.data.packing import Items, Windows
from cutaway.training.data.shards import tokenise
from cutaway.training.data.sources import Examples, examples
from cutaway.training.data.tokens import Tokens
from cutaway.training.data.vocabularies import characters, learn, octets

__all__ = [
    "Examples",
    "Items",
    "Loader",
    "Pairs",
    "Rows",
    "Tokens",
    "Windows",
    "characters",
    "examples",
    "learn",
    "octets",
    "tokenise",
]
