"""The known image sets. Those that are not at hand are downloaded; none is read by unpickling."""

import gzip
import math
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ganlab.data.images import Images, conform
from ganlab.data.rounds import InMemory
from ganlab.files import Remote, Unavailable, fetch, memory, unpack

DIGITS = tuple("0123456789")


class Known(Images):
    """A set whose files have a known place and format.

    counts   images of each class to train on; None: equally many
    """

    counts: tuple[int, ...] | None = None

    @abstractmethod
    def read(self, split: str) -> tuple[Tensor, Tensor | None]:
        """(uint8 [N, C, H, W] of native shape, int64 [N] labels or None) of "train" or "test"; fetched if need be."""

    def load(self, split: str) -> InMemory:
        (real, label), shape = self.read(split), self.facts()["shape"]
        if label is not None and not 0 <= int(label.min()) <= int(label.max()) < (self.classes or 0):
            raise Unavailable(
                f"{self.title}, {split}: there are labels beyond its {self.classes} classes. Remove its files."
            )
        if (needed := len(real) * math.prod(shape)) > memory():
            raise ValueError(
                f"data.size={shape[1:]}: the set would take {needed >> 30} GiB of memory, more than there is"
            )
        return InMemory(conform(real, shape), label)

    def measure(self) -> None:
        self.frequencies = [n / sum(self.counts) for n in self.counts] if self.counts else None


class Digits(Known):
    """scikit-learn's handwritten digits: 1,797 grey images 8x8 with 17 levels (Alpaydin & Kaynak 1998, UCI Optical
    Recognition of Handwritten Digits, test part; CC BY 4.0). They come with scikit-learn: nothing is downloaded.

    Every fifth image is kept for testing."""

    native, classes, class_names = (1, 8, 8), 10, DIGITS
    counts = (151, 161, 143, 131, 147, 154, 150, 136, 127, 138)

    def read(self, split: str) -> tuple[Tensor, Tensor]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        chosen = (np.arange(len(digits.images)) % 5 == 4) == (split == "test")
        images = np.round(digits.images[chosen] * (255 / 16)).astype(np.uint8)
        return torch.from_numpy(images)[:, None], torch.from_numpy(digits.target[chosen]).long()


