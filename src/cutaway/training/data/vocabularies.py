"""Tokenizers made here: their vocabularies are learnt from the data, or need no learning.

characters      one id a character
octets          one id a byte of UTF-8
byte_pairs      bytes, the most frequent pair merged again and again       Sennrich et al. 2016; Radford et al. 2019
word_pieces     pieces of words, the longest that fits first               Wu et al. 2016; Devlin et al. 2018
unigram         the likeliest pieces under a model that knows only them    Kudo 2018

Learning is done by the `tokenizers` library. Byte pairs of the same texts are always the same; the other two differ a
little from time to time, as the library walks its tables in an order of its own: learn once, save, and read back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from cutaway.text import Tokenizer
from cutaway.text.engines import Roles
from cutaway.text.recipes import byte_level, document, merging, wordpiece
from cutaway.text.rust import RustEngine, byte_table
from cutaway.training.errors import DataError

_T5 = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>", "bos": "<s>", "mask": "<mask>"}
_GPT = {name: _T5[name] for name in ("pad", "bos", "eos", "mask")}
_BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}

KINDS = ("char", "byte", "bpe", "wordpiece", "unigram")


def learn(
    kind: str, texts: Iterable[str], size: int = 8000, *, special: Sequence[str] = (), lowercase: bool = False
) -> Tokenizer:
    """A tokenizer by the name of its kind: "char", "byte", "bpe", "wordpiece" or "unigram".

    Args:
        size: ids at most, of the last three; fewer where the texts are too few.
        special: further control tokens of those, such as "<extra_id_0>" or "<|im_start|>".
        lowercase: of "wordpiece", where it takes accents away too.

    Raises:
        DataError: no such kind; no text; a size without room for what is needed.
    """
    kinds: dict[str, Callable[[], Tokenizer]] = {
        "char": lambda: characters(texts),
        "byte": octets,
        "bpe": lambda: byte_pairs(texts, size, special),
        "wordpiece": lambda: word_pieces(texts, size, special, lowercase),
        "unigram": lambda: unigram(texts, size, special),
    }
    if kind not in kinds:
        raise DataError(f"no tokenizer {kind!r} can be made here; there are {', '.join(kinds)}")
    return kinds[kind]()


def characters(texts: Iterable[str]) -> Tokenizer:
    """One id a character, in the order of Unicode, and one for those that the texts do not have."""
    known: set[str] = set()
    for text in texts:
        known.update(text)
    if not known:
        raise DataError("there is not one character to make a vocabulary of")
    vocab = {text: index for index, text in enumerate([*sorted(known), "<unk>"])}
    unknown = {"<unk>": vocab["<unk>"]}
    written = document(merging(vocab, [], unk_token="<unk>"), unknown, decoder={"type": "Fuse"})
    return Tokenizer(RustEngine(written, "the character tokenizer"), Roles(unk="<unk>"))


def octets() -> Tokenizer:
    """One id a byte of UTF-8: 256 ids for any text."""
    written = byte_level(byte_table(), [], {})
    written["pre_tokenizer"]["use_regex"] = False  # words change nothing where nothing is merged
    return Tokenizer(RustEngine(written, "the byte tokenizer"), Roles())


def byte_pairs(texts: Iterable[str], size: int, special: Sequence[str] = ()) -> Tokenizer:
    """Byte-level BPE, words cut as GPT-2 does. Any text comes back as it was; nothing is put around it."""
    from tokenizers import trainers

    control = [*_GPT.values(), *special]
    alphabet = list(byte_table())
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=control, initial_alphabet=alphabet, show_progress=False
    )
    model = _learnt(byte_level({}, [], {}), trainer, texts, size, len(control) + len(alphabet))
    ids = {text: model["vocab"][text] for text in control}
    return _made(byte_level(model["vocab"], model["merges"], ids), _GPT)


def word_pieces(texts: Iterable[str], size: int, special: Sequence[str] = (), lowercase: bool = False) -> Tokenizer:
    """WordPiece as BERT has it, [CLS] and [SEP] around each text. White space is not kept."""
    from tokenizers import trainers

    control = [*_BERT.values(), *special]
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=control, show_progress=False)
    start = wordpiece({text: i for i, text in enumerate(control)}, {}, _BERT, lowercase=lowercase)
    vocab = _learnt(start, trainer, texts, size, len(control))["vocab"]
    ids = {text: vocab[text] for text in control}
    return _made(wordpiece(vocab, ids, _BERT, lowercase=lowercase), _BERT, ["[CLS]"], ["[SEP]"])


def unigram(texts: Iterable[str], size: int, special: Sequence[str] = ()) -> Tokenizer:
    """A unigram language model of pieces, as T5 has it, </s> after each text. Text of known characters comes back as it was."""
    from tokenizers import trainers

    control = [*_T5.values(), *special]
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=control, unk_token=_T5["unk"], show_progress=False
    )
    model = _learnt(_spaced({"type": "Unigram", "unk_id": None, "vocab": []}), trainer, texts, size, len(control))
    ids = {text: index for index, (text, _) in enumerate(model["vocab"]) if text in control}
    return _made(_spaced(model, ids), _T5, [], ["</s>"])


def _spaced(model: dict[str, Any], special: dict[str, int] | None = None) -> dict[str, Any]:
    """Spaces are written ▁, one stands before the text, and pieces do not cross them or the ends of lines."""
    lines = {"type": "Split", "pattern": {"Regex": r"\n+"}, "behavior": "Isolated", "invert": False}
    words = {"type": "Split", "pattern": {"String": "▁"}, "behavior": "MergedWithNext", "invert": False}
    marked = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    back = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "Fuse"}]
    return document(
        model,
        special or {},
        normalizer={"type": "Sequence", "normalizers": marked},
        pre_tokenizer={"type": "Sequence", "pretokenizers": [lines, words]},
        decoder={"type": "Sequence", "decoders": [*back, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    )


def _learnt(start: dict[str, Any], trainer: Any, texts: Iterable[str], size: int, least: int) -> dict[str, Any]:
    """What `trainer` makes of the model of `start`, whose steps cut the texts."""
    from tokenizers import Tokenizer as Rust

    rust = Rust.from_str(json.dumps(start | {"added_tokens": [], "post_processor": None}))
    problems: list[Exception] = []
    seen = 0

    def watched() -> Iterator[str]:
        nonlocal seen
        try:
            for text in texts:
                seen += len(text)
                yield text
        except Exception as problem:  # the library would wrap it
            problems.append(problem)
            raise

    if size <= least:
        raise DataError(f"a vocabulary of {size} has no room for pieces: {least} ids are there in any case")
    try:
        rust.train_from_iterator(watched(), trainer)
    except Exception as problem:
        if problems:
            raise problems[0] from None
        raise DataError(f"no vocabulary of {size} can be learnt from these texts: {problem}") from None
    if not seen:
        raise DataError("there is not one character to make a vocabulary of")
    made = rust.get_vocab_size()
    if made > size:
        raise DataError(f"a vocabulary of {size} is too small: the characters of these texts alone make {made}")
    return json.loads(rust.to_str())["model"]


def _made(
    written: dict[str, Any], roles: dict[str, str], before: Sequence[str] = (), after: Sequence[str] = ()
) -> Tokenizer:
    engine = RustEngine(written, "the tokenizer made here")
    prefix, suffix = ([engine.specials[text] for text in side] for side in (before, after))
    named: dict[str, Any] = {**roles, "prefix": prefix, "suffix": suffix}
    return Tokenizer(engine, Roles(**named))
