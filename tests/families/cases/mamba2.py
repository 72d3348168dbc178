"""Mamba-2 against the reference."""

import torch
import transformers as hf
from tests.families.case import Case
from tests.families.mutants import RMS_EPSILON, each, setting
from torch import nn

from cutaway.parts import CausalConvolution, GatedNorm, Mamba2

TINY = {
    "vocab_size": 99,
    "hidden_size": 32,
    "state_size": 5,
    "num_hidden_layers": 3,
    "num_heads": 8,
    "head_dim": 8,
    "n_groups": 2,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS = {"Mamba2": (hf.Mamba2Config, TINY)}
TOLD_POSITIONS = False  # it has none
CASES = [
    Case("mamba2", "two groups", "Mamba2ForCausalLM"),
    Case("mamba2", "one group, short chunks", "Mamba2ForCausalLM", {"n_groups": 1, "chunk_size": 4}),
    Case("mamba2", "untied, as Codestral", "Mamba2ForCausalLM", {"tie_word_embeddings": False, "n_groups": 8}),
    # with a bias the reference's padding is not zero any more where the convolution sees it
    Case("mamba2", "biases", "Mamba2ForCausalLM", {"use_bias": True, "use_conv_bias": False}, False),
    Case("mamba2", "limited steps", "Mamba2ForCausalLM", {"time_step_limit": (0.1, 0.6)}),
    Case("mamba2", "wide kernel, expanded thrice, gelu", "Mamba2ForCausalLM",
         {"conv_kernel": 6, "expand": 3, "num_heads": 12, "hidden_act": "gelu"}),
    Case("mamba2", "narrow residual, loose epsilon", "Mamba2ForCausalLM",
         {"residual_in_fp32": False, "layer_norm_epsilon": 1e-4}),
    Case("mamba2", "body alone", "Mamba2Model"),
]  # fmt: skip


@torch.no_grad()
def reference(case: Case) -> nn.Module:
    """As for the others, with steps so large that states forget and scans so strong that they are heard."""
    make, tiny = CONFIGS["Mamba2"]
    model = getattr(hf, case.model)(make(**{**tiny, **case.config})).eval()
    for name, p in model.named_parameters():
        if name.endswith(("embeddings.weight", "lm_head.weight")):
            p.normal_(std=0.3)
        elif name.endswith("conv1d.weight"):
            p.normal_(std=0.5)
        elif name.endswith(("in_proj.weight", "out_proj.weight")):
            p.normal_(std=0.2)  # larger, and each layer makes the rounding of those before it several times larger
        elif name.endswith("A_log"):
            p.normal_()
        elif p.ndim == 1:
            p.add_(torch.randn_like(p) * 0.3)
    return model


def _forget(mixer: Mamba2) -> None:
    mixer.A_log.data[0] += 0.01


def _ungrouped(norm: GatedNorm) -> None:
    norm.groups = 1


MUTANTS = {
    "rms norm epsilon": RMS_EPSILON,
    "gated norm epsilon": each(GatedNorm, setting("eps", lambda eps: eps + 1e-4)),
    "gated norm over all channels": each(GatedNorm, _ungrouped),
    "a rate 1% off": each(Mamba2, _forget),
    "no skip": each(Mamba2, lambda mixer: mixer.D.data.zero_()),
    "steps without their bias": each(Mamba2, lambda mixer: mixer.step_bias.data.zero_()),
    "steps limited": each(Mamba2, setting("limits", lambda limits: (None, 0.6))),
    "convolution looks back one token further": each(
        CausalConvolution, lambda c: setattr(c.weight, "data", c.weight.roll(-1, 2))
    ),
    "another activation": each(Mamba2, setting("act", lambda act: torch.tanh)),
}
