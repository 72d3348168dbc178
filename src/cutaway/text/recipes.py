"""Tokenizers written down as `tokenizer.json` documents: WordPiece, byte-level BPE, and the two of sentencepiece.

Every format we read but sentencepiece's own becomes one of these documents, which the `tokenizers` library runs and
`transformers` loads.
"""

from typing import Any

from cutaway.errors import TokenizerError
from cutaway.text import proto

Json = dict[str, Any]

# How text is cut into words before byte-level BPE (tokenizer.ggml.pre in llama.cpp's src/llama-vocab.cpp). "gpt-2" is
# built into the ByteLevel step; the others cut with their own expression first.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGITS: Json = {"type": "Digits", "individual_digits": True}


def _cut_at(expression: str) -> Json:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


_KINDS: dict[str, Json | None] = {
    "gpt-2": None,
    "smollm": _DIGITS,
    "llama-bpe": _cut_at(_LLAMA3),
    "qwen2": _cut_at(_LLAMA3.replace("{1,3}", "")),
}
_ALIASES = {"default": "gpt-2", "gpt2": "gpt-2", "phi-2": "gpt-2", "starcoder": "smollm", "refact": "smollm"}
_ALIASES |= {"llama3": "llama-bpe", "llama-v3": "llama-bpe"}


def document(model: Json, special: dict[str, int], plain: dict[str, int] | None = None, **steps: Any) -> Json:
    """A whole `tokenizer.json`. `special` and `plain`: added tokens and their ids, never cut into pieces."""
    added = [(index, text, True) for text, index in special.items()]
    added += [(index, text, False) for text, index in (plain or {}).items() if text not in special]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokens = [{"id": index, "content": text, "special": kind, **flags} for index, text, kind in sorted(added)]
    empty = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens}
    parts = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
    return empty | {part: steps.get(part) for part in parts} | {"model": model}


def around(prefix: list[str], suffix: list[str], ids: dict[str, int]) -> Json | None:
    """The step that puts control tokens before and after each text."""
    if not prefix and not suffix:
        return None

    def token(text: str, segment: int) -> Json:
        return {"SpecialToken": {"id": text, "type_id": segment}}

    def one(name: str, segment: int) -> list[Json]:
        body = {"Sequence": {"id": name, "type_id": segment}}
        return [*(token(p, segment) for p in prefix), body, *(token(s, segment) for s in suffix)]

    second = one("B", 1)[len(prefix) if suffix else 0 :]  # BERT writes [CLS] A [SEP] B [SEP]
    known = {text: {"id": text, "ids": [ids[text]], "tokens": [text]} for text in [*prefix, *suffix]}
    return {"type": "TemplateProcessing", "single": one("A", 0), "pair": one("A", 0) + second, "special_tokens": known}


def byte_level(vocab: dict[str, int], merges: list[list[str]], special: dict[str, int], **options: Any) -> Json:
    """Byte-level BPE (Radford et al. 2019, section 2.2).

    Options: `kind` (how words are cut), `plain` (further added tokens), `add_prefix_space`, `post_processor`.
    """
    kind = options.get("kind", "gpt-2")
    kind = _ALIASES.get(kind, kind)
    if kind not in _KINDS:
        raise TokenizerError(
            f"Unknown pre-tokenizer {kind!r}: cutaway knows {', '.join(sorted([*_KINDS, *_ALIASES]))}. "
            "Load the model from its Hugging Face directory, whose tokenizer.json says how to cut words."
        )
    cut = _KINDS[kind]
    own_words = kind in ("gpt-2", "smollm")
    space = bool(options.get("add_prefix_space", False))
    level = {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True, "use_regex": own_words}
    return document(
        merging(vocab, merges, ignore_merges=kind == "llama-bpe"),
        special,
        options.get("plain"),
        normalizer={"type": "NFC"} if kind == "qwen2" else None,
        pre_tokenizer={"type": "Sequence", "pretokenizers": [cut, level]} if cut else level,
        post_processor=options.get("post_processor"),
        decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    )


