"""The files that a trained generator can become. Each is compared with PyTorch before it is written."""

import importlib.util
import io
import math
import warnings
from collections.abc import Callable
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ganlab.phase import wrap
from ganlab.rng import IndexedRNG
from ganlab.tasks import Segment

BATCHES, TOLERANCE = (1, 2, 5), 1e-4  # what is compared, and how far images in [-1, 1] may be from PyTorch's
LARGEST = 2_000_000_000  # bytes of an ONNX file
Fresh = Callable[[], nn.Module]  # the generator once more: tracing changes it


def as_safetensors(sampler: Any, fresh: Fresh) -> tuple[bytes, dict[str, Any]]:
    """The weights as `load_state_dict` takes them."""
    state = sampler.G.state_dict()
    if other := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"the generator's state has {other[0]}, which is no tensor, so it can't be shared safely")
    return safetensors.torch.save({k: v.contiguous().clone() for k, v in state.items()}, {"format": "pt"}), {}


def as_torch_export(sampler: Any, fresh: Fresh) -> tuple[bytes, dict[str, Any]]:
    """An ExportedProgram for batches of any size."""
    file = io.BytesIO()
    torch.export.save(traced(sampler, fresh()), file)
    file.seek(0)
    again = torch.export.load(file).module()  # what was written in the line above: it can be trusted
    return file.getvalue(), {"torch": torch.__version__, **compared(sampler, lambda inputs: again(*inputs.values()))}


def as_onnx(sampler: Any, fresh: Fresh) -> tuple[bytes, dict[str, Any]]:
    """An ONNX model for batches of any size."""
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]:
        raise ModuleNotFoundError(f'format=onnx needs {", ".join(missing)}: pip install "ganlab[export]"')
    if (size := sum(p.nbytes for p in sampler.G.parameters())) > LARGEST:
        raise ValueError(f"format=onnx: the weights are {size / 1e9:.1f} GB, and an ONNX file holds at most 2")
    import onnxruntime

    program, names = traced(sampler, fresh()), list(inputs_of(sampler))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=names, output_names=["images"], external_data=False,
            dynamic_shapes={name: {0: "batch"} for name in names}, optimize=False,  # which would take 1e-8 for 0
        )  # fmt: skip
    assert made is not None
    content = made.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    run = lambda inputs: torch.from_numpy(session.run(None, {k: v.numpy() for k, v in inputs.items()})[0])
    return content, {"opset": made.model_proto.opset_import[0].version, **compared(sampler, run)}


WRITERS: dict[str, Callable[[Any, Fresh], tuple[bytes, dict[str, Any]]]] = {
    "safetensors": as_safetensors, "onnx": as_onnx, "torch_export": as_torch_export,
}  # fmt: skip


def drawn(sampler: Any, n: int) -> dict[str, Tensor]:
    """What G is handed for samples 0 .. n - 1: z, and label where it is told one; or where it starts from images, any.

    Raises:
        ValueError: the task draws something else
    """
    if from_images(sampler):
        return {"image": 2 * IndexedRNG(0, range(n)).uniform(*started_from(sampler)) - 1}
    z, label = sampler.task.draw(IndexedRNG(0, range(n)))
    if not isinstance(z, Tensor) or not isinstance(label, (Tensor, type(None))):
        raise ValueError(f"{type(sampler.task).__name__} draws other things than z and a label, and can't be exported")
    return {"z": z} | ({} if label is None else {"label": label})


def from_images(sampler: Any) -> bool:
    return not hasattr(sampler.task, "draw")


def started_from(sampler: Any) -> list[int]:
    """[C, H, W] of the images.

    Raises:
        ValueError: G was not made with them
    """
    shape = sampler.arguments.get("inputs") or sampler.arguments.get("shape")
    if not isinstance(shape, (list, tuple)):
        raise ValueError(f"{type(sampler.G).__name__} does not say what it starts from: an argument called inputs does")
    return list(shape)


@torch.no_grad()
def made(sampler: Any, inputs: dict[str, Tensor]) -> Tensor:
    """What PyTorch makes of them."""
    return sampler.task.made(sampler.G, *inputs.values()) if from_images(sampler) else sampler(*inputs.values())


