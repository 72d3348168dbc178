"""Tokenizers from a Hugging Face directory, in whichever of the usual formats it ships."""

from pathlib import Path
from typing import Any

from cutaway.errors import TokenizerError
from cutaway.text import proto, recipes
from cutaway.text.engines import Roles
from cutaway.text.marian import MarianEngine
from cutaway.text.reading import (
    NAMED,
    added_tokens,
    more_eos,
    read_bytes,
    read_json,
    read_roles,
    read_template,
    read_text,
    read_vocab,
    unnumbered_tokens,
)
from cutaway.text.rust import RustEngine
from cutaway.text.spm import Added, SentencePieceEngine
from cutaway.text.tokenizer import Tokenizer

_MODELS = ("tokenizer.model", "spiece.model", "spm.model")
_KINDS = {"GPT2": "gpt-2", "Roberta": "gpt-2", "Bart": "gpt-2", "Longformer": "gpt-2", "Qwen2": "qwen2"}
_ENCODERS = ("Roberta", "Bart", "Longformer")  # texts stand between their CLS and SEP


def from_directory(path: str | Path) -> Tokenizer:
    """The tokenizer in a folder: `tokenizer.json`, a sentencepiece `.model`, `vocab.json` + `merges.txt`, `vocab.txt`, or
    Marian's `source.spm`, `target.spm` and `vocab.json`.

    `tokenizer_config.json` (or `special_tokens_map.json`) names the special tokens, `chat_template.jinja` or its
    entry the template, `generation_config.json` further end tokens. Raises `TokenizerError` naming the broken file.
    """
    folder = Path(path)
    config = read_json(folder / "special_tokens_map.json") | read_json(folder / "tokenizer_config.json")
    if config.get("cutaway_sentencepiece") and (folder / "tokenizer.model").exists():
        engine, roles = _sentencepiece(folder, "tokenizer.model", config)
    elif (folder / "tokenizer.json").exists():
        engine, roles = _tokenizer_json(folder, config)
    elif model := next((name for name in _MODELS if (folder / name).exists()), None):
        engine, roles = _sentencepiece(folder, model, config)
    elif (folder / "source.spm").exists() and (folder / "vocab.json").exists():
        engine, roles = _marian(folder, config)
    elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        engine, roles = _byte_level(folder, config)
    elif (folder / "vocab.txt").exists():
        engine, roles = _wordpiece(folder, config)
    else:
        raise TokenizerError(
            f"{folder} holds no tokenizer: put tokenizer.json, a sentencepiece .model, vocab.json and merges.txt, "
            "or vocab.txt there."
        )
    new = [t for n in NAMED if (t := roles.get(n)) is not None] + unnumbered_tokens(config)
    engine.add({text: True for text in new if engine.index(text) is None})
    for index, token in added_tokens(folder, config).items():
        if engine.index(token.text) != index:
            raise TokenizerError(
                f"{folder}: tokenizer_config.json or added_tokens.json gives {token.text!r} id {index}, but the "
                f"vocabulary makes it {engine.index(token.text)}; fetch the files again, from the same model."
            )
    for side, name, flag in (("prefix", "bos", "add_bos_token"), ("suffix", "eos", "add_eos_token")):
        if isinstance(config.get(flag), bool) and (config[flag] is False or roles.get(name) is not None):
            roles[side] = [engine.index(roles[name])] if config[flag] else []
    length = config.get("model_max_length")
    roles["max_length"] = length if isinstance(length, int) and length < 10**9 else None
    roles["more_eos"] = more_eos(folder)
    return Tokenizer(engine, Roles(**roles), read_template(folder, config))