def wordpiece(vocab: dict[str, int], special: dict[str, int], names: Json, **options: Any) -> Json:
    """WordPiece with BERT's normalisation (Devlin et al. 2018; Wu et al. 2016, section 4.1).

    `names`: the texts of the `unk`, `cls` and `sep` tokens. Options: `lowercase`, `strip_accents` (None: as
    `lowercase`), `chinese` (cut around CJK characters).
    """
    return document(
        {
            "type": "WordPiece",
            "unk_token": names["unk"],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
        special,
        normalizer={
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": options.get("chinese", True),
            "strip_accents": options.get("strip_accents"),
            "lowercase": options.get("lowercase", True),
        },
        pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor=around([names["cls"]], [names["sep"]], vocab),
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
    )


def sentencepiece(model: proto.SentencePieceModel, every_segment: bool) -> Json:
    """The steps of a sentencepiece model, without added tokens (Kudo & Richardson 2018).

    It cuts as sentencepiece does but for two rarities. The library looks up a character together with the marks on
    it: where the normalisation maps the character but not the whole (`½` with a macron), it loses the marks, and it
    maps no whole of six bytes or more (Hangul in single letters). And where two overlapping merges make the same
    piece in different ways, sentencepiece takes the left one.
    """
    pieces = [piece.text for piece in model.pieces]
    unknown = pieces[model.unk]
    if model.algorithm == proto.BPE:
        vocab = {text: index for index, text in enumerate(pieces)}
        core = merging(vocab, _merges(model), unk_token=unknown, byte_fallback=model.byte_fallback, fuse_unk=True)
    else:
        scores = [[piece.text, piece.score] for piece in model.pieces]
        core = {"type": "Unigram", "unk_id": model.unk, "vocab": scores, "byte_fallback": model.byte_fallback}
    normalizers: list[Json] = []
    if model.charsmap:
        import base64

        charsmap = base64.b64encode(model.charsmap).decode("ascii")
        normalizers += [{"type": "Precompiled", "precompiled_charsmap": charsmap}]
    if model.remove_extra_spaces:
        normalizers += [{"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]
        normalizers += [{"type": "Strip", "strip_left": True, "strip_right": True}]
    if model.add_dummy_prefix and every_segment:
        normalizers += [{"type": "Prepend", "prepend": "▁"}]
    normalizers += [{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    words = None
    if model.add_dummy_prefix and not every_segment:
        # A single Metaspace step would not add the space before a text that begins with one. Here no space is left,
        # so the first step always adds one, at the start of the whole text only, and the second writes it as ▁.
        spaces = {"type": "Metaspace", "replacement": " ", "prepend_scheme": "first", "split": False}
        marks = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": False}
        words = {"type": "Sequence", "pretokenizers": [spaces, marks]}
    decoders: list[Json] = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}]
    decoders += [{"type": "ByteFallback"}, {"type": "Fuse"}]
    if model.add_dummy_prefix:
        decoders += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    normalizer = {"type": "Sequence", "normalizers": normalizers}
    decoder = {"type": "Sequence", "decoders": decoders}
    return document(core, {}, normalizer=normalizer, pre_tokenizer=words, decoder=decoder)


def merging(vocab: dict[str, int], merges: list[list[str]], **changes: Any) -> Json:
    """The model of byte-pair encoding (Sennrich et al. 2016, section 3.2), as far as not said otherwise in `changes`."""
    plain = dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
    flags = {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    return {"type": "BPE", **plain, **flags, **changes, "vocab": vocab, "merges": merges}


def _merges(model: proto.SentencePieceModel) -> list[list[str]]:
    """Sentencepiece keeps a score for each piece; here every pair that makes the piece is a merge, best score first."""
    ids = {piece.text: index for index, piece in enumerate(model.pieces) if piece.kind == proto.NORMAL}
    found = []
    for text, index in ids.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in ids and right in ids:
                found.append((-model.pieces[index].score, ids[left], ids[right], left, right))
    return [[left, right] for *_, left, right in sorted(found)]
