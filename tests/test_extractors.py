"""Feature extractors against the implementations that they stand for, their weights, and what they refuse."""

import math
import pickle
import zipfile

import numpy as np
import pytest
import torch
import torch_fidelity.feature_extractor_clip as fidelity_clip
import torchvision
from made import SHARED, inception_file, noise_images, squeezenet_file
from PIL import Image
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from ganlab import weights
from ganlab.data.sets import Digits
from ganlab.files import Remote, Unavailable, digest
from ganlab.metrics.extractors import Classifier, Own, Pixels
from ganlab.metrics.networks import CLIP, LPIPS, DINOv2, Inception, Torchvision
from ganlab.metrics.resize import resized
from ganlab.metrics.scorer import named
from ganlab.metrics.vit import DINOv2Network


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory):
    return inception_file(tmp_path_factory.mktemp("weights"))


# -------------------------------------------------------------------------------------------------------------- resize


@pytest.mark.parametrize(("size", "to"), [(32, 299), (400, 299), (64, 224)])
def test_clean_resize_is_pils_bicubic_on_float_channels(size, to):
    """To 1e-3 grey levels."""
    x = noise_images(2, size)
    ours = resized(x, to, "clean")
    for image, result in zip(x, ours, strict=True):
        for channel, got in zip(image, result, strict=True):
            float_image = Image.fromarray(channel.numpy().astype(np.float32), mode="F")
            theirs = np.asarray(float_image.resize((to, to), Image.Resampling.BICUBIC)).clip(0, 255)
            assert np.abs(got.numpy() - theirs).max() <= 1e-3


def test_the_ways_to_resize_differ():
    x = noise_images(2, 32)
    tf1, torch_, clean = (resized(x, 299, how) for how in ("tf1", "torch", "clean"))
    assert torch.equal(tf1, interpolate_bilinear_2d_like_tensorflow1x(x.float(), (299, 299), align_corners=False))
    assert (tf1 - torch_).abs().mean() > 1
    assert (clean - torch_).abs().mean() > 0.1
    for size, to in ((32, (24, 40)), (64, (17, 17))):  # larger and smaller, not square: the same to the last bit
        other = noise_images(2, size)[:, :, : to[0], : to[1]].float()
        expected = interpolate_bilinear_2d_like_tensorflow1x(other, (29, 29), align_corners=False)
        assert torch.equal(resized(other, 29, "tf1"), expected)
    for how in ("tf1", "torch", "clean"):
        assert torch.allclose(resized(x, 32, how), x.float(), atol=1e-4)
    with pytest.raises(ValueError, match=r"extractor.resize='pil': must be one of tf1, torch, clean"):
        Inception(resize="pil")


# ----------------------------------------------------------------------------------------------------------- Inception


def alike(a, b):
    """To 1e-4 of how far the numbers reach."""
    return (a - b).abs().max() <= 1e-4 * b.abs().max()


def test_inception_is_torch_fidelitys(inception_weights):
    wanted = ["2048", "logits_unbiased"]
    theirs = FeatureExtractorInceptionV3("inception", wanted, feature_extractor_weights_path=str(inception_weights))
    inside = []
    theirs.Mixed_6d.branch1x1.register_forward_hook(lambda *a: inside.append(a[2]))
    extractor = Inception(weights=str(inception_weights))
    extractor.prepare()
    x = noise_images(2)
    ours, expected = extractor(x), theirs(x)
    assert expected[0].std(0).mean() > 0.01  # the network sees something
    assert alike(ours["features"], expected[0])
    assert alike(ours["logits"], expected[1])
    assert alike(ours["spatial"], inside[0][:, :7].flatten(1))
    assert ours["spatial"].shape == (2, 2023)  # as in the paper: 7 x 17 x 17
    grey = x[:, :1]
    assert alike(extractor(grey)["features"], theirs(grey.expand(-1, 3, -1, -1))[0])
    extractor.resize = "torch"
    assert not alike(extractor(x)["features"], expected[0])
    extractor.resize = "tf1"
    assert digest(inception_weights)[:8] in extractor.describe()
    assert "TensorFlow 1" in extractor.describe()


