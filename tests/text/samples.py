"""Texts that break tokenizers, texts to train small ones on, and helpers to make them."""

import io
import json
import random
from pathlib import Path

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog doesn't mind: 1234 times, 56.78%!",
    "def main(args):\n    if not args:\n\t\treturn None  # nothing\n    print('hello world')\n",
    "Été à la plage, naïve café, Straße, mañana, Ærøskøbing; déjà vu. L'œuvre d'été n'est pas finie.",
    "日本語のテキストと中文文本。こんにちは世界！ 안녕하세요 세계",
    "مرحبا بالعالم שלום עולם Привет, мир! Γειά σου Κόσμε नमस्ते दुनिया สวัสดีชาวโลก",
    "a aa aaa aaaa aaaaa aaaaaa banana bananas anan nanana the then there these thesis",
    "emoji 😀 😀😀 👍🏽 ❤️ and 👨‍👩‍👧‍👦 families",
] * 6

NASTY = [
    "",
    " ",
    "  ",
    "a",
    " a",
    "a ",
    "Hello world",
    " leading and trailing ",
    "   three  spaces   inside    it     ",
    " " * 300 + "x" + " " * 300,
    "\n" * 50 + "\t" * 50 + "\r\n" * 20 + "x",
    "tabs\tand\nnewlines\r\nand\x0bvertical\x0cform feeds",
    "nul \x00 and \x01\x02\x1b[0m\x7f\x80\x9f controls",
    "\x00",
    "zero\u200bwidth \u200d joiner \ufeff bom \u2060 \u00ad soft\u00a0hard\u3000wide",
    "👨‍👩‍👧‍👦👩🏽‍🚀🏳️‍🌈🇩🇪🇫🇷 family",
    "e\u0301 a\u0308\u0323 combining Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘",
    "ＦＵＬＬ ｗｉｄｔｈ ﬁ ligature ① ½ ² ™ Ⅷ",
    "日本語中文한국어漢字かな交じり文。「」、！？",
    "مرحبا بالعالم ‏שלום‏ \u202eabc\u202c",
    "İstanbul ǅ ß ẞ ς Σ",
    "don't I'll we've THEY'RE it's 'S 'quoted' ''",
    "1 12 123 1234 12345678901234567890 ١٢٣ ४५६ ²³",
    "$#@!%^&*()_+-=[]{}|;':\",./<>?`~",
    "▁ literal ▁▁ marks▁",
    "Ġ and Ċ and ## and ##ing [UNK]x",
    "<0x41> <0xE2> bytes as text",
    "supercalifragilisticexpialidocious" * 5,
    "aaaaa aa aaaaaaa" * 3,
    "\u2028line\u2029paragraph\u0085next",
    "𝕳𝖊𝖑𝖑𝖔 𐍈 𠜎 \U0010ffff \ufffd \uffff",
    "ᄒ\u1161\u11ab jamo",
    "http://example.com/a?b=c&d=e#f user@example.org C:\\path\\file.txt",
]


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Texts of characters from many blocks, with runs of spaces; no surrogates, all assigned at random."""
    draw = random.Random(seed)
    blocks = [(32, 127), (32, 33), (0, 32), (160, 600), (0x300, 0x370), (0x400, 0x700), (0x900, 0x980)]
    blocks += [(0x2000, 0x2070), (0x3040, 0x3100), (0x4E00, 0x4F00), (0xFE00, 0xFE10), (0x1F300, 0x1F650)]
    texts = []
    for _ in range(count):
        picked = [draw.choice(blocks) for _ in range(draw.randrange(1, 40))]
        texts.append("".join(chr(draw.randrange(*block)) for block in picked))
    return texts


def train_sentencepiece(kind: str, **options) -> bytes:
    import sentencepiece

    out = io.BytesIO()
    lines = [line for text in CORPUS for line in text.split("\n")]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=out,
        model_type=kind,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return out.getvalue()


def write(folder: Path, files: dict) -> Path:
    """Puts files into a new folder; what is not bytes or text is written as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / name).write_text(text, encoding="utf-8")
    return folder
