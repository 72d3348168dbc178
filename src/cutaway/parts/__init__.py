"""The parts every architecture is composed of. Each is a file of its own; import what you need from `cutaway.parts`."""

from cutaway.parts.attention import Attention
from cutaway.parts.axial import AxialPositions
from cutaway.parts.clip import Clip
from cutaway.parts.context import Context
from cutaway.parts.convolution import CausalConvolution
from cutaway.parts.dropout import Dropout
from cutaway.parts.embedding import Embedding, Segments
from cutaway.parts.feedforward import ACTIVATIONS, FeedForward, Gated, activation
from cutaway.parts.head import (
    DetectionHead,
    EmbeddingHead,
    LanguageHead,
    MaskedTransform,
    SequenceHead,
    TokenHead,
    choose_head,
    decoder_head,
    encoder_head,
)
from cutaway.parts.linear_attention import EluPlusOne, LinearAttention
from cutaway.parts.lowrank import Along, LowRankAttention
from cutaway.parts.lsh import LSHAttention
from cutaway.parts.mamba import Mamba
from cutaway.parts.mamba2 import GatedNorm, Mamba2
from cutaway.parts.model import EncoderDecoder, Model, Stack, initialise
from cutaway.parts.norm import LayerNorm, RMSNorm, StdNorm
from cutaway.parts.performer import Favor, PerformerAttention
from cutaway.parts.pool import First, Last, Mean, Pooler
from cutaway.parts.position import LearnedPositions, Positions, SinusoidalPositions
from cutaway.parts.relative import ALiBi, T5Bias
from cutaway.parts.residual import Block, Narrow, Parallel, PostNorm, PreNorm, Sandwich, Wide
from cutaway.parts.reversible import Branch, ReversibleBlock, ReversibleStack
from cutaway.parts.rotary import Rotary
from cutaway.parts.state import Cells, State
from cutaway.parts.swap import MakeFeedForward, MakeMixer, MakeNorm, MakePosition
from cutaway.parts.synthesizer import Synthesizer

__all__ = [
    "ACTIVATIONS",
    "ALiBi",
    "Along",
    "Attention",
    "AxialPositions",
    "Block",
    "Branch",
    "CausalConvolution",
    "Cells",
    "Clip",
    "Context",
    "DetectionHead",
    "Dropout",
    "EluPlusOne",
    "Embedding",
    "EmbeddingHead",
    "EncoderDecoder",
    "Favor",
    "FeedForward",
    "First",
    "Gated",
    "GatedNorm",
    "LSHAttention",
    "LanguageHead",
    "Last",
    "LayerNorm",
    "LearnedPositions",
    "LinearAttention",
    "LowRankAttention",
    "MakeFeedForward",
    "MakeMixer",
    "MakeNorm",
    "MakePosition",
    "Mamba",
    "Mamba2",
    "MaskedTransform",
    "Mean",
    "Model",
    "Narrow",
    "Parallel",
    "PerformerAttention",
    "Pooler",
    "Positions",
    "PostNorm",
    "PreNorm",
    "RMSNorm",
    "ReversibleBlock",
    "ReversibleStack",
    "Rotary",
    "Sandwich",
    "Segments",
    "SequenceHead",
    "SinusoidalPositions",
    "Stack",
    "State",
    "StdNorm",
    "Synthesizer",
    "T5Bias",
    "TokenHead",
    "Wide",
    "activation",
    "choose_head",
    "decoder_head",
    "encoder_head",
    "initialise",
]
