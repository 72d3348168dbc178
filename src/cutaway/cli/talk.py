"""`cutaway generate` and `cutaway chat`: let a model speak."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from cutaway.cli.output import Adapter, Dtype, Json, Source, busy, emit, opened, standard_input
from cutaway.cli.usage import OptionalFloat, OptionalInt
from cutaway.errors import CutawayError

if TYPE_CHECKING:
    from cutaway.generation import Stream

Flag = Annotated[bool, arg(help_behavior_hint="")]
System = Annotated[str | None, arg(metavar="TEXT", help="What the model is told to be.", help_behavior_hint="")]


def generate(
    source: Source,
    prompt: Annotated[str, Positional, arg(metavar="PROMPT", help="What to say; - reads standard input.")],
    *,
    chat: Flag = False,
    raw: Flag = False,
    system: System = None,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    top_k: OptionalInt = None,
    top_p: OptionalFloat = None,
    min_p: OptionalFloat = None,
    repetition_penalty: float = 1.0,
    beams: int = 1,
    stop: Annotated[tuple[str, ...], UseAppendAction, arg(metavar="TEXT", help_behavior_hint="")] = (),
    seed: OptionalInt = None,
    dtype: Dtype = None,
    adapter: Adapter = None,
    json: Json = False,
) -> None:
    """Let a model answer a prompt, word by word as it comes.

    Examples:
        cutaway generate smollm2 "Why is the sky blue?"
        cutaway generate smollm2 "Once upon a time" --raw --temperature 0.8 --top-p 0.95 --seed 1
        cutaway generate ./my-model - < prompt.txt

    With --json: {"text", "tokens" (the new ids), "tokens_per_second"}.

    Args:
        chat: Through the model's chat template, as happens where it has one.
        raw: As it stands, to be continued.
        max_new_tokens: Stop after so many tokens.
        temperature: 0 always takes the likeliest token; 1 draws as the model says.
        top_k: Draw only from the likeliest K tokens.
        top_p: Draw only from the likeliest tokens that together have probability P.
        min_p: Draw only from tokens at least P times as likely as the likeliest.
        repetition_penalty: Above 1 makes tokens that were there before less likely.
        beams: Search with so many beams instead of drawing (nothing is shown until the end).
        stop: A text that ends the answer (may be given several times).
        seed: Draw the same again.
    """
    from cutaway import generation

    loaded = opened(source, dtype, adapter)
    ids = _prompt_ids(loaded, standard_input() if prompt == "-" else prompt, system, chat, raw)
    settings: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "stop": stop,
        "seed": seed,
    }
    if json or beams != 1:
        with busy("generating"):
            result = generation.generate(loaded, [ids], beams=beams, **settings)
        assert result.texts is not None
        text = result.texts[0]
        if json:
            emit({"text": text, "tokens": result.ids[0], "tokens_per_second": result.tokens_per_second})
        else:
            print(text)
        return
    say(generation.stream(loaded, [ids], **settings))


def say(pieces: Stream) -> str:
    """Print an answer as it comes; returns it."""
    said = []
    for piece in pieces:
        said.append(str(piece))
        print(piece, end="", flush=True)
    print()
    return "".join(said)


def chat(
    source: Source,
    *,
    system: System = None,
    max_new_tokens: int = 512,
    temperature: float = 0.7,
    top_k: OptionalInt = None,
    top_p: OptionalFloat = 0.95,
    min_p: OptionalFloat = None,
    repetition_penalty: float = 1.0,
    seed: OptionalInt = None,
    dtype: Dtype = None,
    adapter: Adapter = None,
) -> None:
    """Talk with a model. It remembers the conversation; /help says what else you can type.

    Example:
        cutaway chat smollm2

    Args:
        max_new_tokens: The longest answer.
        temperature: 0 always takes the likeliest token; 1 draws as the model says.
        top_k: Draw only from the likeliest K tokens.
        top_p: Draw only from the likeliest tokens that together have probability P.
        min_p: Draw only from tokens at least P times as likely as the likeliest.
        repetition_penalty: Above 1 makes tokens that were there before less likely.
        seed: Draw the same again.
    """
    from cutaway.cli.conversation import Conversation

    loaded = opened(source, dtype, adapter)
    settings: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
    _check_speaks(loaded)
    if loaded.tokenizer is None or not loaded.tokenizer.chat_template:
        raise CutawayError("this model has no chat template; `cutaway generate SOURCE PROMPT --raw` continues a text")
    Conversation(loaded, system, settings).run()


def _prompt_ids(loaded: Any, prompt: str, system: str | None, chat: bool, raw: bool) -> list[int]:
    """The prompt in the form asked for; by default through the chat template where there is one."""
    if chat and raw:
        raise CutawayError("--chat and --raw exclude each other; leave one out")
    _check_speaks(loaded)
    has_template = bool(loaded.tokenizer.chat_template)
    if chat and not has_template:
        raise CutawayError("this model has no chat template; --raw continues the prompt as it stands")
    if system is not None and (raw or not has_template):
        raise CutawayError("--system needs a chat template, so it goes with a chat model and without --raw")
    if raw or not has_template:
        return loaded.tokenizer.encode(prompt)
    said = [{"role": "user", "content": prompt}]
    return loaded.tokenizer.encode_chat([{"role": "system", "content": system}, *said] if system else said)


def _check_speaks(loaded: Any) -> None:
    from cutaway.generation.subject import writes

    if not writes(loaded.model):
        raise CutawayError(f"a {loaded.family} model such as this reads and does not write; try `cutaway embed`")
    if loaded.tokenizer is None:
        raise CutawayError("this source has no tokenizer, so there is nothing to read a prompt with")
