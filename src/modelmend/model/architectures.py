"""Built-in small classifiers: for a state dict that comes without code, for the demo and for the red-team kit."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Builder = Callable[[int, int, int], nn.Module]
"""``builder(in_channels, num_classes, size) -> module`` for square images ``(N, in_channels, size, size)``."""


def _conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


class _Residual(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut (He et al. 2016a)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _conv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_conv(inputs, outputs, stride, 1), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        out: Tensor = torch.relu(y + self.shortcut(x))
        return out


class _PreActResidual(nn.Module):
    """Batch norm and ReLU before each convolution (He et al. 2016b); also the block of wide residual networks."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, outputs, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), _conv(outputs, outputs)
        self.shortcut = _conv(inputs, outputs, stride, 1) if stride != 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(y)
        out: Tensor = self.conv2(torch.relu(self.bn2(self.conv1(y)))) + kept
        return out


class _ResNet(nn.Module):
    """CIFAR residual network: a stem, then ``len(widths)`` stages of ``depth`` blocks, average pooling, linear.

    ``preact`` selects pre-activation blocks with a final batch norm (PreActResNet, WRN).
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        depth: int,
        widths: tuple[int, ...],
        *,
        stem: int,
        preact: bool = False,
    ) -> None:
        super().__init__()
        block = _PreActResidual if preact else _Residual
        self.conv1 = _conv(in_channels, stem)
        self.bn1 = nn.Identity() if preact else nn.BatchNorm2d(stem)
        blocks, inputs = [], stem
        for stage, width in enumerate(widths):
            for index in range(depth):
                blocks.append(block(inputs, width, 2 if stage and not index else 1))
                inputs = width
        self.layers = nn.Sequential(*blocks)
        self.bn2 = nn.BatchNorm2d(inputs) if preact else nn.Identity()
        self.preact = preact
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x))
        x = self.layers(x if self.preact else torch.relu(x))
        if self.preact:
            x = torch.relu(self.bn2(x))
        out: Tensor = self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))
        return out


class _VggSmall(nn.Module):
    """Six 3x3 convolutions in three pooled stages, batch norm, two linear layers (after Simonyan & Zisserman 2015)."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = in_channels
        for width in (32, 64, 128):
            for _ in range(2):
                layers += [_conv(inputs, width), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(torch.flatten(self.pool(self.features(x)), 1))
        return out


class _InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1, shortcut where the shapes agree (Sandler et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.layers = nn.Sequential(
            *(_conv(inputs, hidden, 1, 1), nn.BatchNorm2d(hidden), nn.ReLU6()),
            *(_conv(hidden, hidden, stride, 3, hidden), nn.BatchNorm2d(hidden), nn.ReLU6()),
            *(_conv(hidden, outputs, 1, 1), nn.BatchNorm2d(outputs)),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layers(x) if self.shortcut else self.layers(x)
        return out


class _MobileNetSmall(nn.Module):
    """MobileNetV2 for small images: seven inverted residual blocks."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(in_channels, 16), nn.BatchNorm2d(16), nn.ReLU6())
        plan = ((16, 1, 1), (24, 2, 4), (24, 1, 4), (32, 2, 4), (32, 1, 4), (64, 2, 4), (64, 1, 4))
        blocks, inputs = [], 16
        for outputs, stride, expand in plan:
            blocks.append(_InvertedResidual(inputs, outputs, stride, expand))
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(_conv(inputs, 128, 1, 1), nn.BatchNorm2d(128), nn.ReLU6())
        self.fc = nn.Linear(128, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.head(self.blocks(self.stem(x))).mean((2, 3)))
        return out


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), heads

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, dim = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(n, tokens, dim))
        return out


class _TransformerBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), _Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class _VitTiny(nn.Module):
    """Vision transformer with a class token (Dosovitskiy et al. 2021): 4x4 patches (2x2 below 16 pixels), 4 blocks."""

    def __init__(self, in_channels: int, num_classes: int, size: int, dim: int = 64, depth: int = 4) -> None:
        super().__init__()
        patch = 4 if size >= 16 else 2
        self.patch = nn.Conv2d(in_channels, dim, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, dim) * 0.02)
        self.blocks = nn.Sequential(*(_TransformerBlock(dim, 4) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        out: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return out


class _CnnSmall(nn.Module):
    """Three convolutions and a linear layer: enough for 8x8 digits, seconds to train on one core."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(in_channels, 16), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = _conv(16, 32), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = _conv(32, 32), nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = nn.functional.max_pool2d(torch.relu(self.bn2(self.conv2(x))), 2)
        x = torch.relu(self.bn3(self.conv3(x)))
        out: Tensor = self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))
        return out


ARCHITECTURES: dict[str, Builder] = {
    "cnn_small": lambda c, k, size: _CnnSmall(c, k),
    "resnet8": lambda c, k, size: _ResNet(c, k, 1, (16, 32, 64), stem=16),
    "resnet20": lambda c, k, size: _ResNet(c, k, 3, (16, 32, 64), stem=16),
    "preactresnet18": lambda c, k, size: _ResNet(c, k, 2, (64, 128, 256, 512), stem=64, preact=True),
    "wrn_16_1": lambda c, k, size: _ResNet(c, k, 2, (16, 32, 64), stem=16, preact=True),
    "vgg_small": lambda c, k, size: _VggSmall(c, k),
    "mobilenet_small": lambda c, k, size: _MobileNetSmall(c, k),
    "vit_tiny": _VitTiny,
}
"""Name to builder; ``size`` is the side of the square image in pixels and matters to ``vit_tiny`` only."""