@pytest.mark.parametrize("net", ["inception", "squeezenet", "lpips"])
def test_bf16_is_a_protocol_of_its_own(tmp_path, inception_weights, net):
    """Its features are near float32's but no others' numbers stand under their name; float32 stays what it is."""
    path = str(inception_weights if net == "inception" else squeezenet_file(tmp_path))
    make = {
        "inception": lambda p: Inception(weights=path, precision=p),
        "squeezenet": lambda p: Torchvision("squeezenet1_1", "features", weights=path, precision=p),
        "lpips": lambda p: LPIPS("squeeze", weights=path, precision=p),
    }[net]
    exact, fast = make(32), make("bf16")
    for extractor in (exact, fast):
        extractor.prepare()
    assert fast.name == f"{exact.name}-bf16"
    assert fast.describe() != exact.describe()
    assert fast.describe().replace("-bf16", "") == exact.describe()
    x = noise_images(4, 64)
    outputs = [named(extractor(x)) for extractor in (exact, fast)]
    with torch.autocast("cpu", torch.bfloat16):  # of whoever asks
        assert all(torch.equal(v, outputs[0][k]) for k, v in named(exact(x)).items())
    for key, expected in outputs[0].items():
        off = (outputs[1][key] - expected).norm() / expected.norm()
        assert 1e-5 < off < 0.3  # a random Inception multiplies rounding by 40
        assert outputs[1][key].dtype == torch.float32


def test_float32_means_float32_on_a_gpu_too(monkeypatch):
    """By default cuDNN rounds what convolutions multiply to 10 bits."""
    seen, net = [], Inception()
    net.net = nn.Identity()
    monkeypatch.setattr(net, "look", lambda x: seen.append(torch.backends.cudnn.allow_tf32) or x)
    before = torch.backends.cudnn.allow_tf32
    net(noise_images(2, 32))
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32 is before


@pytest.mark.parametrize("precision", [16, "32", "bf16-mixed", None])
def test_other_precisions_are_refused(precision):
    with pytest.raises(ValueError, match=r"extractor.precision=.*: must be 32 or bf16"):
        Inception(precision=precision)


def test_torchvisions_network_is_what_it_was(tmp_path):
    """With its batch norm folded, and in another memory format."""
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(weights=None).eval()
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for value in (layer.weight.data, layer.running_var):
                value.uniform_(0.5, 1.5)
            for value in (layer.bias.data, layer.running_mean):
                value.normal_(std=0.1)
    torch.save(theirs.state_dict(), tmp_path / "resnet.pth")
    ours = Torchvision("resnet18", "avgpool", weights=str(tmp_path / "resnet.pth"))
    ours.prepare()
    x = noise_images(2)
    outputs, expected = ours(x), theirs(ours.seen(x))
    assert alike(outputs["logits"], expected)
    assert alike(outputs["features"] @ theirs.fc.weight.T + theirs.fc.bias, expected)


def test_weights_that_can_not_be_had(monkeypatch):
    monkeypatch.setattr(Inception, "remote", Remote("w.pth", ("http://127.0.0.1:9/w.pth",), Inception.remote.checksum))
    with pytest.raises(Unavailable) as error:
        Inception().prepare()
    named = ("http://127.0.0.1:9/w.pth", Inception.remote.checksum, "w.pth", "extractor.weights", "metrics.enabled")
    assert all(part in str(error.value) for part in named)
    with pytest.raises(Unavailable, match="no such file"):
        Inception(weights="nowhere.pth").prepare()


def test_a_weights_file_that_was_tampered_with_is_refused(monkeypatch, tmp_path, inception_weights):
    good = digest(inception_weights)
    bad = tmp_path / "cache" / "weights" / "w.pth"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"x" + inception_weights.read_bytes())
    monkeypatch.setattr(Inception, "remote", Remote("w.pth", ("http://127.0.0.1:9/w.pth",), f"sha256:{good}"))
    with pytest.raises(Unavailable, match="another checksum"):
        Inception().prepare()
    with pytest.raises(Unavailable, match="another file than expected"):
        Inception(weights=str(bad), checksum=f"sha256:{good}").prepare()
    with pytest.raises(Unavailable, match="can't be read as weights"):
        Inception(weights=str(bad)).prepare()
    Inception(weights=str(inception_weights), checksum=f"sha256:{good[:8].upper()}").prepare()
    for checksum, path in (("sha256:", str(inception_weights)), (f"sha256:{good}", None)):
        with pytest.raises(ValueError, match="must be sha256"):
            Inception(weights=path, checksum=checksum).prepare()


class Bomb:
    def __reduce__(self):
        return (print, ("a file was run",))


def test_weights_files_run_nothing(tmp_path, capsys):
    torch.save({"x": Bomb()}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Bomb()))
    with zipfile.ZipFile(tmp_path / "c.pt", "w") as file:  # as a TorchScript archive
        file.writestr("c/constants.pkl", b"")
        file.writestr("c/data.pkl", pickle.dumps(Bomb(), protocol=2))
    for name in ("a.pth", "b.pth", "c.pt"):
        with pytest.raises(Unavailable, match="can't be read as weights"):
            weights.read(tmp_path / name)
    assert "a file was run" not in capsys.readouterr().out
    torch.save([1, 2], tmp_path / "d.pth")
    with pytest.raises(Unavailable, match="holds no weights"):
        weights.read(tmp_path / "d.pth")


