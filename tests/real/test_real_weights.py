"""Two real models against the reference: SmolLM2-135M-Instruct word by word, all-MiniLM-L6-v2 number by number."""

import pytest
import torch
from transformers import LlamaForCausalLM

import cutaway

PROMPTS = [
    "What is the capital of France?",
    "Explain why the sky is blue to a child.",
    "Write a haiku about rain.",
    "List three uses of a paper clip.",
    "Translate 'good morning' into Spanish.",
    "What is 17 times 23?",
    "Give me a recipe for pancakes.",
    "Who wrote Hamlet, and when?",
    "def fibonacci(n):",
    "Summarise the theory of evolution in two sentences.",
    "What should I pack for a week in Iceland in March?",
    "Is a tomato a fruit or a vegetable?",
    "Tell me a short story about a lighthouse keeper.",
    "How does a bicycle stay upright?",
    "Naïve café déjà-vu — 日本語 🙂",
    "Name the planets of the solar system.",
    "Write an email asking for a day off.",
    "What is the difference between a virus and a bacterium?",
    "Why do cats purr?",
    "Give five words that rhyme with 'light'.",
]


@pytest.fixture(scope="module")
def pair(smollm2, tmp_path_factory):
    """Our model, and the reference's loaded from the folder we wrote: the same dequantised weights."""
    loaded = cutaway.load(smollm2)
    folder = tmp_path_factory.mktemp("smollm2") / "hf"
    cutaway.convert(smollm2, folder)
    return loaded, LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def same_greedy_tokens(pair, prompt, count):
    loaded, theirs = pair
    ids = loaded.tokenizer.encode_chat([{"role": "user", "content": prompt}])
    # with an end token left in its settings the reference would forbid it instead of going on past it
    theirs.generation_config.eos_token_id, theirs.generation_config.pad_token_id = None, 2
    prompt_ids = torch.tensor(
        [ids]
    )  # its mask is given, or the end of each turn, which is also its padding, would be hidden
    mask = torch.ones_like(prompt_ids)
    expected = theirs.generate(prompt_ids, attention_mask=mask, max_new_tokens=count, do_sample=False)[0, len(ids) :]
    found = cutaway.generate(loaded.model, ids, max_new_tokens=count, temperature=0.0, eos=())
    assert found.ids[0] == expected.tolist()


@pytest.mark.parametrize("prompt", PROMPTS[:2])
def test_smollm2_says_the_same(pair, prompt):
    same_greedy_tokens(pair, prompt, 12)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_smollm2_says_the_same_on_twenty_prompts(pair):
    for prompt in PROMPTS:
        same_greedy_tokens(pair, prompt, 64)


def test_smollm2_logits(pair):
    loaded, theirs = pair
    ids = torch.tensor([loaded.tokenizer.encode("The quick brown fox jumps over the lazy dog. " * 4)])
    with torch.no_grad():
        ours, reference = loaded.model(ids), theirs(ids).logits
    assert (ours - reference).abs().max() / reference.abs().max() <= 1e-5


def test_minilm_embeddings(minilm):
    """Against the library that published the model, in one batch of very unequal lengths, an empty text too."""
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(minilm), device="cpu")
    loaded = cutaway.load(minilm)
    texts = [*PROMPTS, "", "word " * 100]
    ids, padding = loaded.tokenizer.encode_batch(texts)
    with torch.no_grad():
        states = loaded.model(ids, padding)
    expected = torch.tensor(reference.encode(texts, normalize_embeddings=True))
    assert states.shape == expected.shape
    assert (states - expected).abs().max() <= 1e-6
