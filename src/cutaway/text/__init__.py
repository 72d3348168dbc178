"""Text to ids and back: tokenizers of every common format, streaming, and chat templates in a sandbox."""

from cutaway.text.files import from_directory
from cutaway.text.gguf import from_gguf
from cutaway.text.tokenizer import Tokenizer

__all__ = ["Tokenizer", "from_directory", "from_gguf"]
