"""A conversation that keeps what it has read says what one that reads everything again says."""

import pytest
from tests.generation.models import pair, prompts

from cutaway.generation import Past, stream


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 1.5, "seed": 4, "repetition_penalty": 1.2}], ids=["greedy", "sampled"]
)
@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2"])
def test_turns_read_only_what_is_new(name, settings):
    """The room of the first turn lasts for two; then everything is read once more, into a larger state."""
    _, ours = pair(name)
    fed = []
    hook = ours.register_forward_pre_hook(lambda _, args: fed.append(args[0].shape[1]))
    past, said, read = Past(), [], 0
    for turn, line in enumerate(prompts(40, (9, 3, 4, 4))):
        said += line
        expected = list(stream(ours, said, max_new_tokens=5, **settings))
        assert fed == [len(said), 1, 1, 1, 1]
        fed.clear()
        assert list(stream(ours, said, max_new_tokens=5, past=past, **settings)) == expected
        assert fed == [len(said) if turn == 2 else len(said) - read, 1, 1, 1, 1]
        fed.clear()
        said += expected
        read = len(said) - 1  # the last new token was not fed
    hook.remove()


def test_what_was_rewritten_is_read_anew():
    _, ours = pair("gpt2")
    first, other = prompts(41, (9, 12))
    past = Past()
    for prompt in (first, other, other[:4], [*other[:4], 7], first, first):
        expected = list(stream(ours, prompt, max_new_tokens=5))
        assert list(stream(ours, prompt, max_new_tokens=5, past=past)) == expected


def test_nothing_is_built_upon_an_interrupted_forward():
    _, ours = pair("gpt2")
    prompt = prompts(42, (9,))[0]
    past = Past()
    running = stream(ours, prompt, max_new_tokens=9, past=past)
    said = [next(running), next(running)]

    def interrupt(*_):
        raise KeyboardInterrupt

    hook = ours.stack.blocks[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(running)
    hook.remove()
    longer = [*prompt, *said, 5, 6]
    expected = list(stream(ours, longer, max_new_tokens=5))
    assert list(stream(ours, longer, max_new_tokens=5, past=past)) == expected


def test_an_encoder_decoder_reads_its_source_anew():
    _, ours = pair("t5")
    past = Past()
    for source in prompts(43, (6, 6)):
        expected = list(stream(ours, source, max_new_tokens=5))
        assert list(stream(ours, source, max_new_tokens=5, past=past)) == expected