def test_weights_of_another_network_are_refused(tmp_path, inception_weights):
    small = squeezenet_file(tmp_path)
    for extractor in (Inception, DINOv2, CLIP, LPIPS):
        with pytest.raises(ValueError, match="another network's"):
            extractor(weights=str(small)).prepare()
    with pytest.raises(ValueError, match="another network's"):
        Torchvision("squeezenet1_1", "features", weights=str(inception_weights)).prepare()


# ------------------------------------------------------------------------------------------------------- other networks


def test_safetensors_and_torch_files_are_the_same(tmp_path):
    from safetensors.torch import save_file

    path = squeezenet_file(tmp_path)
    save_file(torch.load(path, weights_only=True), tmp_path / "w.safetensors")
    x = noise_images(2, 48)
    nets = [Torchvision("squeezenet1_1", "features", weights=str(p)) for p in (path, tmp_path / "w.safetensors")]
    for net in nets:
        net.prepare()
    outputs = [net(x) for net in nets]
    assert torch.equal(outputs[0]["features"], outputs[1]["features"])
    assert outputs[0]["features"].shape == (2, 512)
    assert outputs[0]["logits"].shape == (2, 1000)
    assert nets[0].describe() != nets[1].describe()  # the hash of the file


@pytest.mark.slow
def test_vgg16_is_torch_fidelitys(tmp_path):
    path = tmp_path / "vgg.pth"
    torch.save(torchvision.models.vgg16(weights=None).state_dict(), path)
    theirs = FeatureExtractorVGG16("vgg16", ["fc2_relu"], feature_extractor_weights_path=str(path))
    ours = Torchvision("vgg16", "classifier.4", weights=str(path))
    ours.prepare()
    x = noise_images(1)
    assert torch.allclose(ours(x)["features"], theirs(x)[0], rtol=1e-4, atol=1e-6)


def test_torchvision_names_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="no classifier of that name"):
        Torchvision("squeezenet9", "features")
    with pytest.raises(ValueError, match="of squeezenet1_1 it can't be"):
        Torchvision("squeezenet1_1", "nowhere", weights=str(squeezenet_file(tmp_path))).prepare()


def test_dinov2_is_a_vision_transformer(tmp_path):
    """Of the same weights, torchvision's gives the same class token, where LayerScale is 1."""
    torch.manual_seed(0)
    theirs = torchvision.models.VisionTransformer(28, 14, num_layers=2, num_heads=2, hidden_dim=128, mlp_dim=512)
    theirs.heads = nn.Identity()
    nn.init.normal_(theirs.class_token)
    state = {
        "cls_token": theirs.class_token,
        "pos_embed": theirs.encoder.pos_embedding,
        "mask_token": torch.zeros(1, 128),
    }
    state |= {f"patch_embed.proj.{k}": v for k, v in theirs.conv_proj.named_parameters()}
    state |= {f"norm.{k}": v for k, v in theirs.encoder.ln.named_parameters()}
    for i, layer in enumerate(theirs.encoder.layers):
        names = {"ln_1": "norm1", "ln_2": "norm2", "self_attention.in_proj_": "attn.qkv.", "mlp.0": "mlp.fc1",
                 "self_attention.out_proj": "attn.proj", "mlp.3": "mlp.fc2"}  # fmt: skip
        for key, value in layer.named_parameters():
            for old, new in names.items():
                key = key.replace(old, new)
            state[f"blocks.{i}.{key}"] = value
        state |= {f"blocks.{i}.ls{j}.gamma": torch.ones(128) for j in (1, 2)}
    path = tmp_path / "dinov2.pth"
    torch.save({k: v.detach() for k, v in state.items()}, path)
    extractor = DINOv2("vits14", weights=str(path))
    extractor.size = 28
    extractor.prepare()
    x = noise_images(2)
    assert torch.allclose(extractor(x), theirs.eval()(extractor.seen(x)), rtol=1e-4, atol=1e-5)


def test_dinov2_sees_other_sizes():
    net = DINOv2Network(64, 1, patch=14, positions=37 * 37)
    nn.init.normal_(net.pos_embed)
    assert net.positions(16, 16).shape == (1, 257, 64)
    assert torch.equal(net.positions(37, 37), net.pos_embed)
    assert net(torch.randn(1, 3, 224, 224)).shape == (1, 64)


class ClipLike(nn.Module):
    """What a published CLIP file holds, in small."""

    def __init__(self):
        super().__init__()
        self.visual = fidelity_clip.VisionTransformer(224, 112, 64, 1, 1, 16)
        self.transformer = nn.Linear(2, 2)
        self.text_projection = nn.Parameter(torch.randn(4, 16))
        self.logit_scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.visual(x)


