"""Small instances of the common families, in plain torch: what the reader, the writer and the groups must handle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelmend.model.architectures import ARCHITECTURES


def _bn(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = nn.ReLU
):
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if act is not None:
        layers.append(act(inplace=True) if act in (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish) else act())
    return nn.Sequential(*layers)


class Bottleneck(nn.Module):
    """torchvision's ResNet-50 block, in-place as there (also ResNeXt and RegNet's ``block1-0`` names through `SE`)."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int, groups: int = 1, se: bool = False) -> None:
        super().__init__()
        self.a, self.b = _bn(inputs, width, 1), _bn(width, width, 3, stride, groups)
        self.se = SqueezeExcite(width, 4, nn.Sigmoid) if se else nn.Identity()
        self.c = _bn(width, outputs, 1, act=None)
        self.downsample = _bn(inputs, outputs, 1, stride, act=None) if stride != 1 or inputs != outputs else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.c(self.se(self.b(self.a(x))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, squeeze: int, gate: type[nn.Module], act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, squeeze, 1), nn.Conv2d(squeeze, channels, 1)
        self.act, self.gate = act(), gate()

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.fc2(self.act(self.fc1(self.avgpool(x))))) * x


class Pooled(nn.Module):
    """Features, global average, flatten, linear."""

    def __init__(self, features: nn.Module, channels: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.features, self.avgpool = features, nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Sequential(nn.Dropout(dropout, inplace=dropout > 0), nn.Linear(channels, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def resnet_bottleneck() -> nn.Module:
    stem = nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
    )
    return Pooled(
        nn.Sequential(stem, Bottleneck(8, 4, 16, 1), Bottleneck(16, 4, 16, 1), Bottleneck(16, 8, 32, 2)), 32, 5
    )


def resnext() -> nn.Module:
    return Pooled(
        nn.Sequential(_bn(3, 8), Bottleneck(8, 8, 16, 1, groups=4), Bottleneck(16, 8, 16, 2, groups=4)), 16, 5
    )


def regnet() -> nn.Module:
    trunk = nn.Module()
    for i, (inputs, outputs) in enumerate(((8, 16), (16, 24)), 1):
        stage = nn.Sequential()
        stage.add_module(f"block{i}-0", Bottleneck(inputs, outputs, outputs, 2, 4, se=True))
        stage.add_module(f"block{i}-1", Bottleneck(outputs, outputs, outputs, 1, 4, se=True))
        trunk.add_module(f"block{i}", stage)
    return Pooled(nn.Sequential(_bn(3, 8), *trunk.children()), 24, 5)


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 2 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(2 * growth), nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = self.conv1(self.relu(self.norm1(torch.cat(features, 1))))
        return self.conv2(self.relu(self.norm2(x)))


class DenseBlock(nn.ModuleDict):
    def __init__(self, inputs: int, growth: int, depth: int) -> None:
        super().__init__({f"denselayer{i}": DenseLayer(inputs + i * growth, growth) for i in range(depth)})

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.values():
            features.append(layer(features))
        return torch.cat(features, 1)


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        transition = nn.Sequential(
            nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.Conv2d(16, 8, 1, bias=False), nn.AvgPool2d(2)
        )
        self.features = nn.Sequential(
            _bn(3, 8), DenseBlock(8, 4, 2), transition, DenseBlock(8, 4, 2), nn.BatchNorm2d(16)
        )
        self.classifier = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.features(x), inplace=True)
        return self.classifier(torch.flatten(functional.adaptive_avg_pool2d(x, (1, 1)), 1))


class Fire(nn.Module):
    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze, self.relu = nn.Conv2d(inputs, squeeze, 1), nn.ReLU(inplace=True)
        self.expand1, self.expand3 = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.squeeze(x))
        return torch.cat([self.relu(self.expand1(x)), self.relu(self.expand3(x))], 1)


class SqueezeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(inplace=True), pool, Fire(8, 4, 8), Fire(16, 4, 8))
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Conv2d(16, 5, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d((1, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.classifier(self.features(x)), 1)


class Inverted(nn.Module):
    """MobileNet v2/v3 and EfficientNet blocks; stochastic depth is the identity in eval mode."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, act: type[nn.Module], se: type[nn.Module] | None = None
    ) -> None:
        super().__init__()
        hidden = inputs * 2
        layers = [_bn(inputs, hidden, 1, act=act), _bn(hidden, hidden, 3, stride, hidden, act=act)]
        if se is not None:
            layers.append(SqueezeExcite(hidden, 4, se, nn.SiLU if act is nn.SiLU else nn.ReLU))
        self.block = nn.Sequential(*layers, _bn(hidden, outputs, 1, act=None))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.block(x)
        if self.residual:
            out += x
        return out


def mobilenet_v2() -> nn.Module:
    blocks = (Inverted(8, 8, 1, nn.ReLU6), Inverted(8, 16, 2, nn.ReLU6), Inverted(16, 16, 1, nn.ReLU6))
    return Pooled(nn.Sequential(_bn(3, 8, 3, 2, act=nn.ReLU6), *blocks), 16, 5, 0.2)


def mobilenet_v3() -> nn.Module:
    blocks = (
        Inverted(8, 8, 1, nn.ReLU, nn.Hardsigmoid),
        Inverted(8, 16, 2, nn.Hardswish),
        Inverted(16, 16, 1, nn.Hardswish, nn.Hardsigmoid),
    )
    return Pooled(nn.Sequential(_bn(3, 8, 3, 2, act=nn.Hardswish), *blocks), 16, 5, 0.2)


def efficientnet() -> nn.Module:
    blocks = (
        Inverted(8, 8, 1, nn.SiLU, nn.Sigmoid),
        Inverted(8, 16, 2, nn.SiLU, nn.Sigmoid),
        Inverted(16, 16, 1, nn.SiLU, nn.Sigmoid),
    )
    return Pooled(nn.Sequential(_bn(3, 8, 3, 2, act=nn.SiLU), *blocks), 16, 5, 0.2)


class Shuffle(nn.Module):
    """ShuffleNet v2 block with torchvision's channel shuffle (view, transpose, contiguous, view) and chunk."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride, half = stride, channels // 2
        self.branch1 = (
            nn.Sequential(_bn(channels, channels, 3, 2, channels, act=None), _bn(channels, half, 1))
            if stride > 1
            else None
        )
        inputs = channels if stride > 1 else half
        self.branch2 = nn.Sequential(
            _bn(inputs, half, 1), _bn(half, half, 3, stride, half, act=None), _bn(half, half, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.branch1 is None:
            x1, x2 = x.chunk(2, dim=1)
            out = torch.cat((x1, self.branch2(x2)), dim=1)
        else:
            out = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        n, c, h, w = out.size()
        return torch.transpose(out.view(n, 2, c // 2, h, w), 1, 2).contiguous().view(n, c, h, w)


class ShuffleNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.maxpool = _bn(3, 8, 3, 2), nn.MaxPool2d(3, 2, 1)
        self.stage = nn.Sequential(Shuffle(8, 2), Shuffle(8, 1))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.stage(self.maxpool(self.conv1(x))).mean([2, 3]))


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        x = functional.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(dim, dim, 7, padding=3, groups=dim), nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.layer_scale = nn.Parameter(torch.ones(dim, 1, 1) * 1e-1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mlp(self.norm(torch.permute(self.depthwise(x), (0, 2, 3, 1))))
        return self.layer_scale * torch.permute(y, (0, 3, 1, 2)) + x


def convnext() -> nn.Module:
    down = nn.Sequential(LayerNorm2d(8), nn.Conv2d(8, 16, 2, 2))
    return Pooled(
        nn.Sequential(nn.Conv2d(3, 8, 4, 4), LayerNorm2d(8), ConvNextBlock(8), down, ConvNextBlock(16)), 16, 5
    )


class MhaVit(nn.Module):
    """ViT on ``nn.MultiheadAttention`` as torchvision's: class token, position parameter, expand, in-projection."""

    def __init__(self, size: int = 16, dim: int = 16) -> None:
        super().__init__()
        self.conv_proj, self.dim = nn.Conv2d(3, dim, 4, 4), dim
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embedding = nn.Parameter(torch.randn(1, (size // 4) ** 2 + 1, dim) * 0.02)
        self.ln_1, self.self_attention = nn.LayerNorm(dim), nn.MultiheadAttention(dim, 2, batch_first=True)
        self.ln_2, self.mlp = nn.LayerNorm(dim), nn.Sequential(nn.Linear(dim, 32), nn.GELU(), nn.Linear(32, dim))
        self.heads = nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        x = self.conv_proj(x).reshape(n, self.dim, (h // 4) * (w // 4)).permute(0, 2, 1)
        x = torch.cat([self.class_token.expand(n, -1, -1), x], dim=1) + self.pos_embedding
        y = self.ln_1(x)
        y, _ = self.self_attention(y, y, y, need_weights=False)
        x = x + y
        return self.heads((x + self.mlp(self.ln_2(x)))[:, 0])


class Swin(nn.Module):
    """One shifted-window attention block: padding, roll, window views with batch arithmetic, relative bias, mask."""

    def __init__(self, dim: int = 8, window: int = 4, side: int = 8) -> None:
        super().__init__()
        self.embed, self.norm = nn.Conv2d(3, dim, 2, 2), nn.LayerNorm(dim)
        self.qkv, self.proj, self.window, self.heads = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), window, 2
        self.relative_position_bias_table = nn.Parameter(torch.randn((2 * window - 1) ** 2, 2) * 0.02)
        grid = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        relative = (grid[:, :, None] - grid[:, None, :]).permute(1, 2, 0) + window - 1
        self.register_buffer(
            "relative_position_index", (relative[..., 0] * (2 * window - 1) + relative[..., 1]).flatten()
        )
        self.reduction, self.head = nn.Linear(4 * dim, 2 * dim, bias=False), nn.Linear(2 * dim, 5)

    def attend(self, x: Tensor, shift: int) -> Tensor:
        n, h, w, c = x.shape
        size, windows = self.window, (h // self.window) * (w // self.window)
        if shift:
            x = torch.roll(x, shifts=(-shift, -shift), dims=(1, 2))
        x = (
            x.view(n, h // size, size, w // size, size, c)
            .permute(0, 1, 3, 2, 4, 5)
            .reshape(n * windows, size * size, c)
        )
        q, k, v = self.qkv(x).reshape(x.size(0), size * size, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        attention = (q * (c // self.heads) ** -0.5).matmul(k.transpose(-2, -1))
        bias = self.relative_position_bias_table[self.relative_position_index].view(size * size, size * size, -1)
        attention = attention + bias.permute(2, 0, 1).contiguous().unsqueeze(0)
        if shift:
            mask = x.new_zeros((h, w))
            for i, rows in enumerate(((0, -size), (-size, -shift), (-shift, None))):
                for j, columns in enumerate(((0, -size), (-size, -shift), (-shift, None))):
                    mask[rows[0] : rows[1], columns[0] : columns[1]] = 3 * i + j
            mask = mask.view(h // size, size, w // size, size).permute(0, 2, 1, 3).reshape(windows, size * size)
            mask = mask.unsqueeze(1) - mask.unsqueeze(2)
            mask = mask.masked_fill(mask != 0, -100.0).masked_fill(mask == 0, 0.0)
            attention = attention.view(n, windows, self.heads, size * size, size * size) + mask.unsqueeze(1).unsqueeze(
                0
            )
            attention = attention.view(-1, self.heads, size * size, size * size)
        x = self.proj(
            functional.softmax(attention, dim=-1).matmul(v).transpose(1, 2).reshape(n * windows, size * size, c)
        )
        x = x.view(n, h // size, w // size, size, size, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return torch.roll(x, shifts=(shift, shift), dims=(1, 2)) if shift else x

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        x = x + self.attend(self.norm(x), 0)
        x = x + self.attend(self.norm(x), self.window // 2)
        x = functional.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        x = torch.cat([x[..., 0::2, 0::2, :], x[..., 1::2, 0::2, :], x[..., 0::2, 1::2, :], x[..., 1::2, 1::2, :]], -1)
        return self.head(self.reduction(x).permute(0, 3, 1, 2).flatten(2).mean(2))


class SignalNet(nn.Module):
    """1-D convolutions over ``(N, 2, 64)``."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv1d(2, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ELU(), nn.MaxPool1d(2)),
            *(nn.Conv1d(8, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.LeakyReLU(0.1), nn.AdaptiveAvgPool1d(1)),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Softmax(dim=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x))


class TextNet(nn.Module):
    """Embedding, positions from ``arange``, self-attention with a padding mask, mean pooling over real tokens."""

    def __init__(self, vocabulary: int = 50, dim: int = 16) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(vocabulary, dim, padding_idx=0), nn.Embedding(12, dim)
        layer = nn.TransformerEncoderLayer(dim, 2, 32, batch_first=True, activation="gelu", norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(dim, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        padding = tokens == 0
        x = self.embedding(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        x = self.encoder(x, src_key_padding_mask=padding)
        real = (~padding).unsqueeze(-1).to(x.dtype)
        return self.head((x * real).sum(1) / real.sum(1).clamp(min=1.0))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 16), nn.PReLU(), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@dataclass(frozen=True)
class Specimen:
    """One family: how to build it and what goes in."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    vocabulary: int | None = None

    def module(self, seed: int = 0) -> nn.Module:
        """Eval mode, weights and batch-norm statistics drawn from the seed, so that no two channels are alike."""
        torch.manual_seed(seed)
        module = self.build().eval()
        generator = torch.Generator().manual_seed(seed)
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and tensor.dim() <= 1:
                low, high = (0.5, 1.5) if name.endswith(("running_var", "weight")) else (-0.3, 0.3)
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
        return module

    def inputs(self, n: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        """A seeded batch ``(n, *shape)``."""
        generator = torch.Generator().manual_seed(seed)
        if self.vocabulary is not None:
            return torch.randint(0, self.vocabulary, (n, *self.shape), generator=generator)
        return torch.rand(n, *self.shape, generator=generator).to(dtype)


def _builtin(name: str, size: int = 16) -> Specimen:
    return Specimen(lambda: ARCHITECTURES[name](3, 5, size), (3, size, size))


ZOO: dict[str, Specimen] = {
    "cnn_small": Specimen(lambda: ARCHITECTURES["cnn_small"](1, 5, 8), (1, 8, 8)),
    "resnet8": _builtin("resnet8"),
    "wrn_16_1": _builtin("wrn_16_1"),
    "vgg_small": _builtin("vgg_small"),
    "mobilenet_small": _builtin("mobilenet_small"),
    "vit_tiny": _builtin("vit_tiny"),
    "resnet_bottleneck": Specimen(resnet_bottleneck, (3, 32, 32)),
    "resnext": Specimen(resnext, (3, 16, 16)),
    "regnet": Specimen(regnet, (3, 16, 16)),
    "densenet": Specimen(DenseNet, (3, 16, 16)),
    "squeezenet": Specimen(SqueezeNet, (3, 32, 32)),
    "mobilenet_v2": Specimen(mobilenet_v2, (3, 16, 16)),
    "mobilenet_v3": Specimen(mobilenet_v3, (3, 16, 16)),
    "efficientnet": Specimen(efficientnet, (3, 16, 16)),
    "shufflenet": Specimen(ShuffleNet, (3, 32, 32)),
    "convnext": Specimen(convnext, (3, 16, 16)),
    "vit_mha": Specimen(MhaVit, (3, 16, 16)),
    "swin": Specimen(Swin, (3, 16, 16)),
    "signal": Specimen(SignalNet, (2, 64)),
    "text": Specimen(TextNet, (12,), vocabulary=50),
    "mlp": Specimen(Mlp, (12,)),
}