class MNIST(Known):
    """Handwritten digits: 60,000 + 10,000 grey images 28x28 (LeCun, Cortes & Burges)."""

    native, classes, class_names = (1, 28, 28), 10, DIGITS
    counts: tuple[int, ...] | None = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
    folder = "MNIST/raw"  # torchvision's, inside root
    mirrors: tuple[str, ...] = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")
    checksums = {
        "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
    }

    def read(self, split: str) -> tuple[Tensor, Tensor]:
        part = "train" if split == "train" else "t10k"
        images, labels = (self.idx(f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
        return torch.from_numpy(images)[:, None], torch.from_numpy(labels).long()

    def idx(self, name: str) -> np.ndarray:
        """The array in an idx file: 4 bytes, of which the last is the number of dimensions, those, then uint8 data."""
        places = [f"{folder}{name}{ending}" for folder in (f"{self.folder}/", "") for ending in ("", ".gz")]
        path = find(self.root, *places)
        if path is None:
            urls = tuple(f"{mirror}{name}.gz" for mirror in self.mirrors)
            path = fetch(Remote(f"{name}.gz", urls, f"md5:{self.checksums[name]}"), self.root or ".")
        try:
            with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
                content = file.read()
            dims = content[3]
            shape = np.frombuffer(content, ">u4", dims, offset=4).astype(int)
            return np.frombuffer(content, np.uint8, offset=4 + 4 * dims).reshape(shape).copy()
        except (IndexError, ValueError, EOFError, OSError) as error:
            raise Unavailable(f"{path} is damaged ({error}). Remove it.") from None


class FashionMNIST(MNIST):
    """Zalando's articles: 60,000 + 10,000 grey images 28x28 (Xiao et al. 2017, arXiv:1708.07747)."""

    counts = None
    folder = "FashionMNIST/raw"
    class_names = (
        "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
    )  # fmt: skip
    mirrors = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
    checksums = {
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    }


class CIFAR10(Known):
    """50,000 + 10,000 colour photographs 32x32 (Krizhevsky 2009), from the official binary distribution.

    `root` may hold the archive, or its extracted .bin files; the training batches alone are enough to train."""

    native, classes = (3, 32, 32), 10
    class_names: Sequence[str] | None = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    archive = Remote(
        "cifar-10-binary.tar.gz",
        (
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/cifar-10-binary.tar.gz",
            "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/cifar-10-binary.tar.gz",
        ),
        "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    )
    folder = "cifar-10-batches-bin"
    files = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
    label_bytes, label_at = 1, 0

    def read(self, split: str) -> tuple[Tensor, Tensor]:
        paths = [find(self.root, name, f"{self.folder}/{name}") for name in self.files[split]]
        if None in paths:
            archive = fetch(self.archive, self.root or ".", f"The extracted {self.folder}/*.bin are enough, too.")
            unpack(archive, archive.parent)
            paths = [archive.parent / self.folder / name for name in self.files[split]]
        width = self.label_bytes + 3 * 32 * 32
        rows = np.concatenate([images_in(path, width) for path in paths if path is not None])
        images = torch.from_numpy(rows[:, self.label_bytes :].reshape(-1, 3, 32, 32).copy())
        return images, torch.from_numpy(rows[:, self.label_at].copy()).long()


class CIFAR100(CIFAR10):
    """The same in 100 classes of 500 + 100 images; labels are the fine ones."""

    classes, class_names = 100, None
    archive = Remote(
        "cifar-100-binary.tar.gz",
        ("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
        "sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    )
    folder = "cifar-100-binary"
    files = {"train": ("train.bin",), "test": ("test.bin",)}
    label_bytes, label_at = 2, 1


class SVHN(Known):
    """Street view house numbers: 73,257 + 26,032 colour images 32x32 (Netzer et al. 2011)."""

    native, classes, class_names = (3, 32, 32), 10, DIGITS
    counts = (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659)
    checksums = {"train": "e26dedcc434d2e4c54c9b2d4a06d8373", "test": "eb5a983be6a315427106f1b164d9cef3"}

    def read(self, split: str) -> tuple[Tensor, Tensor]:
        from scipy.io import loadmat

        name = f"{split}_32x32.mat"
        url = f"http://ufldl.stanford.edu/housenumbers/{name}"
        content = loadmat(fetch(Remote(name, (url,), f"md5:{self.checksums[split]}"), self.root or "."))
        images = torch.from_numpy(content["X"]).permute(3, 2, 0, 1).contiguous()  # [H, W, C, N] -> [N, C, H, W]
        return images, torch.from_numpy(content["y"].astype(np.int64)[:, 0]) % 10  # there, 10 stands for the digit 0


class STL10(Known):
    """105,000 colour photographs 96x96, 5,000 of them labelled (Coates et al. 2011). To train on, the labelled and the
    unlabelled ones together, without labels; 8,000 to test on."""

    native = (3, 96, 96)
    archive = Remote(
        "stl10_binary.tar.gz",
        ("http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",),
        "md5:91f7769df0f17e558f3565bffb0c7dfb",
    )

    def read(self, split: str) -> tuple[Tensor, None]:
        names = ("train_X.bin", "unlabeled_X.bin") if split == "train" else ("test_X.bin",)
        paths = [find(self.root, name, f"stl10_binary/{name}") for name in names]
        if None in paths:
            archive = fetch(self.archive, self.root or ".", "The extracted stl10_binary/*.bin are enough, too.")
            unpack(archive, archive.parent)
            paths = [archive.parent / "stl10_binary" / name for name in names]
        columns = np.concatenate([images_in(path, 3 * 96 * 96) for path in paths if path is not None])
        return torch.from_numpy(columns).view(-1, 3, 96, 96).transpose(
            2, 3
        ).contiguous(), None  # stored column by column


def images_in(path: Path, width: int) -> np.ndarray:
    """[N, width] bytes of a file that holds N images.

    Raises:
        Unavailable: it holds parts of images
    """
    content = np.fromfile(path, np.uint8)
    if content.size == 0 or content.size % width:
        raise Unavailable(f"{path} is damaged: {content.size:,} bytes are not whole images of {width:,}. Remove it.")
    return content.reshape(-1, width)


def find(root: Path | None, *names: str) -> Path | None:
    """The first of these files that is in root."""
    return next((root / name for name in names if (root / name).is_file()), None) if root is not None else None
