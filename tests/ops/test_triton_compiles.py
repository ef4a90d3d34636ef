"""The Triton kernels compile for GPUs, which the interpreter does not show and takes no GPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from farvox.ops.sparse_sample import triton as kernels

pytest.importorskip("triton")


class _Compiled:
    """A kernel that a launch compiles, for the GPU given, from the very arguments, and does not start."""

    def __init__(self, kernel: Any, capability: int) -> None:
        self.kernel, self.capability = kernel, capability

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return self.compile

    def compile(self, *arguments: Any, **options: Any) -> None:
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        launch = {name: options.pop(name) for name in kernels._LAUNCH}
        values = dict(zip(self.kernel.arg_names, arguments, strict=False)) | options
        assert values.keys() == set(self.kernel.arg_names)
        signature, constants, attributes = {}, {}, {}
        for index, name in enumerate(self.kernel.arg_names):
            value = values[name]
            if isinstance(value, torch.Tensor):
                kinds = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
                signature[name] = kinds[value.dtype]
            elif name in options or value == 1:  # Triton compiles ones in
                signature[name], constants[(index,)] = "constexpr", value
            else:
                signature[name] = "i32" if value < 1 << 31 else "i64"
            if name not in options and (isinstance(value, torch.Tensor) or value % 16 == 0):
                attributes[(index,)] = [["tt.divisibility", 16]]
        source = ASTSource(self.kernel, signature, constants, attributes)
        compiled = triton.compile(source, target=GPUTarget("cuda", self.capability, 32), options=launch)
        # What is read stays in registers: shared memory holds the operands of one product, at most.
        assert compiled.asm["cubin"]
        assert compiled.metadata.shared <= 32 * 1024


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter does not compile")
@pytest.mark.parametrize(
    ("capability", "sizes", "dtype", "count", "pairs", "outputs", "groups"),
    [
        (90, (1, 8, 144, 144, 144), torch.float32, 128, False, 64, 1),
        (90, (1, 1, 312, 230, 320), torch.bfloat16, 1024, True, 256, 4),
        (80, (1, 1, 1, 1), torch.float16, 1, False, 1, 1),
        (90, (1, 2, 1, 2048, 1 << 20), torch.float32, 7, False, 200, 1),
    ],
    ids=["hybrid", "pairs", "ones", "wide"],
)
def test_kernels_compile(
    capability: int,
    sizes: tuple[int, ...],
    dtype: torch.dtype,
    count: int,
    pairs: bool,
    outputs: int,
    groups: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = kernels._kernels()
    for name in ("sample_kernel", "conv_kernel", "backward_kernel"):
        monkeypatch.setattr(loaded, name, _Compiled(getattr(loaded, name), capability))
    dims, places = len(sizes) - 2, 1 if count == 1 else 1000
    image = torch.empty(sizes, dtype=dtype, device="meta")
    offsets = torch.empty((count, 2, dims) if pairs else (count, dims), device="meta")
    weight = torch.empty(outputs, sizes[1] * count // groups, dtype=dtype, device="meta")
    positions = torch.empty(1, places, dims, device="meta")
    grad = torch.empty(1, outputs, places, dtype=dtype, device="meta")
    kernels.conv(image, offsets, weight, positions, False, groups)
    kernels.conv_backward(grad, image, offsets, weight, positions, False, groups, (True, True, True))
    if dims == 2 or pairs:
        kernels.sample(image, offsets, positions, True)
        grad = torch.empty(1, sizes[1], count, places, dtype=dtype, device="meta")
        kernels.sample_backward(grad, image, offsets, positions, True, (True, True))