def inputs_of(sampler: Any) -> dict[str, Any]:
    """{name: {"shape", "type", "drawn"}} of what G is handed."""
    task = sampler.task
    degradation = getattr(task, "degradation", None)
    left = f", of which {type(degradation).__name__.lower()} left this" if degradation is not None else ""
    laws = {"z": getattr(task, "z", None), "image": f"an image in [-1, 1]{left}"}
    if (classes := getattr(task, "classes", None)) is not None:
        laws["label"] = "0 or 1 for each attribute" if task.several else f"0 to {classes - 1}"
    if hasattr(task, "codes"):
        laws["z"] = f"{task.z}, and in its last {task.codes} places codes: one-hot of {task.categories}, then uniform"
    return {
        name: {"shape": ["batch", *x.shape[1:]], "type": str(x.dtype).removeprefix("torch."), "drawn": laws.get(name)}
        for name, x in drawn(sampler, 1).items()
    }


def output_of(sampler: Any) -> dict[str, Any]:
    """{"shape", "type", "range"} of what G makes; points have no range, and of a segmentation it is probabilities."""
    x = made(sampler, drawn(sampler, 1))
    kind, low = str(x.dtype).removeprefix("torch."), 0 if isinstance(sampler.task, Segment) else -1
    return {"shape": ["batch", *x.shape[1:]], "type": kind, "range": [low, 1] if x.dim() == 4 else None}


class FromNoise(nn.Module):
    """z [N, z_dim] -> what G makes, and nothing beside it."""

    def __init__(self, G: nn.Module):
        super().__init__()
        self.G = G

    def forward(self, z: Tensor) -> Tensor:
        return wrap(self.G(z)).fake


class FromLabels(FromNoise):
    """The same with a label."""

    def forward(self, z: Tensor, label: Tensor) -> Tensor:  # type: ignore[override]
        return wrap(self.G(z, label)).fake


class FromImages(FromNoise):
    """What G starts from [N, *inputs] -> images [N, *shape], as the task shows them."""

    def __init__(self, G: nn.Module, task: Any):
        super().__init__(G)
        self.task = task

    def forward(self, image: Tensor) -> Tensor:
        return self.task.made(self.G, image)


def traced(sampler: Any, G: nn.Module) -> Any:
    """The program of G for batches of any size, with weights as they are used: spectral norm is divided out."""
    for layer in G.modules():
        for name in list(layer.parametrizations) if parametrize.is_parametrized(layer) else ():  # type: ignore[arg-type]
            parametrize.remove_parametrizations(layer, name)
    inputs, batch = drawn(sampler, 3), torch.export.Dim("batch", min=1)
    net = FromImages(G, sampler.task) if "image" in inputs else FromLabels(G) if "label" in inputs else FromNoise(G)
    with torch.no_grad():
        program = torch.export.export(
            net.eval(), tuple(inputs.values()), dynamic_shapes={name: {0: batch} for name in inputs}
        )
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # where the code lies on this machine is nobody's business
    return program


def compared(sampler: Any, run: Callable[[dict[str, Tensor]], Tensor]) -> dict[str, Any]:
    """{"check": how far the images of `run` are from PyTorch's}

    Raises:
        ValueError: too far
    """
    worst, batches = 0.0, [drawn(sampler, n) for n in BATCHES]
    for inputs in [*batches, {name: torch.zeros_like(x) for name, x in batches[0].items()}]:  # 0: is it divided by?
        expected, found = made(sampler, inputs), run(inputs)
        if found.shape != expected.shape:
            raise ValueError(f"the exported model's images are {list(found.shape)}, PyTorch's {list(expected.shape)}")
        scale = expected.abs().max().clamp(min=1)  # of those that no tanh bounds
        worst = max(worst, (found - expected).abs().div(scale).nan_to_num(math.inf).max().item())
    if not worst <= TOLERANCE:
        raise ValueError(f"the exported model's images are {worst:.2g} away from PyTorch's: it was not written")
    return {"check": {"batches": list(BATCHES), "largest_difference": worst, "allowed": TOLERANCE}}
