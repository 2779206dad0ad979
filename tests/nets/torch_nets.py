"""The published nets, written again in PyTorch from their sources, under their own tensor names.

They share nothing with nets/: what they and nets/ agree on was read twice.
"""

import torch
from torch import nn
from torch.nn import functional


class IResUnit(nn.Module):
    """arcface_torch's IBasicBlock."""

    def __init__(self, inputs, planes, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs, eps=1e-5)
        self.conv1 = nn.Conv2d(inputs, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes, eps=1e-5)
        self.prelu = nn.PReLU(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes, eps=1e-5)
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, planes, 1, stride, bias=False), nn.BatchNorm2d(planes, eps=1e-5)
            )

    def forward(self, x):
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        y = self.bn3(self.conv2(y))
        return y + (x if self.downsample is None else self.downsample(x))


class IResNet(nn.Module):
    """arcface_torch's iresnet; RGB, (x - 127.5) / 127.5."""

    def __init__(self, units, widths, pixels, embedding):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0], eps=1e-5)
        self.prelu = nn.PReLU(widths[0])
        inputs = widths[0]
        for stage, (count, planes) in enumerate(zip(units, widths), start=1):
            layer = [IResUnit(inputs, planes, 2)]
            layer += [IResUnit(planes, planes, 1) for _ in range(count - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(*layer))
            inputs = planes
        self.bn2 = nn.BatchNorm2d(inputs, eps=1e-5)
        self.fc = nn.Linear(inputs * pixels, embedding)
        self.features = nn.BatchNorm1d(embedding, eps=1e-5)

    def forward(self, images):
        x = self.prelu(self.bn1(self.conv1((images - 127.5) / 127.5)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(torch.flatten(self.bn2(x), 1)))


class Gate(nn.Module):
    """Squeeze-excitation of InsightFace_Pytorch and CVLface: 1x1 convolutions without bias."""

    def __init__(self, channels):
        super().__init__()
        inner = max(1, channels // 16)
        self.fc1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.fc2 = nn.Conv2d(inner, channels, 1, bias=False)

    def forward(self, x):
        pooled = functional.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.fc2(functional.relu(self.fc1(pooled))))


class BodyUnit(nn.Module):
    """InsightFace_Pytorch's bottleneck_IR (middle=False), CVLface's BasicBlockIR, BottleneckIR."""

    def __init__(self, inputs, depth, stride, middle, se, bottleneck=False):
        super().__init__()
        self.shortcut_layer = nn.MaxPool2d(1, stride)
        if inputs != depth:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, depth, 1, stride, bias=False), nn.BatchNorm2d(depth)
            )
        if bottleneck:
            inner = depth // 4
            layers = [nn.BatchNorm2d(inputs), nn.Conv2d(inputs, inner, 1, bias=False)]
            layers += [nn.BatchNorm2d(inner), nn.PReLU(inner)]
            layers += [nn.Conv2d(inner, inner, 3, 1, 1, bias=False)]
            layers += [nn.BatchNorm2d(inner), nn.PReLU(inner)]
            layers += [nn.Conv2d(inner, depth, 1, stride, bias=False), nn.BatchNorm2d(depth)]
        else:
            layers = [nn.BatchNorm2d(inputs), nn.Conv2d(inputs, depth, 3, 1, 1, bias=False)]
            layers += [nn.BatchNorm2d(depth)] if middle else []
            layers += [nn.PReLU(depth), nn.Conv2d(depth, depth, 3, stride, 1, bias=False)]
            layers += [nn.BatchNorm2d(depth)]
        self.res_layer = nn.Sequential(*layers)
        if se:
            self.res_layer.add_module("se_block" if middle else "5", Gate(depth))

    def forward(self, x):
        return self.res_layer(x) + self.shortcut_layer(x)


