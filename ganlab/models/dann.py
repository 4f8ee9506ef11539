"""DANN: a classifier whose features do not tell of which of two domains an image is.

Domain-Adversarial Training of Neural Networks (Ganin et al. 2016), arXiv:1505.07818. As two players: D tells domains
apart by the features, and G, which makes them, wants it to fail. Ganin et al. turn D's gradient around for G, which is
the minimax game; inverted labels have the same fixed point and stronger gradients (Tzeng et al. 2017, arXiv:1702.05464,
section 3.2), and are what `conf/model/dann.yaml` plays.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ganlab.nn.pyramid import image_shape
from ganlab.phase import GeneratorOutput


class Generator(nn.Module):
    """Images [N, *inputs] -> class logits [N, *shape], with features [N, features] as aux: convolutions of 5x5 with
    pooling between them and fully connected layers (figure 4a).

    shape      [classes]
    inputs     [C, H, W] of the images
    width      channels of the first convolution; the second has half as many more
    features   of an image, which D sees
    """

    def __init__(self, shape: Sequence[int], inputs: Sequence[int], width: int = 32, features: int = 128):
        super().__init__()
        (classes,), (channels, height, breadth) = shape, image_shape(inputs, "dann")
        if min(height, breadth) < 4:
            raise ValueError(f"model=dann: images of {height}x{breadth} are too small: 4x4 at least")
        wider = width + width // 2
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, wider, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(wider * (height // 4) * (breadth // 4), features), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, classes))

    def forward(self, x: Tensor) -> GeneratorOutput:
        features = self.body(x)
        return GeneratorOutput(self.head(features), features)


class Discriminator(nn.Sequential):
    """(class logits, which it does not look at, and features [N, features]) -> logits [N], high for the source.

    width   units of its hidden layer
    """

    def __init__(self, features: int = 128, width: int = 128):
        super().__init__(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, 1), nn.Flatten(0))

    def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:
        return super().forward(x[1])
