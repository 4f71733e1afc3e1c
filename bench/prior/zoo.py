"""Exports public architectures with random weights to ONNX: what the prior is fitted and validated on.

usage: python -m bench.prior.zoo FOLDER [NAME ...]

Needs torch, torchvision, timm, transformers and onnxscript, which the project itself does not use: run it
in an environment of its own. Weights do not change how long a query takes, so none are downloaded.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

IMAGE_MODELS = {
    # torchvision: name -> input side
    "alexnet": 224, "vgg11": 224, "vgg13_bn": 224, "resnet34": 224, "resnet101": 224, "resnext50_32x4d": 224,
    "wide_resnet50_2": 224, "mobilenet_v3_large": 224, "mnasnet0_5": 224, "mnasnet1_0": 224,
    "efficientnet_b2": 260, "efficientnet_v2_s": 224, "regnet_y_400mf": 224, "regnet_x_1_6gf": 224,
    "googlenet": 224, "convnext_tiny": 224, "densenet169": 224, "squeezenet1_0": 224,
    "shufflenet_v2_x0_5": 224, "shufflenet_v2_x2_0": 224, "vit_b_32": 224, "swin_v2_t": 256,
}  # fmt: skip
SEGMENTATION = {
    "deeplabv3_mobilenet_v3_large": 520,
    "lraspp_mobilenet_v3_large": 520,
    "deeplabv3_resnet50": 320,
}
TIMM_MODELS = {
    "vit_tiny_patch16_224": 224, "deit_small_patch16_224": 224, "mixer_s32_224": 224, "resmlp_12_224": 224,
    "mobilevit_s": 256, "ghostnet_100": 224, "repvgg_a0": 224, "poolformer_s12": 224, "cspdarknet53": 256,
    "hrnet_w18_small": 224, "dla34": 224, "edgenext_small": 256, "rexnet_100": 224, "levit_128s": 224,
    "tf_efficientnet_lite0": 224, "mobilenetv4_conv_small": 224, "resnest14d": 224, "seresnet50": 224,
    "convmixer_768_32": 64, "fastvit_t8": 256, "efficientvit_b0": 224, "nfnet_l0": 160, "vovnet39a": 224,
    "regnety_032": 224, "pvt_v2_b0": 224, "xcit_nano_12_p16_224": 224, "gmlp_s16_224": 224,
}  # fmt: skip


class Recurrent(nn.Module):
    """An embedding-free recurrent network with a linear head."""

    def __init__(self, kind: type[nn.Module], inputs: int, hidden: int, layers: int, both: bool) -> None:
        super().__init__()
        self.core = kind(inputs, hidden, layers, batch_first=True, bidirectional=both)
        self.head = nn.Linear(hidden * (2 if both else 1), 128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """All steps' outputs through the head."""
        return self.head(self.core(x)[0])


