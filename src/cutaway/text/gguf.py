"""Tokenizers from the `tokenizer.ggml.*` fields of a GGUF file."""

from array import array
from collections import Counter
from typing import Any

from cutaway.errors import TokenizerError
from cutaway.text import proto, recipes
from cutaway.text.engines import Engine, Roles
from cutaway.text.rust import RustEngine
from cutaway.text.spm import SentencePieceEngine
from cutaway.text.tokenizer import Tokenizer

_FILE = "The GGUF's tokenizer"
_ROLES = {
    "bos": "bos",
    "eos": "eos",
    "padding": "pad",
    "unknown": "unk",
    "cls": "cls",
    "seperator": "sep",
    "mask": "mask",
}
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")


def from_gguf(fields: dict[str, Any]) -> Tokenizer:
    """The tokenizer in a GGUF's metadata, given as `{field name: value}` (lists for arrays).

    `tokenizer.ggml.model` is `gpt2` (byte-level BPE), `llama` (sentencepiece BPE, run by sentencepiece itself) or `bert`
    (WordPiece). Raises `TokenizerError` for another model, an unknown `tokenizer.ggml.pre`, or fields that do not fit.
    """
    kind = str(fields.get("tokenizer.ggml.model"))
    engines = {"gpt2": _byte_level, "llama": _sentencepiece, "bert": _wordpiece}
    if kind not in engines:
        raise TokenizerError(f"{_FILE} is of kind {kind!r}; cutaway reads {', '.join(engines)}.")
    tokens, kinds = _tokens(fields)
    roles: dict[str, Any] = {}
    for theirs, ours in _ROLES.items():
        index = fields.get(f"tokenizer.ggml.{theirs}_token_id")
        if index is None or index in (-1, 0xFFFFFFFF):
            continue
        if type(index) is not int or not 0 <= index < len(tokens):
            raise TokenizerError(f"{_FILE}: {theirs}_token_id is {index!r}, but there are {len(tokens)} tokens.")
        roles[ours] = tokens[index]
    engine = engines[kind](fields, tokens, kinds, roles)
    if kind == "bert":
        roles["prefix"], roles["suffix"] = [engine.index(roles["cls"])], [engine.index(roles["sep"])]
    else:
        add_bos = kind == "llama" or fields.get("tokenizer.ggml.pre") in ("llama-bpe", "llama3", "llama-v3")
        for side, name, default in (("prefix", "bos", add_bos), ("suffix", "eos", False)):
            if fields.get(f"tokenizer.ggml.add_{name}_token", default) and name in roles:
                roles[side] = [engine.index(roles[name])]
    ends = [fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eot", "eom")]
    ends += [engine.specials.get(text) for text in _TURN_ENDS]
    roles["more_eos"] = frozenset(index for index in ends if type(index) is int and 0 <= index < len(tokens))
    template = fields.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise TokenizerError(f"{_FILE}: chat_template must be text, not {type(template).__name__}.")
    return Tokenizer(engine, Roles(**roles), template)


def _tokens(fields: dict[str, Any]) -> tuple[list[str], list[int]]:
    tokens = _list(fields, "tokens")
    kinds = _list(fields, "token_type") or [proto.NORMAL] * len(tokens)
    if not tokens or len(kinds) != len(tokens):
        raise TokenizerError(f"{_FILE} has {len(tokens)} tokens and {len(kinds)} token types; fetch the file again.")
    if not all(isinstance(token, str) for token in tokens) or not all(type(k) is int and 0 <= k <= 6 for k in kinds):
        raise TokenizerError(f"{_FILE}: tokens must be text and token types 1 to 6; fetch the file again.")
    if len(set(tokens)) < len(tokens):
        twice = Counter(tokens).most_common(1)[0][0]
        raise TokenizerError(f"{_FILE} lists {twice!r} twice; fetch the file again.")
    return tokens, [int(kind) or proto.NORMAL for kind in kinds]


def _list(fields: dict[str, Any], name: str) -> list[Any]:
    value = fields.get(f"tokenizer.ggml.{name}")
    if value is not None and not isinstance(value, (list, tuple, array)):
        raise TokenizerError(f"{_FILE}: {name} must be a list, not {type(value).__name__}; fetch the file again.")
    return list(value or [])


def _byte_level(fields: dict[str, Any], tokens: list[str], kinds: list[int], roles: dict[str, Any]) -> Engine:
    vocab = {token: index for index, token in enumerate(tokens)}
    merges = []
    for number, merge in enumerate(_list(fields, "merges")):
        pair = str(merge).split(" ")
        if len(pair) != 2 or any(piece not in vocab for piece in (*pair, "".join(pair))):
            raise TokenizerError(f"{_FILE}: merge {number}, {merge!r}, is no pair of its tokens; fetch the file again.")
        merges.append(pair)
    special = {token: vocab[token] for token, kind in zip(tokens, kinds, strict=True) if kind == proto.CONTROL}
    special |= {text: vocab[text] for text in roles.values()}
    plain = {token: vocab[token] for token, kind in zip(tokens, kinds, strict=True) if kind == proto.USER_DEFINED}
    options = {
        "kind": str(fields.get("tokenizer.ggml.pre", "default")),
        "plain": plain,
        "add_prefix_space": bool(fields.get("tokenizer.ggml.add_space_prefix", False)),
    }
    return RustEngine(recipes.byte_level(vocab, merges, special, **options), _FILE)


def _sentencepiece(fields: dict[str, Any], tokens: list[str], kinds: list[int], roles: dict[str, Any]) -> Engine:
    scores = _list(fields, "scores")
    if len(scores) != len(tokens) or not all(isinstance(score, (int, float)) for score in scores):
        raise TokenizerError(f"{_FILE} has {len(scores)} scores for {len(tokens)} tokens; fetch the file again.")
    if kinds.count(proto.UNKNOWN) != 1:
        raise TokenizerError(f"{_FILE} must have one token of type 2 (unknown), not {kinds.count(proto.UNKNOWN)}.")
    ids = {token: index for index, token in enumerate(tokens)}
    model = proto.SentencePieceModel(
        [proto.Piece(*entry) for entry in zip(tokens, map(float, scores), kinds, strict=True)],
        algorithm=proto.BPE,
        byte_fallback=proto.BYTE in kinds,
        unk=kinds.index(proto.UNKNOWN),
        bos=ids.get(roles.get("bos", ""), -1),
        eos=ids.get(roles.get("eos", ""), -1),
        pad=ids.get(roles.get("pad", ""), -1),
        add_dummy_prefix=bool(fields.get("tokenizer.ggml.add_space_prefix", True)),
        remove_extra_spaces=bool(fields.get("tokenizer.ggml.remove_extra_whitespaces", False)),
    )
    roles.setdefault("unk", tokens[model.unk])
    return SentencePieceEngine(proto.write_model(model), _FILE)


def _wordpiece(fields: dict[str, Any], tokens: list[str], kinds: list[int], roles: dict[str, Any]) -> Engine:
    """GGUF writes `▁word` for the start of a word and bare text for the rest; BERT writes `word` and `##rest`."""
    usual = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
    for name, text in usual.items():
        if text in tokens:
            roles.setdefault(name, text)
    for name in ("unk", "cls", "sep"):
        if name not in roles:
            raise TokenizerError(f"{_FILE} names no {usual[name]} token; a BERT vocabulary has one.")
    control = {token for token, kind in zip(tokens, kinds, strict=True) if kind in (proto.CONTROL, proto.UNKNOWN)}
    control |= {roles[name] for name in usual if name in roles}
    vocab: dict[str, int] = {}
    for index, token in enumerate(tokens):
        word = token if token in control else token[1:] if token.startswith("▁") else f"##{token}"
        if word in vocab:
            raise TokenizerError(f"{_FILE} spells {word!r} in two ways; fetch the file again.")
        vocab[word] = index
    return RustEngine(recipes.wordpiece(vocab, {token: vocab[token] for token in control}, roles), _FILE)