def _tokenizer_json(folder: Path, config: dict[str, Any]) -> tuple[RustEngine, dict[str, Any]]:
    file = folder / "tokenizer.json"
    document = read_json(file)
    if not isinstance(document.get("model"), dict):
        raise TokenizerError(f'{file} has no "model" object; fetch the file again.')
    engine = RustEngine(document, str(file), read_text(file))
    added = {token.text: token.special for _, token in sorted(added_tokens(folder, config).items())}
    engine.add({text: special for text, special in added.items() if engine.index(text) is None})
    roles = read_roles(config, file)
    if not config:  # a lone tokenizer.json: take the names that go without saying
        for name, text in (("unk", document["model"].get("unk_token")), ("pad", "[PAD]"), ("pad", "<pad>")):
            if isinstance(text, str) and engine.index(text) is not None:
                roles.setdefault(name, text)
    roles["prefix"], roles["suffix"] = engine.around()
    return engine, roles


def _sentencepiece(folder: Path, name: str, config: dict[str, Any]) -> tuple[SentencePieceEngine, dict[str, Any]]:
    file, data = folder / name, read_bytes(folder / name)
    model = proto.read_model(data, str(file))
    kind = str(config.get("tokenizer_class") or read_json(folder / "config.json").get("model_type") or "").lower()
    if any(other in kind for other in ("roberta", "camembert", "mbart", "barthez", "nllb", "deberta", "pegasus")):
        raise TokenizerError(f"{file}: {kind} renumbers its pieces; put the model's tokenizer.json beside it.")
    own = {n: i for n, i in (("bos", model.bos), ("eos", model.eos), ("pad", model.pad), ("unk", model.unk)) if i >= 0}
    # T5 alone numbers pad 0, end 1, unknown 2 and has no beginning
    is_t5 = kind.startswith(("t5", "umt5")) or (not kind and own == {"eos": 1, "pad": 0, "unk": 2})
    added = added_tokens(folder, config)
    saved = config.get("cutaway_sentencepiece") or {}
    if not isinstance(saved, dict):
        raise TokenizerError(f'{folder / "tokenizer_config.json"}: "cutaway_sentencepiece" must be an object.')
    extra = 0 if saved else config.get("extra_ids", 100 if is_t5 else 0)
    if not isinstance(extra, int) or not 0 <= extra <= 100_000:
        raise TokenizerError(f'{folder / "tokenizer_config.json"}: "extra_ids" is {extra!r}; it must be a count.')
    known = {token.text for token in added.values()} | {piece.text for piece in model.pieces}
    for number in range(extra):  # <extra_id_0> is the last id (Raffel et al. 2019, section 3.1.4)
        if (text := f"<extra_id_{number}>") not in known:
            added[len(model.pieces) + extra - 1 - number] = Added(text)
    # A unigram vocabulary is T5's, whose segments each begin with a space; LLaMA's `legacy` decides for the others.
    every = model.algorithm == proto.UNIGRAM or bool(config.get("legacy", False))
    every = bool(saved.get("every_segment", every))
    engine = SentencePieceEngine(data, str(file), added, every)
    named = {n: model.pieces[i].text for n, i in own.items() if i < len(model.pieces)}
    roles = named | read_roles(config, file)
    if saved:
        roles |= {side: [engine.index(text) for text in saved.get(side, [])] for side in ("prefix", "suffix")}
    elif is_t5 or model.bos < 0:
        roles["suffix"] = [engine.index(roles["eos"])] if "eos" in roles else []
    else:
        roles["prefix"] = [model.bos]
    return engine, roles