class Block(nn.Sequential):
    """Convolution, normalisation, activation."""

    def __init__(self, i: int, o: int, k: int = 3, s: int = 1, act: type[nn.Module] = nn.SiLU) -> None:
        super().__init__(nn.Conv2d(i, o, k, s, k // 2, bias=False), nn.BatchNorm2d(o), act())


class SplitBlock(nn.Module):
    """The split, bottlenecks, concatenation block of current one-stage detectors."""

    def __init__(self, i: int, o: int, n: int, residual: bool) -> None:
        super().__init__()
        self.c, self.residual = o // 2, residual
        self.first, self.last = Block(i, o, 1), Block((2 + n) * self.c, o, 1)
        self.inner = nn.ModuleList(
            nn.Sequential(Block(self.c, self.c), Block(self.c, self.c)) for _ in range(n)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Split in two, grow by bottlenecks, join all."""
        parts = list(self.first(x).chunk(2, 1))
        for inner in self.inner:
            grown = inner(parts[-1])
            parts.append(parts[-1] + grown if self.residual else grown)
        return self.last(torch.cat(parts, 1))


class Detector(nn.Module):
    """A one-stage detector of the YOLOv8n kind: backbone, pyramid with upsampling, three heads."""

    def __init__(self, w: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(Block(3, w, 3, 2), Block(w, 2 * w, 3, 2), SplitBlock(2 * w, 2 * w, 1, True))
        self.b3 = nn.Sequential(Block(2 * w, 4 * w, 3, 2), SplitBlock(4 * w, 4 * w, 2, True))
        self.b4 = nn.Sequential(Block(4 * w, 8 * w, 3, 2), SplitBlock(8 * w, 8 * w, 2, True))
        self.b5 = nn.Sequential(Block(8 * w, 16 * w, 3, 2), SplitBlock(16 * w, 16 * w, 1, True))
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.mix = Block(64 * w, 16 * w, 1)
        self.up = nn.Upsample(scale_factor=2)
        self.n4, self.n3 = SplitBlock(24 * w, 8 * w, 1, False), SplitBlock(12 * w, 4 * w, 1, False)
        self.d4, self.d5 = Block(4 * w, 4 * w, 3, 2), Block(8 * w, 8 * w, 3, 2)
        self.p4, self.p5 = SplitBlock(12 * w, 8 * w, 1, False), SplitBlock(24 * w, 16 * w, 1, False)
        self.heads = nn.ModuleList(
            nn.ModuleList(
                nn.Sequential(Block(c, 4 * w), Block(4 * w, 4 * w), nn.Conv2d(4 * w, o, 1)) for o in (64, 80)
            )
            for c in (4 * w, 8 * w, 16 * w)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores and box distributions of all anchors."""
        c3 = self.b3(self.stem(x))
        c4 = self.b4(c3)
        c5 = self.b5(c4)
        pooled = [c5]
        for _ in range(3):
            pooled.append(self.pool(pooled[-1]))
        c5 = self.mix(torch.cat(pooled, 1))
        n4 = self.n4(torch.cat([self.up(c5), c4], 1))
        n3 = self.n3(torch.cat([self.up(n4), c3], 1))
        p4 = self.p4(torch.cat([self.d4(n3), n4], 1))
        p5 = self.p5(torch.cat([self.d5(p4), c5], 1))
        outs = [
            torch.cat([h(p) for h in pair], 1).flatten(2)
            for pair, p in zip(self.heads, (n3, p4, p5), strict=True)
        ]
        boxes, scores = torch.cat(outs, 2).split((64, 80), 1)
        return torch.cat([boxes.view(1, 4, 16, -1).softmax(2).sum(2), scores.sigmoid()], 1)


class UNet(nn.Module):
    """A U-Net with transposed convolutions."""

    def __init__(self, w: int, levels: int = 4) -> None:
        super().__init__()
        widths = [w * 2**i for i in range(levels + 1)]
        pair = lambda i, o: nn.Sequential(Block(i, o, act=nn.ReLU), Block(o, o, act=nn.ReLU))  # noqa: E731
        self.down = nn.ModuleList(pair(i, o) for i, o in zip([3, *widths[:-1]], widths, strict=True))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(o, i, 2, 2) for i, o in pairwise(widths))
        self.merge = nn.ModuleList(pair(2 * i, i) for i in widths[:-1])
        self.head = nn.Conv2d(w, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Down with pooling, up with skips."""
        skips = []
        for level, down in enumerate(self.down):
            x = down(x if level == 0 else nn.functional.max_pool2d(x, 2))
            skips.append(x)
        for level in reversed(range(len(self.ups))):
            x = self.merge[level](torch.cat([skips[level], self.ups[level](x)], 1))
        return self.head(x)


def generator(w: int) -> nn.Module:
    """A DCGAN-like generator of transposed convolutions, 64 x 64."""
    widths = [100, 8 * w, 4 * w, 2 * w, w]
    layers: list[nn.Module] = []
    for index, (i, o) in enumerate(pairwise(widths)):
        layers += [nn.ConvTranspose2d(i, o, 4, 1 if index == 0 else 2, 0 if index == 0 else 1, bias=False)]
        layers += [nn.BatchNorm2d(o), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(w, 3, 4, 2, 1), nn.Tanh())


def mlp(*widths: int) -> nn.Module:
    """Fully connected layers with ReLU between."""
    layers = [m for i, o in pairwise(widths) for m in (nn.Linear(i, o), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def separable(w: int, depth: int, groups_of: int) -> nn.Module:
    """Grouped 3x3 and pointwise convolutions; ``groups_of`` channels a group (1: depthwise)."""
    layers: list[nn.Module] = [Block(3, w, 3, 2, nn.ReLU)]
    for _ in range(depth):
        layers += [nn.Conv2d(w, w, 3, 1, 1, groups=w // groups_of), nn.BatchNorm2d(w), nn.ReLU()]
        layers += [Block(w, w, 1, act=nn.ReLU)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(w, 100))


def speech(w: int) -> nn.Module:
    """A stack of one-dimensional convolutions over a spectrogram."""
    layers: list[nn.Module] = [nn.Conv1d(80, w, 11, 2, 5), nn.ReLU()]
    for _ in range(6):
        layers += [nn.Conv1d(w, w, 11, 1, 5), nn.BatchNorm1d(w), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv1d(w, 32, 1))


OWN: dict[str, Callable[[], tuple[nn.Module, tuple[torch.Tensor, ...]]]] = {
    "lstm_256_s50": lambda: (Recurrent(nn.LSTM, 128, 256, 2, False), (torch.randn(1, 50, 128),)),
    "lstm_bi_512_s100": lambda: (Recurrent(nn.LSTM, 256, 512, 2, True), (torch.randn(1, 100, 256),)),
    "lstm_64_s200": lambda: (Recurrent(nn.LSTM, 40, 64, 1, False), (torch.randn(1, 200, 40),)),
    "lstm_1024_s20": lambda: (Recurrent(nn.LSTM, 512, 1024, 1, False), (torch.randn(1, 20, 512),)),
    "gru_256_s100": lambda: (Recurrent(nn.GRU, 128, 256, 2, False), (torch.randn(1, 100, 128),)),
    "gru_512_s30": lambda: (Recurrent(nn.GRU, 256, 512, 1, True), (torch.randn(1, 30, 256),)),
    "detector_n_320": lambda: (Detector(16), (torch.randn(1, 3, 320, 320),)),
    "detector_n_640": lambda: (Detector(16), (torch.randn(1, 3, 640, 640),)),
    "detector_s_416": lambda: (Detector(32), (torch.randn(1, 3, 416, 416),)),
    "unet_16_256": lambda: (UNet(16), (torch.randn(1, 3, 256, 256),)),
    "unet_32_128": lambda: (UNet(32), (torch.randn(1, 3, 128, 128),)),
    "dcgan_64": lambda: (generator(64), (torch.randn(1, 100, 1, 1),)),
    "dcgan_32_b4": lambda: (generator(32), (torch.randn(4, 100, 1, 1),)),
    "mlp_784_wide": lambda: (mlp(784, 4096, 4096, 10), (torch.randn(1, 784),)),
    "mlp_small": lambda: (mlp(64, 256, 256, 256, 8), (torch.randn(1, 64),)),
    "mlp_1024_b32": lambda: (mlp(1024, 1024, 1024, 1024), (torch.randn(32, 1024),)),
    "mlp_2048_b4": lambda: (mlp(512, 2048, 2048, 512), (torch.randn(4, 512),)),
    "mlp_2048_b8": lambda: (mlp(512, 2048, 2048, 512), (torch.randn(8, 512),)),
    "depthwise_128": lambda: (separable(128, 8, 1), (torch.randn(1, 3, 112, 112),)),
    "depthwise_32_large": lambda: (separable(32, 6, 1), (torch.randn(1, 3, 448, 448),)),
    "grouped_128_of_4": lambda: (separable(128, 6, 4), (torch.randn(1, 3, 112, 112),)),
    "grouped_256_of_8": lambda: (separable(256, 6, 8), (torch.randn(1, 3, 56, 56),)),
    "grouped_128_of_16": lambda: (separable(128, 6, 16), (torch.randn(1, 3, 112, 112),)),
    "grouped_256_of_32": lambda: (separable(256, 6, 32), (torch.randn(1, 3, 56, 56),)),
    "grouped_256_of_64": lambda: (separable(256, 6, 64), (torch.randn(1, 3, 56, 56),)),
    "speech_256": lambda: (speech(256), (torch.randn(1, 80, 400),)),
    "speech_128": lambda: (speech(128), (torch.randn(1, 80, 1000),)),
}


def language_models() -> dict[str, Callable[[], tuple[nn.Module, tuple[torch.Tensor, ...]]]]:
    """Transformers of the transformers library by configuration."""
    import transformers as t  # noqa: PLC0415 - heavy, and wanted for these alone

    def tokens(length: int, batch: int = 1) -> torch.Tensor:
        return torch.ones((batch, length), dtype=torch.int64)

    def bert(layers: int, hidden: int, heads: int) -> nn.Module:
        return t.BertModel(
            t.BertConfig(
                num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads,
                intermediate_size=4 * hidden, attn_implementation="eager",
            )
        )  # fmt: skip

    return {
        "bert_mini_s64": lambda: (bert(4, 256, 4), (tokens(64),)),
        "bert_small_s128": lambda: (bert(4, 512, 8), (tokens(128),)),
        "bert_tiny_s32": lambda: (bert(2, 128, 2), (tokens(32),)),
        "minilm_l6_s128": lambda: (bert(6, 384, 12), (tokens(128),)),
        "minilm_l6_s16": lambda: (bert(6, 384, 12), (tokens(16),)),
        "bert_base_s384": lambda: (bert(12, 768, 12), (tokens(384),)),
        "roberta_l6_s256": lambda: (
            t.RobertaModel(t.RobertaConfig(num_hidden_layers=6, attn_implementation="eager")), (tokens(256),)
        ),
        "albert_s128": lambda: (
            t.AlbertModel(t.AlbertConfig(hidden_size=768, num_attention_heads=12, intermediate_size=3072,
                                         attn_implementation="eager")), (tokens(128),)
        ),
        "gpt2_l6_s64": lambda: (
            t.GPT2LMHeadModel(t.GPT2Config(n_layer=6, use_cache=False, attn_implementation="eager")),
            (tokens(64),),
        ),
        "whisper_tiny_encoder": lambda: (
            t.WhisperModel(t.WhisperConfig(encoder_layers=4, d_model=384, encoder_attention_heads=6,
                                           encoder_ffn_dim=1536, attn_implementation="eager")).encoder,
            (torch.randn(1, 80, 3000),),
        ),
    }  # fmt: skip


class First(nn.Module):
    """Keeps one output tensor of a model that returns several or a mapping."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> Any:
        """The first tensor of the wrapped model's answer."""
        out = self.model(*inputs)
        while not isinstance(out, torch.Tensor):
            out = next(iter(out.values())) if isinstance(out, dict) else out[0]
        return out


def builders() -> dict[str, Callable[[], tuple[nn.Module, tuple[torch.Tensor, ...]]]]:
    """Every architecture by name, cheap to list, built when called."""
    import timm  # noqa: PLC0415
    import torchvision  # noqa: PLC0415

    vision, segmentation = torchvision.models, torchvision.models.segmentation
    image = lambda side: (torch.randn(1, 3, side, side),)  # noqa: E731
    made: dict[str, Any] = dict(OWN)
    for name, side in IMAGE_MODELS.items():
        extra = {"init_weights": True, "aux_logits": False} if name == "googlenet" else {}
        made[name] = lambda n=name, s=side, e=extra: (getattr(vision, n)(weights=None, **e), image(s))
    for name, side in SEGMENTATION.items():
        made[name] = lambda n=name, s=side: (
            getattr(segmentation, n)(weights=None, weights_backbone=None), image(s)
        )  # fmt: skip
    for name, side in TIMM_MODELS.items():
        made[name] = lambda n=name, s=side: (timm.create_model(n, pretrained=False), image(s))
    made |= {
        "resnet18_b4": lambda: (vision.resnet18(weights=None), (torch.randn(4, 3, 224, 224),)),
        "resnet50_b8_s160": lambda: (vision.resnet50(weights=None), (torch.randn(8, 3, 160, 160),)),
        "mobilenet_v2_b8": lambda: (vision.mobilenet_v2(weights=None), (torch.randn(8, 3, 224, 224),)),
        "resnet18_s448": lambda: (vision.resnet18(weights=None), image(448)),
        "mobilenet_v2_s96": lambda: (vision.mobilenet_v2(weights=None), image(96)),
    }
    return made | language_models()


def main(arguments: list[str]) -> int:
    """Export the named architectures, or all, into the folder; those that cannot be exported are named."""
    warnings.filterwarnings("ignore")
    folder, wanted = Path(arguments[0]), arguments[1:]
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name, build in builders().items():
        target = folder / f"{name}.onnx"
        if (wanted and name not in wanted) or target.exists():
            continue
        try:
            model, inputs = build()
            torch.onnx.export(
                First(model.eval()), inputs, str(target), dynamo=False, opset_version=17, verbose=False
            )
            print(name, flush=True)
        except Exception as error:
            target.unlink(missing_ok=True)
            print(f"{name}: not exported: {type(error).__name__}: {str(error)[:200]}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