class Backbone(nn.Module):
    """InsightFace_Pytorch's (middle=False: BGR, length 1) and CVLface's (RGB, no affine)."""

    def __init__(self, units, widths, pixels, embedding, middle, se, bottleneck=False):
        super().__init__()
        self.middle = middle
        stem = widths[0] // 4 if bottleneck else widths[0]
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem), nn.PReLU(stem)
        )
        body, inputs = [], stem
        for count, depth in zip(units, widths):
            for number in range(count):
                stride = 2 if number == 0 else 1
                body.append(BodyUnit(inputs, depth, stride, middle, se, bottleneck))
                inputs = depth
        self.body = nn.Sequential(*body)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(inputs * pixels, embedding),
            nn.BatchNorm1d(embedding, affine=not middle),
        )

    def forward(self, images):
        images = images if self.middle else images.flip(1)
        x = self.output_layer(self.body(self.input_layer((images - 127.5) / 127.5)))
        return x if self.middle else x / torch.norm(x, 2, 1, True)


def conv_block(inputs, outputs, size, stride, pad, groups=1, linear=False):
    layers = [
        nn.Conv2d(inputs, outputs, size, stride, pad, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return layers if linear else layers + [nn.PReLU(outputs)]


class Layers(nn.Module):
    """A sequence under the name `layers`, added to its input where `residual`."""

    def __init__(self, *layers, residual=False):
        super().__init__()
        self.layers, self.residual = nn.Sequential(*layers), residual

    def forward(self, x):
        return self.layers(x) + x if self.residual else self.layers(x)


def mbf_depthwise(inputs, outputs, stride, hidden, residual=False):
    return Layers(
        Layers(*conv_block(inputs, hidden, 1, 1, 0)),
        Layers(*conv_block(hidden, hidden, 3, stride, 1, groups=hidden)),
        Layers(*conv_block(hidden, outputs, 1, 1, 0, linear=True)),
        residual=residual,
    )


class Mbf(nn.Module):
    """arcface_torch's MobileFaceNet: blocks 1, 4, 6, 2 and scale 2 are mbf, blocks 2, 8, 12, 4 and
    scale 4 mbf_large; `by` divides every channel count, for small tests."""

    def __init__(self, blocks, scale, pixels, embedding, by=1):
        super().__init__()
        c1, c2 = 64 * scale // by, 128 * scale // by
        h1, h2, h3, last = 128 // by, 256 // by, 512 // by, 512 // by

        def residuals(channels, count, hidden):
            return Layers(
                *[mbf_depthwise(channels, channels, 1, hidden, True) for _ in range(count)]
            )

        second = residuals(c1, blocks[0], h1)
        if blocks[0] == 1:
            second = Layers(*conv_block(c1, c1, 3, 1, 1, groups=64 // by))
        self.layers = nn.ModuleList(
            [
                Layers(*conv_block(3, c1, 3, 2, 1)),
                second,
                mbf_depthwise(c1, c1, 2, h1),
                residuals(c1, blocks[1], h1),
                mbf_depthwise(c1, c2, 2, h2),
                residuals(c2, blocks[2], h2),
                mbf_depthwise(c2, c2, 2, h3),
                residuals(c2, blocks[3], h2),
            ]
        )
        self.conv_sep = Layers(*conv_block(c2, last, 1, 1, 0))
        self.features = Layers(
            Layers(*conv_block(last, last, pixels, 1, 0, groups=last, linear=True)),
            nn.Flatten(),
            nn.Linear(last, embedding, bias=False),
            nn.BatchNorm1d(embedding),
        )

    def forward(self, images):
        x = (images - 127.5) / 127.5
        for layer in self.layers:
            x = layer(x)
        return self.features(self.conv_sep(x))


class Block(nn.Module):
    """InsightFace_Pytorch's Conv_block and Linear_block."""

    def __init__(self, inputs, outputs, size=1, stride=1, pad=0, groups=1, linear=False):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, pad, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        if not linear:
            self.prelu = nn.PReLU(outputs)

    def forward(self, x):
        x = self.bn(self.conv(x))
        return self.prelu(x) if hasattr(self, "prelu") else x


class Depthwise(nn.Module):
    def __init__(self, inputs, outputs, stride, hidden, residual=False):
        super().__init__()
        self.conv = Block(inputs, hidden)
        self.conv_dw = Block(hidden, hidden, 3, stride, 1, groups=hidden)
        self.project = Block(hidden, outputs, linear=True)
        self.residual = residual

    def forward(self, x):
        y = self.project(self.conv_dw(self.conv(x)))
        return x + y if self.residual else y


class Residuals(nn.Module):
    def __init__(self, channels, count, hidden):
        super().__init__()
        units = [Depthwise(channels, channels, 1, hidden, True) for _ in range(count)]
        self.model = nn.Sequential(*units)

    def forward(self, x):
        return self.model(x)


class MobileFaceNet(nn.Module):
    """InsightFace_Pytorch's, of blocks 4, 6, 2 there; BGR, length 1."""

    def __init__(self, blocks, pixels, embedding, by=1):
        super().__init__()
        a, b, h1, h2, h3, last = (count // by for count in (64, 128, 128, 256, 512, 512))
        self.conv1 = Block(3, a, 3, 2, 1)
        self.conv2_dw = Block(a, a, 3, 1, 1, groups=a)
        self.conv_23 = Depthwise(a, a, 2, h1)
        self.conv_3 = Residuals(a, blocks[0], h1)
        self.conv_34 = Depthwise(a, b, 2, h2)
        self.conv_4 = Residuals(b, blocks[1], h2)
        self.conv_45 = Depthwise(b, b, 2, h3)
        self.conv_5 = Residuals(b, blocks[2], h2)
        self.conv_6_sep = Block(b, last)
        self.conv_6_dw = Block(last, last, pixels, groups=last, linear=True)
        self.linear = nn.Linear(last, embedding, bias=False)
        self.bn = nn.BatchNorm1d(embedding)

    def forward(self, images):
        x = self.conv2_dw(self.conv1((images.flip(1) - 127.5) / 127.5))
        x = self.conv_34(self.conv_3(self.conv_23(x)))
        x = self.conv_5(self.conv_45(self.conv_4(x)))
        x = self.bn(self.linear(torch.flatten(self.conv_6_dw(self.conv_6_sep(x)), 1)))
        return x / torch.norm(x, 2, 1, True)


class MXNetNet:
    """insightface's fresnet, unit v3, output E, over {MXNet name: tensor}: RGB, (x-127.5)/128."""

    def __init__(self, tensors, units, se):
        self.tensors, self.units, self.se = tensors, units, se

    def norm(self, x, name):
        t = self.tensors
        moments = t[f"{name}_moving_mean"], t[f"{name}_moving_var"]
        gamma = torch.ones_like(t["fc1_gamma"]) if name == "fc1" else t[f"{name}_gamma"]
        return functional.batch_norm(x, *moments, gamma, t[f"{name}_beta"], eps=2e-5)

    def conv(self, x, name, stride=1):
        kernel = self.tensors[f"{name}_weight"]
        bias = self.tensors.get(f"{name}_bias")
        return functional.conv2d(x, kernel, bias, stride, kernel.shape[-1] // 2)

    def prelu(self, x, name):
        return functional.prelu(x, self.tensors[f"{name}_gamma"])

    def unit(self, x, name, stride):
        y = self.norm(self.conv(self.norm(x, f"{name}_bn1"), f"{name}_conv1"), f"{name}_bn2")
        y = self.conv(self.prelu(y, f"{name}_relu1"), f"{name}_conv2", stride)
        y = self.norm(y, f"{name}_bn3")
        if self.se:
            gate = self.conv(functional.adaptive_avg_pool2d(y, 1), f"{name}_se_conv1")
            gate = self.conv(self.prelu(gate, f"{name}_se_relu1"), f"{name}_se_conv2")
            y = y * torch.sigmoid(gate)
        if stride == 1:
            return y + x
        return y + self.norm(self.conv(x, f"{name}_conv1sc", stride), f"{name}_sc")

    def __call__(self, images):
        x = self.conv((images - 127.5) * 0.0078125, "conv0")
        x = self.prelu(self.norm(x, "bn0"), "relu0")
        for stage, count in enumerate(self.units, start=1):
            for number in range(1, count + 1):
                x = self.unit(x, f"stage{stage}_unit{number}", 2 if number == 1 else 1)
        x = torch.flatten(self.norm(x, "bn1"), 1)
        x = functional.linear(x, self.tensors["pre_fc1_weight"], self.tensors["pre_fc1_bias"])
        return self.norm(x, "fc1")


class TensorFlowNet:
    """InsightFace_TF's L_Resnet_E_IR files over {variable name: tensor} in TensorFlow's layouts:
    BGR, (x - 127.5) / 128, dense inputs in H, W, C order. kind: batch, group or renorm."""

    def __init__(self, tensors, units, kind="batch", se=False, eps=2e-5):
        self.tensors = {name.split("/", 1)[1]: value for name, value in tensors.items()}
        self.units, self.kind, self.se, self.eps = units, kind, se, eps

    def norm(self, x, name):
        t = self.tensors
        if self.kind == "group" and len(x.shape) == 4:
            groups = next(g for g in (32, 16, 8, 4, 2, 1) if x.shape[1] % g == 0)
            scale, offset = t[f"{name}/scale"].reshape(-1), t[f"{name}/offset"].reshape(-1)
            return functional.group_norm(x, groups, scale, offset, eps=1e-5)
        moments = t[f"{name}/moving_mean"], t[f"{name}/moving_variance"]
        return functional.batch_norm(
            x, *moments, t[f"{name}/gamma"], t[f"{name}/beta"], eps=self.eps
        )

    def conv(self, x, name, stride=1):
        kernel = self.tensors[f"{name}/W_conv2d"].permute(3, 2, 0, 1)
        return functional.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2)

    def dense(self, x, name):
        return x @ self.tensors[f"{name}/W"] + self.tensors[f"{name}/b"]

    def unit(self, x, name, stride):
        conv2 = "GroupNorm" if self.kind == "group" else "BatchNorm"
        if f"{name}/shortcut_conv/W_conv2d" in self.tensors:
            short = self.conv(x, f"{name}/shortcut_conv", stride)
            short = self.norm(short, f"{name}/shortcut_bn/BatchNorm")
        else:
            short = functional.max_pool2d(x, 1, stride) if stride > 1 else None
        x_normal = self.norm(x, f"{name}/conv1_bn1")
        if short is None:  # the renorm file overwrites the tensor that its shortcut holds
            short = x_normal if self.kind == "renorm" else x
        y = self.norm(self.conv(x_normal, f"{name}/conv1"), f"{name}/conv1_bn2")
        y = functional.prelu(y, self.tensors[f"{name}/prelu_layer/alphas"])
        y = self.norm(self.conv(y, f"{name}/conv2", stride), f"{name}/conv2_bn/{conv2}")
        if not self.se:
            return y + short
        gate = functional.relu(self.dense(y.mean((2, 3)), f"{name}/excitation_1"))
        gate = torch.sigmoid(self.dense(gate, f"{name}/excitation_2"))
        return functional.relu(y * gate[:, :, None, None] + short)

    def __call__(self, images):
        group = self.kind == "group"
        x = self.conv((images.flip(1) - 127.5) * 0.0078125, "conv1")
        x = self.norm(x, "group_norm_0" if group else "bn0")
        x = functional.prelu(x, self.tensors["prelu0/alphas"])
        for stage, count in enumerate(self.units, start=1):
            for number in range(1, count + 1):
                name = f"block{stage}/unit_{number}/bottleneck_v1"
                x = self.unit(x, name, 2 if number == 1 else 1)
        x = self.norm(x, "E_GN_0" if group else "E_BN1").permute(0, 2, 3, 1)
        x = self.dense(x.reshape(len(x), -1), "E_DenseLayer")
        return x if group else self.norm(x, "E_BN2")
