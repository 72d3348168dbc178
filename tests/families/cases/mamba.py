"""Mamba against the reference."""

import torch
import transformers as hf
from tests.families.case import Case
from tests.families.mutants import RMS_EPSILON, each, setting
from torch import nn

from cutaway.parts import CausalConvolution, Mamba

TINY = {
    "vocab_size": 99,
    "hidden_size": 32,
    "state_size": 5,
    "num_hidden_layers": 3,
    "time_step_rank": 3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS = {"Mamba": (hf.MambaConfig, TINY)}
TOLD_POSITIONS = False  # it has none
CASES = [
    Case("mamba", "as published", "MambaForCausalLM"),
    Case("mamba", "untied", "MambaForCausalLM", {"tie_word_embeddings": False}),
    # with a bias the reference's padding is not zero any more where the convolution sees it
    Case("mamba", "biases", "MambaForCausalLM", {"use_bias": True, "use_conv_bias": False}, False),
    Case("mamba", "wide kernel, expanded thrice, gelu", "MambaForCausalLM",
         {"conv_kernel": 6, "expand": 3, "hidden_act": "gelu", "time_step_rank": "auto"}),
    Case("mamba", "narrow residual, loose epsilon", "MambaForCausalLM",
         {"residual_in_fp32": False, "layer_norm_epsilon": 1e-4}),
    Case("mamba", "body alone", "MambaModel"),
]  # fmt: skip


@torch.no_grad()
def reference(case: Case) -> nn.Module:
    """As for the others, with steps so large that states forget and scans so strong that they are heard."""
    make, tiny = CONFIGS["Mamba"]
    model = getattr(hf, case.model)(make(**{**tiny, **case.config})).eval()
    for name, p in model.named_parameters():
        if name.endswith(("embeddings.weight", "lm_head.weight")):
            p.normal_(std=0.3)
        elif name.endswith(("x_proj.weight", "dt_proj.weight", "conv1d.weight")):
            p.normal_(std=0.5)
        elif name.endswith("out_proj.weight"):
            p.normal_(std=0.2)  # larger, and each layer makes the rounding of those before it several times larger
        elif p.ndim == 1 or name.endswith("A_log"):
            p.add_(torch.randn_like(p) * 0.3)
    return model


def _forget(mixer: Mamba) -> None:
    mixer.A_log.data[:, 0] += 0.01


MUTANTS = {
    "rms norm epsilon": RMS_EPSILON,
    "a rate 1% off": each(Mamba, _forget),
    "no skip": each(Mamba, lambda mixer: mixer.D.data.zero_()),
    "steps without their bias": each(Mamba, lambda mixer: mixer.step_bias.data.zero_()),
    "convolution looks back one token further": each(
        CausalConvolution, lambda c: setattr(c.weight, "data", c.weight.roll(-1, 2))
    ),
    "convolution mirrored": each(CausalConvolution, lambda c: setattr(c.weight, "data", c.weight.flip(2))),
    "gate and value exchanged": each(Mamba, lambda m: m.__dict__["_modules"].update(value=m.gate, gate=m.value)),
    "another activation": each(Mamba, setting("act", lambda act: torch.tanh)),
}