def _marian(folder: Path, config: dict[str, Any]) -> tuple[MarianEngine, dict[str, Any]]:
    if config.get("separate_vocabs"):
        raise TokenizerError(f"{folder}: source and target have vocabularies of their own; only a shared one is read.")
    roles = {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"} | read_roles(config, folder / "vocab.json")
    added = {token.text for token in added_tokens(folder, config).values() if token.special}
    specials = {roles[name] for name in NAMED if name in roles} | added
    source, target = (read_bytes(folder / name) for name in ("source.spm", "target.spm"))
    vocab, name = read_vocab(folder / "vocab.json"), f"{folder / 'source.spm'} with vocab.json"
    engine = MarianEngine(source, target, vocab, specials, roles["unk"], name)
    end = engine.index(roles["eos"])
    return engine, {**roles, "suffix": [] if end is None else [end]}


def _byte_level(folder: Path, config: dict[str, Any]) -> tuple[RustEngine, dict[str, Any]]:
    kind = str(config.get("tokenizer_class") or "GPT2").removesuffix("Fast").removesuffix("Tokenizer")
    if kind not in _KINDS:
        raise TokenizerError(
            f"{folder}: cutaway reads vocab.json and merges.txt of {', '.join(_KINDS)}, and does not know how {kind} "
            "cuts words; put the model's tokenizer.json beside them."
        )
    vocab, merges = read_vocab(folder / "vocab.json"), []
    for number, line in enumerate(read_text(folder / "merges.txt").split("\n"), 1):
        pair = line.rstrip("\r").split(" ")
        if pair == [""] or (number == 1 and line.startswith("#version")):
            continue
        if len(pair) != 2 or any(piece not in vocab for piece in (*pair, "".join(pair))):
            raise TokenizerError(
                f"{folder / 'merges.txt'}, line {number}: {line[:60]!r} is no pair of tokens from vocab.json; "
                "fetch both files again, from the same model."
            )
        merges.append(pair)
    encoder = kind in _ENCODERS
    names = dict(zip(("bos", "eos", "cls", "sep", "unk", "pad", "mask"),
                     ("<s>", "</s>", "<s>", "</s>", "<unk>", "<pad>", "<mask>"), strict=True)) if encoder else {}  # fmt: skip
    names = {n: t for n, t in names.items() if t in vocab}
    if not encoder and "<|endoftext|>" in vocab:
        names = {"eos": "<|endoftext|>"} | ({} if kind == "Qwen2" else {"bos": "<|endoftext|>"})
    roles = names | read_roles(config, folder / "vocab.json")
    special = {t: vocab[t] for n in NAMED if (t := roles.get(n)) in vocab}
    added = added_tokens(folder, config)
    options = {"kind": _KINDS[kind], "add_prefix_space": config.get("add_prefix_space", False)}
    file = f"{folder / 'vocab.json'} with merges.txt"
    engine = RustEngine(recipes.byte_level(vocab, merges, special, **options), file)
    engine.add({token.text: token.special for _, token in sorted(added.items())})
    if encoder and "cls" in roles and "sep" in roles:
        roles["prefix"], roles["suffix"] = [engine.index(roles["cls"])], [engine.index(roles["sep"])]
    return engine, roles


def _wordpiece(folder: Path, config: dict[str, Any]) -> tuple[RustEngine, dict[str, Any]]:
    file, vocab = folder / "vocab.txt", {}
    for number, line in enumerate(read_text(file).removesuffix("\n").split("\n")):
        token = line.removesuffix("\r")
        if token in vocab:
            raise TokenizerError(f"{file}, line {number + 1}: {token!r} stands there twice; fetch the file again.")
        vocab[token] = number
    usual = {name: f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}
    roles = {name: text for name, text in usual.items() if text in vocab} | read_roles(config, file)
    for name in ("unk", "cls", "sep"):
        if roles.get(name) not in vocab:
            raise TokenizerError(f"{file} has no {usual[name]} token; is it really a BERT vocabulary?")
    special = {roles[name]: vocab[roles[name]] for name in usual if roles.get(name) in vocab}
    flags = {"lowercase": "do_lower_case", "strip_accents": "strip_accents", "chinese": "tokenize_chinese_chars"}
    options = {ours: config[theirs] for ours, theirs in flags.items() if theirs in config}
    engine = RustEngine(recipes.wordpiece(vocab, special, roles, **options), str(file))
    engine.add({token.text: token.special for _, token in sorted(added_tokens(folder, config).items())})
    roles["prefix"], roles["suffix"] = engine.around()
    return engine, roles
