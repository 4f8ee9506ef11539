"""python -m ganlab.impute checkpoint=FILE input=FILE.csv output=FILE.csv: the missing cells of a table filled in."""

from collections.abc import Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig

from ganlab.conf import CONF
from ganlab.entry import run
from ganlab.limits import check_arguments


@hydra.main(version_base="1.3", config_path=CONF, config_name="impute")
def main(cfg: DictConfig) -> None:
    run(cfg, impute, checkpoint="outputs/.../checkpoints/last.ckpt", input="table.csv")


def impute(
    checkpoint: str, input: str, output: str | None = None, charset: str = "utf-8", separator: str = ",", seed: int = 0,
    batch_size: int = 1024, device: str = "auto", trust: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Writes the table with its missing cells filled in by G_ema; all others, and columns that the run does not know,
    stay as they are written.

    Raises:
        ValueError: the checkpoint can't be used, or it fills in no tables, or the table lacks one of its columns
        Unavailable: the table can't be read, or nothing can be written
    """
    check_arguments("", locals(), impute)
    import torch

    from ganlab.columns import decode, encode, is_missing, text_of, values_of
    from ganlab.data.table import read_csv
    from ganlab.files import Unavailable
    from ganlab.media.rows import Rows, write_csv
    from ganlab.sharing import load, located, place_beside
    from ganlab.tasks import Impute

    sampler = load(checkpoint, trust).at(device)
    if not isinstance(sampler.task, Impute) or not isinstance(sampler.task.medium, Rows):
        raise ValueError(f"checkpoint={checkpoint} fills in no tables: train one with model=gain data=table")
    source = Path(input).expanduser()
    target = Path(output or place_beside(located(checkpoint)) / "completed" / source.name).expanduser()
    if target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f"output={output} is the input, which would be overwritten: give another output")
    columns = sampler.task.medium.columns
    text = read_csv(source, "input", charset, separator)
    values = values_of(text, columns)
    real, made = encode(values, columns), []
    for rows in torch.arange(len(real)).split(batch_size):
        batch = {"real": real[rows].to(sampler.device, sampler.dtype)}
        made.append(decode(sampler.reconstruct(batch, int(rows[0]), seed)["fake"], columns))
    filled, count, odd = text_of(torch.cat(made), columns), 0, []
    for i, column in enumerate(columns):
        name = column["name"]
        gaps = [is_missing(cell) for cell in text[name]]
        if column["kind"] != "constant":
            odd += [name for gap, unknown in zip(gaps, values[:, i].isnan().tolist(), strict=True) if unknown > gap]
        if column["kind"] != "constant" or column["value"]:
            count += sum(gaps)
        cells = zip(gaps, filled[name], text[name], strict=True)
        text[name] = [new if gap and new else old for gap, new, old in cells]
    try:
        write_csv(target, text, separator)
    except OSError as error:
        raise Unavailable(f"output={target} can't be written to: {error.strerror}") from None
    print(f"{count:,} missing cells of {len(real):,} rows were filled in: {target}")
    known = {column["name"] for column in columns}
    if others := [name for name in text if name not in known]:
        print(f"{len(others)} columns are not of the run's table, and stay as they are: {', '.join(others)[:200]}")
    if odd:
        names = ", ".join(dict.fromkeys(odd))[:200]
        print(f"{len(odd):,} cells the run's table has nothing like; they stay, and G took them for missing: {names}")
    return target


if __name__ == "__main__":
    main()