def test_clip_is_read_from_its_script_without_running_it(tmp_path):
    torch.manual_seed(0)
    net = ClipLike().eval()
    for p in net.parameters():
        nn.init.normal_(p, std=0.1)
    path = tmp_path / "ViT.pt"
    torch.jit.trace(net, torch.zeros(1, 3, 224, 224)).save(str(path))
    state = weights.read(path)
    assert state.keys() == net.state_dict().keys()
    assert all(torch.equal(state[k], v) for k, v in net.state_dict().items())
    extractor = CLIP("vit-b-32", weights=str(path))
    extractor.prepare()
    x = noise_images(2)
    assert torch.allclose(extractor(x), net.visual(extractor.seen(x)), rtol=1e-3, atol=1e-3)  # theirs passes by float16


@pytest.mark.skipif(not (SHARED / "weights").exists(), reason=f"no trained weights at {SHARED / 'weights'}")
def test_trained_weights_see_what_is_alike(tmp_path):
    """With real weights of SqueezeNet and real LPIPS heads: two views of one digit are nearer than two digits are."""
    path = SHARED / "weights" / "squeezenet1_1_caffe_fp16.pt"
    lpips = LPIPS("squeeze", weights=str(path))
    lpips.prepare()
    data = Digits(size=64, channels=3).split("train").take(torch.arange(40))
    distance = torch.cdist(lpips(data["real"]), lpips(data["real"])).square()
    same = data["label"][:, None] == data["label"][None]
    others = ~torch.eye(40, dtype=torch.bool)
    assert distance[same & others].mean() < 0.85 * distance[~same].mean()


# ------------------------------------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize(
    ("extractor", "facts", "message"),
    [
        (Inception(), {"shape": [4, 32, 32]}, "1 or 3 channels"),
        (Inception(), {"shape": [2]}, "extractor=pixels"),
        (LPIPS(), {"shape": [3, 16, 16]}, "at least 32x32"),
        (Classifier(), {"shape": [3, 32, 32], "classes": None}, "images of one class each"),
        (Classifier(), {"shape": [2], "classes": 8}, "images of one class each"),
    ],
)
def test_extractors_refuse_data_they_can_not_see(extractor, facts, message):
    with pytest.raises(ValueError, match=message):
        extractor.check(facts)


def test_classifier_is_trained_once_and_kept(tmp_path):
    data = Digits(size=16)
    first, second = Classifier(epochs=4), Classifier(epochs=4)
    first.prepare(data)
    assert first.accuracy > 0.95
    (path,) = (tmp_path / "cache").rglob("*.pt")
    written = path.stat().st_mtime_ns
    state = torch.random.get_rng_state()
    second.prepare(data)
    assert path.stat().st_mtime_ns == written
    assert torch.equal(torch.random.get_rng_state(), state)  # the global generator is left alone
    x = data.split("test").take(torch.arange(7))["real"]
    assert first(x)["features"].shape == (7, 64)
    assert first(x)["logits"].shape == (7, 10)
    assert torch.equal(first(x)["features"], second(x)["features"])
    assert first.hash == second.hash
    assert f"{first.accuracy:.1%}" in first.describe()
    assert not any(p.requires_grad for p in first.parameters())


def test_classifiers_of_small_sets_have_few_features():
    with pytest.raises(ValueError, match="at most 128"):
        Classifier(features=129).prepare(Digits())


def test_pixels_are_the_numbers():
    x = torch.randn(3, 2)
    assert torch.equal(Pixels()(x), x)
    assert Pixels()(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).tolist() == [[-1, 1]]


def test_a_network_of_ones_own(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    torch.save(net.state_dict(), tmp_path / "own.pth")
    own = Own(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), "mine", weights=str(tmp_path / "own.pth"))
    own.prepare()
    x = torch.randint(0, 256, (5, 3, 2, 2), dtype=torch.uint8)
    assert torch.allclose(own(x), net(x / 127.5 - 1))
    assert math.isfinite(own(x).sum())
    assert own.hash in own.describe()
    assert len({described(Pooling("mean")), described(Pooling("max")), described(Pooling("mean").bfloat16())}) == 3
    assert described(Pooling("mean")) == described(Pooling("mean"))


class Pooling(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how, self.scale = how, nn.Parameter(torch.ones(()))

    def forward(self, x):
        return getattr(x.flatten(2), {"mean": "mean", "max": "amax"}[self.how])(2) * self.scale


def described(net):
    own = Own(net, "mine")
    own.prepare()
    return own.describe()
