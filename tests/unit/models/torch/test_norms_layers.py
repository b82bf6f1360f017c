"""Norms layer by layer, over sizes and options: those of each row alone."""

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'torch'")

from hypothesis import given, settings  # noqa: E402 - what needs PyTorch comes after the look for it.
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from distsgd.models.torch.norms import embedding, linear  # noqa: E402
from tests.unit.models.torch.norm_oracles import (  # noqa: E402
    alone,
    ids,
    numbers,
    observed,
    seeded,
)

rows, sizes, times = st.integers(1, 4), st.integers(1, 9), st.integers(1, 12)
few = settings(max_examples=25, deadline=None)


def check(layer: nn.Module, x: Tensor) -> None:
    torch.testing.assert_close(observed(layer, x), alone(layer, x), rtol=1e-6, atol=0)


@few
@given(
    num_rows=rows,
    axes=st.lists(st.integers(1, 5), max_size=2),
    num_in=sizes,
    num_out=sizes,
    has_bias=st.booleans(),
)
def test_norms_of_linear_over_any_axes(
    *, num_rows: int, axes: list[int], num_in: int, num_out: int, has_bias: bool
) -> None:
    layer = seeded(lambda: nn.Linear(num_in, num_out, bias=has_bias))
    check(layer, numbers(num_rows, *axes, num_in))


@few
@given(
    num_rows=rows,
    num_times=times,
    num_ids=st.integers(2, 9),
    size=sizes,
    has_padding=st.booleans(),
)
def test_norms_of_embedding_with_ids_that_occur_again(
    *, num_rows: int, num_times: int, num_ids: int, size: int, has_padding: bool
) -> None:
    layer = seeded(lambda: nn.Embedding(num_ids, size, padding_idx=1 if has_padding else None))
    check(layer, ids(num_rows, num_times, below=num_ids))


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 2, 4)])
@pytest.mark.parametrize("num_ids", [2, 500])
def test_norms_of_embedding_both_ways(shape: tuple[int, ...], num_ids: int) -> None:
    check(seeded(lambda: nn.Embedding(num_ids, 3)), ids(*shape, below=2))


@few
@given(rows, st.lists(st.integers(1, 5), max_size=2), st.lists(sizes, min_size=1, max_size=2))
def test_norms_of_layer_and_rms_norm_over_time(
    num_rows: int, axes: list[int], shape: list[int]
) -> None:
    x = numbers(num_rows, *axes, *shape)
    check(seeded(lambda: nn.LayerNorm(shape)), x)
    check(seeded(lambda: nn.RMSNorm(shape)), x)


@few
@given(rows, st.integers(1, 3), st.integers(1, 3), st.lists(st.integers(2, 5), max_size=2))
def test_norms_of_group_norm_over_places(
    num_rows: int, num_groups: int, size: int, places: list[int]
) -> None:
    layer = seeded(lambda: nn.GroupNorm(num_groups, num_groups * size))
    check(layer, numbers(num_rows, num_groups * size, *places, 3))


@few
@given(
    rows=rows,
    num_axes=st.integers(1, 3),
    groups=st.integers(1, 2),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    mode=st.sampled_from(["zeros", "circular", "reflect", "replicate"]),
    has_bias=st.booleans(),
)
def test_norms_of_convolutions_with_any_options(
    *,
    rows: int,
    num_axes: int,
    groups: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    mode: str,
    has_bias: bool,
) -> None:
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[num_axes - 1]
    layer = seeded(
        lambda: kind(
            2 * groups,
            3 * groups,
            kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            padding_mode=mode,
            bias=has_bias,
        )
    )
    check(layer, numbers(rows, 2 * groups, *(5, 6, 5)[:num_axes]))


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (lambda: nn.PReLU(3), numbers(4, 3, 5)),
        (lambda: nn.Bilinear(3, 3, 2), numbers(4, 3)),
        (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2), numbers(4, 2, 5, 5)),
        (lambda: nn.InstanceNorm1d(3, affine=True), numbers(4, 3, 5)),
        (lambda: nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True), numbers(4, 5, 6)),
    ],
    ids=["prelu", "bilinear", "transposed", "instance norm", "encoder layer"],
)
def test_norms_of_layers_without_a_rule(layer: type[nn.Module], x: Tensor) -> None:
    made = seeded(layer)
    if isinstance(made, nn.Bilinear):
        made = _Squared(made)
    check(made, x)


def test_norms_of_a_layer_with_a_hook_of_its_own() -> None:
    layer = seeded(lambda: nn.Linear(3, 2))
    layer.register_forward_pre_hook(lambda _, args: (args[0].square(),))
    layer.register_forward_hook(lambda _, __, output: output * 3)
    check(layer, numbers(4, 3))


def test_product_squares_are_the_same_by_gram_and_by_forming() -> None:
    for shape in ((2, 40), (40, 2)):
        num_times, size = shape
        x, d = numbers(3, num_times, size), numbers(3, num_times, size + 1)
        formed = torch.einsum("nto,nti->noi", d, x).square().sum((1, 2))
        torch.testing.assert_close(linear.product_squares(x, d), formed, rtol=1e-12, atol=0)


def test_embedding_gradients_add_where_an_id_occurs_again() -> None:
    layer = nn.Embedding(3, 1)
    found = embedding.gradients(layer, torch.tensor([[2, 0, 2]]), torch.tensor([[[1.0], [2], [4]]]))
    assert found["weight"].tolist() == [[[2.0], [0.0], [5.0]]]


class _Squared(nn.Module):  # type: ignore[misc]
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(x, x.sin())
        return found
