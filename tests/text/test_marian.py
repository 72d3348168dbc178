"""Marian's tokenizers, and those of BART and mBART, against the reference, which trains on the same small corpus."""

import json
import warnings

import pytest
import sentencepiece
from tests.text.samples import CORPUS, NASTY, random_texts, train_sentencepiece, write

from cutaway import text
from cutaway.errors import TokenizerError

TEXTS = NASTY + random_texts(200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sets of pieces that overlap, numbered by a vocabulary in an order of its own."""
    options = {"pad_id": -1, "bos_id": -1, "eos_id": 0, "unk_id": 1, "character_coverage": 0.98}
    source, target = (train_sentencepiece("unigram", vocab_size=size, **options) for size in (300, 380))
    pieces = set()
    for model in (source, target):
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        pieces |= {processor.id_to_piece(i) for i in range(2, processor.get_piece_size())}
    pieces = sorted(pieces, key=lambda piece: (len(piece), piece))[:-20]  # the last are known to nobody
    vocab = {"</s>": 0, "<unk>": 1, ">>fr<<": 2, **{piece: i + 3 for i, piece in enumerate(pieces)}}
    vocab["<pad>"] = len(vocab)
    config = {"tokenizer_class": "MarianTokenizer", "model_max_length": 512, "source_lang": "en", "target_lang": "fr"}
    files = {"source.spm": source, "target.spm": target, "tokenizer_config.json": config}
    return write(tmp_path_factory.mktemp("marian"), {**files, "vocab.json": json.dumps(vocab).encode()})


def reference(folder):
    from transformers import AutoTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = AutoTokenizer.from_pretrained(folder)
    assert type(found).__name__ == "MarianTokenizer"
    found.punc_normalizer = lambda x: x  # Moses', where it is installed
    return found


def test_ids_and_texts_equal_the_reference(folder):
    ours, theirs = text.from_directory(folder), reference(folder)
    texts = [*TEXTS, ">>fr<< Hello world", ">>de<< Hello", "the dog</s>the dog", "a<pad>b <unk> c", "the >>fr<< dog"]
    assert [t for t in texts if ours.encode(t) != theirs.encode(t)] == []
    ids = [ours.encode(t) for t in texts]
    assert [i for i in ids if ours.decode(i).strip() != theirs.decode(i, skip_special_tokens=True)] == []
    assert 1 in ours.encode("supercalifragilisticexpialidocious 𠜎")
    assert (ours.vocab_size, ours.eos_ids, ours.pad_id, ours.bos_id) == (len(theirs), {0}, ours.vocab_size - 1, None)
    assert ours.encode("the</s>", parse_special=False).count(0) == 1


def test_saved_it_is_the_same_here_and_there(folder, tmp_path):
    ours = text.from_directory(folder)
    ours.save(tmp_path)
    again, theirs = text.from_directory(tmp_path), reference(tmp_path)
    assert [t for t in TEXTS if not ours.encode(t) == again.encode(t) == theirs.encode(t)] == []


def test_broken(folder, tmp_path):
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    for name, data in (("source.spm", b"x"), ("vocab.json", b'{"</s>": 0, "a": 1}'), ("vocab.json", b"{")):
        with pytest.raises(TokenizerError, match=name):
            text.from_directory(write(tmp_path / name, {**files, name: data}))
    del files["target.spm"]
    with pytest.raises(TokenizerError, match=r"target\.spm"):
        text.from_directory(write(tmp_path / "without", files))
    apart = {**json.loads(files["tokenizer_config.json"]), "separate_vocabs": True}
    with pytest.raises(TokenizerError, match="vocabularies of their own"):
        text.from_directory(write(tmp_path / "apart", {**files, "tokenizer_config.json": apart}))


def test_barts_files(tmp_path):
    """Byte-level pairs, texts between <s> and </s>; from `vocab.json` and `merges.txt`, and from `tokenizer.json`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import BartTokenizer

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet)
    )
    trained.model.save(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BartTokenizer"}')
    theirs = BartTokenizer.from_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path / "json")
    for folder in (tmp_path, tmp_path / "json"):
        ours = text.from_directory(folder)
        assert [t for t in TEXTS if ours.encode(t) != theirs.encode(t)] == []
        assert (ours.bos_id, ours.pad_id, ours.eos_ids) == (0, 1, {2})


def test_mbarts_languages(tmp_path):
    """The language is a control token beside the text, as the file's template says."""
    from transformers import MBart50Tokenizer

    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    pieces += [(piece, -4.0 - len(piece)) for piece in ("▁the", "▁dog", "d", "o", "g", "t", "h", "e")]
    theirs = MBart50Tokenizer(vocab=pieces, src_lang="en_XX", tgt_lang="ro_RO")
    theirs.save_pretrained(tmp_path)
    ours = text.from_directory(tmp_path)
    for given in ("the dog", "dogged ro_RO the", ""):
        assert ours.encode(given) == theirs.encode(given)
        assert ours.decode(ours.encode(given)) == theirs.decode(theirs.encode(given), skip_special_tokens=True)
    assert ours.tokens(ours.encode("the dog"))[0] == "en_XX"
