"""expunge unlearn: one model, one request, one method."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import typer


def unlearn(
    model: str = typer.Option(..., help="A model's name, or your own module:function that returns one."),
    weights: Path = typer.Option(..., help="Its weights: .safetensors, or a .pt of tensors only."),
    data: str = typer.Option(..., help="The training data: a name, a path, or your own module:function."),
    method: str = typer.Option(..., help="See: expunge methods."),
    out: Path = typer.Option(..., help="Folder for the unlearned weights and the record."),
    classes: list[str] = typer.Option([], help="Classes to forget, e.g. 3 or 3,5 or cat,dog."),
    ids: list[Path] = typer.Option([], help="A text or CSV file with the ids to forget."),
    fraction: Optional[float] = typer.Option(None, help="Forget a random share of the rows."),  # noqa: UP045
    gone: list[Path] = typer.Option(
        [], help="Likewise those that earlier requests removed, where the weights do not say."
    ),
    changes: list[str] = typer.Option([], "--set", help="A field of the method, e.g. epochs=5."),
    model_fields: list[str] = typer.Option([], "--model-set", help="A field of the model, e.g. width=16."),
    ledger: Optional[Path] = typer.Option(None, help="The ledger of the model's training, for methods that need it."),  # noqa: UP045
    purge: bool = typer.Option(False, help="Afterwards remove the rows' updates and ids from the ledger for good."),
    seed: int = typer.Option(0, help="Of every random draw."),
    force: bool = typer.Option(False, help="Write into a folder that holds something else."),
) -> None:
    """Remove rows from one model, and write the new weights with a record of what was done.

    Example: `expunge unlearn --model lenet --weights lenet.safetensors --data mnist --classes 3 --method neggrad_plus
    --out forgotten`
    """
    import sys

    from expunge import io
    from expunge.artifact.ledger import Ledger
    from expunge.cli.ledger import only_ledger
    from expunge.cli.parts import class_list, command_line, one_file, values
    from expunge.dossier import versions
    from expunge.errors import ExpungeError, collected, raise_if
    from expunge.experiment import build_model, load_data, make_request
    from expunge.experiment.parts import check_model, check_request
    from expunge.registry import make
    from expunge.run import Run
    from expunge.unlearning import unlearn as forget

    sys.path.insert(0, "")  # a user's own modules lie in the current folder
    problems: list[str] = []
    with collected(problems):
        run = Run(seed=seed)
    with collected(problems):
        chosen_method = make(method, values(changes))
    with collected(problems):
        described = {"build" if ":" in model else "name": model, **values(model_fields)}
        check_model(described)
    with collected(problems):
        train, _ = load_data({"build": data} if ":" in data and not data.startswith("hf:") else {"name": data})
    with collected(problems):
        asked: dict[str, Any] = {"classes": class_list(classes), "ids": one_file(ids, "--ids"), "fraction": fraction}
        chosen = {k: v for k, v in asked.items() if v is not None}
        if fraction is not None:
            chosen["seed"] = seed
        if gone:
            chosen["gone"] = one_file(gone, "--gone")
        check_request(chosen)
    with collected(problems):
        tensors, about = io.read_tensors(weights)
    with collected(problems):
        recorded = None if ledger is None else Ledger(only_ledger(ledger))
        if purge and recorded is None:
            raise ExpungeError("--purge removes what was taken back from a ledger: give --ledger as well.")
    raise_if(problems + io.folder_problems(out, force))
    request = make_request(train, chosen)
    module = build_model(described, train)
    io.put_weights(module, tensors, about, str(weights))
    folder = io.output_folder(out, force)
    result = forget(module, request, chosen_method, ledger=recorded, run=run)
    record = {
        "command": command_line(),
        "request": {"text": result.request.text, "hash": result.request.hash},
        "ids": train.ids[result.request.forget.numpy()].tolist(),
        "data": {"name": train.name, "hash": train.hash},
        "method": result.method.to_config(),
        "seed": seed,
        "seconds": result.seconds,
        "steps": result.log.steps,
        "examples": result.log.examples,
        "moved": result.moved,
        "stopped": result.log.stopped,
        "notes": result.log.notes,
        "facts": result.log.facts,
        "models": {"before": io.model_digest(module), "after": io.model_digest(result.model)},
        "versions": versions(),
    }
    io.save_weights(folder / "weights.safetensors", result.model, {"method": result.method.to_config(), "seed": seed})
    io.write_json(folder / "manifest.json", record)
    typer.echo(result.request.text)
    typer.echo("\n".join([result.summary, *result.log.notes]))
    typer.echo(f"Weights: {(folder / 'weights.safetensors').resolve()}")
    if purge and recorded is not None:
        recorded.purge(result.model)
        typer.echo(recorded.purges[-1])
    typer.echo("Whether the rows are gone, only an audit against retraining can say: expunge audit --help")


def add_to(app: typer.Typer) -> None:
    """Make the verb known."""
    app.command()(unlearn)
