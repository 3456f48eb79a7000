"""AdamW of whole tensors, beside torch's own optimizer."""

import torch

from babelscope.subnetworks.fused_adamw import adamw_step


def test_steps_equal_torchs_optimizer_in_float64_with_scaled_gradients():
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (3, 4), "b": (5,)}
    values = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    witness = {name: value.double().requires_grad_() for name, value in values.items()}
    optimizer = torch.optim.AdamW(
        witness.values(), lr=0.01, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.0, foreach=False
    )
    moments = {f"{kind}/{name}": torch.zeros_like(values[name]) for name in values for kind in ("first", "second")}
    moments |= {f"steps/{name}": torch.zeros(()) for name in values}
    for _ in range(3):
        grads = [torch.randn(shape, generator=generator) for shape in shapes.values()]
        for value, grad in zip(witness.values(), grads, strict=True):
            value.grad = grad.double() * 0.5
        optimizer.step()
        adamw_step(values, grads, moments, learning_rate=0.01, grad_scale=0.5, betas=(0.8, 0.9), epsilon=1e-6)
    for name, value in values.items():
        assert torch.allclose(value.double(), witness[name].detach(), rtol=0, atol=1e-6)
        assert moments[f"steps/{name}"] == 3
