"""The command line `rpm-tutorial`: lab, doctor, train, evidence, export.

Nothing heavy is imported before a command needs it, so that `--help` answers at once. Exit codes: 0; 1 for a failure,
2 for a command that was typed wrong; both with a message and its remedy instead of a traceback.
"""

import html
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click

from .. import __version__
from . import handouts, slides

NO_LAB = "JupyterLab is not installed. Remedy: python -m pip install 'rpm-tutorial[lab]'"
LOADING = "Loading PyTorch ..."  # which takes seconds; on stderr, because it is no result
# Without these JupyterLab asks its makers' server for news and for a newer release.
NO_NEWS = ("--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate")
JUPYTER = Path(__file__).with_name("jupyter")  # a configuration folder, read beside the reader's own
NO_MEMORY = ("out of memory", "can't allocate memory")  # PyTorch's words, of a GPU and of the processor
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
device_option = click.option("--device", help="cpu, cuda, cuda:1, ...  [default: CUDA where there is one]")


class Commands(click.Group):
    """Shows an error's message, which names the remedy, without its traceback."""

    def invoke(self, context: click.Context):
        try:
            return super().invoke(context)
        except BrokenPipeError:  # click ends quietly when nobody reads on
            raise
        except (ValueError, OSError) as error:
            raise click.ClickException(str(error)) from error
        except RuntimeError as error:
            if not any(words in str(error) for words in NO_MEMORY):
                raise
            smaller = "fewer pairs" if context.invoked_subcommand == "evidence" else "a smaller --dim or --batch-size"
            why, remedy = str(error).splitlines()[0], f"{smaller}, or --device cpu"
            raise click.ClickException(f"There is too little memory ({why}). Remedy: {remedy}") from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rpm-tutorial")
def main() -> None:
    """InfoNCE is variational inference: a course that runs.

    \b
    Examples:
      rpm-tutorial lab                        open the lessons in JupyterLab
      rpm-tutorial doctor                     check this machine
      rpm-tutorial train run.pt               train on Fashion-MNIST
      rpm-tutorial evidence run.pt            the held-out log evidence of that training
      rpm-tutorial export --student handout   notebooks to hand out
    """


@main.command()
@click.argument("folder", type=FOLDER, default="my-course")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the server.  [default: the first free from 8888]")
def lab(folder: Path, port: int | None) -> None:
    """Open the lessons in JupyterLab.

    The first lesson in FOLDER (default: my-course) is shown. A folder without notebooks gets a copy of all of them;
    what is there is never overwritten: a newer course needs a new folder. The server listens on this machine only, with
    a token, and asks no other host for news or updates; Ctrl-C stops it.

    \b
    Examples:
      rpm-tutorial lab
      rpm-tutorial lab "my course" --port 8899
    """
    if importlib.util.find_spec("jupyterlab") is None:
        raise click.ClickException(NO_LAB)
    if not list(folder.glob("*.ipynb")):
        for path in handouts.notebooks():
            shutil.copyfile(path, handouts.place(path, folder))
        click.echo(f"The lessons are in {folder}.")
    first = sorted(folder.glob("*.ipynb"))[0].resolve()
    arguments = ["--ip=127.0.0.1", *NO_NEWS, "--log-level=WARN"]
    arguments += ["--allow-root"]  # as in a container; without effect for other users
    arguments += [f"--ServerApp.root_dir={first.parents[1]}"]
    arguments += [f"--LabApp.default_url=/lab/tree/{first.parent.name}/{first.name}"]
    arguments += [f"--port={port}", "--ServerApp.port_retries=0"] if port else []
    click.echo("JupyterLab is starting; its address follows. Stop it with Ctrl-C.")
    command = [sys.executable, "-m", "jupyterlab", *arguments]
    folders = [str(JUPYTER), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    environment = os.environ | {"JUPYTER_CONFIG_PATH": os.pathsep.join(folders)}
    os.execve(sys.executable, command, environment)  # Ctrl-C and signals then reach JupyterLab itself


@main.command()
def doctor() -> None:
    """Check this machine.

    Versions, device, threads, memory, data, and the course's identity. Exits with 1 if the identity does not hold here.
    """
    click.echo(LOADING, err=True)
    from .. import datasets
    from . import environment

    report = environment.self_check()
    *machine, identity = report.splitlines()
    folder = datasets.fashion_mnist_folder()
    data = f"Fashion-MNIST in {folder}" if folder else f"Fashion-MNIST is missing. {datasets.REMEDIES}"
    lab = "JupyterLab is installed" if importlib.util.find_spec("jupyterlab") else NO_LAB
    click.echo("\n".join([*machine, f"data      {data}", f"lab       {lab}", identity]))
    if not identity.endswith("right"):
        sys.exit(1)


@main.command()
@click.argument("checkpoint", type=FILE)
@click.option("--resume", is_flag=True, help="Continue from CHECKPOINT, which holds the settings.")
@click.option("--data", type=click.Choice(["fashion-mnist", "digits"]), default="fashion-mnist", show_default=True)
@click.option("--steps", type=click.IntRange(1), default=300, show_default=True)
@click.option("--batch-size", type=click.IntRange(2), default=256, show_default=True, help="Pairs in a batch.")
@click.option("--dim", type=click.IntRange(1), default=16, show_default=True, help="Dimension of the latents z.")
@click.option(
    "--temperature",
    type=click.FloatRange(0, min_open=True),
    default=0.1,
    show_default=True,
    help="Of the critic cos(z,z')/temperature, where training starts.",
)
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), default=2e-3, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--save-every", type=click.IntRange(1), default=100, show_default=True, metavar="STEPS")
@device_option
@click.pass_context
def train(
    context: click.Context, checkpoint: Path, resume: bool, save_every: int, device: str | None, **settings
) -> None:
    """Train an encoder with InfoNCE.

    Encoder, critic and the state of the training are kept in the file CHECKPOINT. Ctrl-C saves and ends, and so does
    a terminal that is closed; --resume continues with the numbers of a training that was never stopped.

    \b
    Examples:
      rpm-tutorial train run.pt
      rpm-tutorial train run.pt --resume --device cuda
      rpm-tutorial train digits.pt --data digits --steps 500 --temperature 0.2
    """
    chosen = [name for name in settings if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    if resume and chosen:
        option = "--" + chosen[0].replace("_", "-")
        raise click.UsageError(f"{option} can't be given with --resume: {checkpoint} holds the settings.")
    _check_place(checkpoint, resume)

    click.echo(LOADING, err=True)
    from .. import checkpoints
    from . import _runs, environment

    environment.setup()
    picked = environment.pick_device(device)
    context.with_resource(checkpoints.sole_writer(checkpoint))
    _check_place(checkpoint, resume)  # while this waited for its imports, another may have come and gone
    state = _runs.load(checkpoint, picked) if resume else {"settings": settings}
    settings = state["settings"]
    if not resume or context.get_parameter_source("save_every") is click.core.ParameterSource.COMMANDLINE:
        settings["save_every"] = save_every
    trainer = _runs.trainer(settings, picked)
    if resume:
        trainer.load_state_dict(state)
    again = f"rpm-tutorial train {_quoted(checkpoint)} --resume"
    following = f"rpm-tutorial evidence {_quoted(checkpoint)}"
    if trainer.step == trainer.steps:
        click.echo(f"{checkpoint} is complete: its {trainer.steps} steps are made. Next: {following}")
        return
    click.echo(f"{settings['data']}, {settings['steps']} steps of {settings['batch_size']} pairs, on {picked}")
    try:
        finished = _runs.train(trainer, settings, checkpoint)
    except ValueError as error:
        raise click.ClickException(f"{error}\nThe {trainer.step} steps before are saved in {checkpoint}.") from error
    except BrokenPipeError:
        raise
    except OSError as error:
        left = f"\nWhat was saved before is whole. Continue, once there is room: {again}" if trainer.step else ""
        raise click.ClickException(f"{error}{left}") from error
    if not finished:
        stopped = f"Stopped after step {trainer.step} of {trainer.steps}, and saved."
        raise click.ClickException(f"{stopped} Continue: {again}")
    click.echo(f"Saved to {checkpoint}. Next: {following}")


@main.command()
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--keys", nargs=2, metavar="FIRST SECOND", help="Names of the two arrays in a file that holds more.")
@click.option("--labels", type=FILE, help="An array of one a pair, or a text file of one a line.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
@click.option("--plot", type=FILE, help="Draw them as a page that needs no network.", metavar="OUT.html")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the views, or of the halves.")
@device_option
def evidence(files: tuple[Path, ...], seed: int, device: str | None, **options) -> None:
    """Compute the held-out log evidence of a training, or of embeddings of yours.

    Of a training by rpm-tutorial train: exact, on two views of each of 10 000 images (Fashion-MNIST's test set) or of 500
    digits, none of them trained on.

    Of embeddings: two .npy files of shape (N, d) whose rows are pairs, or one .npz, .safetensors or .pt file of both. Half of
    the pairs fit each critic, the others are scored: InfoNCE, the evidence, the ceiling, ranks, and what to beware of.

    \b
    Examples:
      rpm-tutorial evidence run.pt
      rpm-tutorial evidence image.npy text.npy --labels class.txt
      rpm-tutorial evidence pairs.npz --keys image text --json
    """
    if len(files) > 2:
        raise click.UsageError(
            f"{len(files)} files are given; expected a checkpoint, or one or two files of embeddings."
        )
    for path in (*files, *filter(None, [options["labels"]])):
        if not path.exists():
            raise click.BadParameter(f"{path} does not exist. Remedy: check the name, and the folder that you are in.")
    if options["plot"] and not options["plot"].absolute().parent.is_dir():
        raise click.BadParameter(f"the folder {options['plot'].parent} does not exist. Remedy: make it first.")
    click.echo(LOADING, err=True)
    from . import _runs, environment

    picked = environment.pick_device(device)
    if len(files) == 1 and _runs.is_training(files[0]):
        given = [name for name, value in options.items() if value]
        if given:
            raise click.UsageError(f"--{given[0].removeprefix('as_')} is for embeddings; {files[0]} is a training.")
        environment.setup()
        click.echo(_runs.evidence(files[0], seed, picked))
    else:
        _report(files, seed, picked, **options)


def _report(files, seed, device, *, keys, labels, as_json, plot) -> None:
    from . import _embeddings
    from .report import report

    z, z_prime, own_labels = _embeddings.read(files, keys)
    found = report(z, z_prime, _embeddings.labels(labels) if labels else own_labels, seed=seed, device=device)
    if plot:
        head = "<!doctype html><html lang='en'><meta charset='utf-8'><title>Evidence of embeddings</title>"
        page = f"{head}{found.plot().page()}<pre>{html.escape(str(found))}</pre>"
        plot.write_text(page, encoding="utf-8")
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else found)


@main.command()
@click.option("--student", type=FOLDER, help="Notebooks without outputs, exercises blank.", metavar="DIR")
@click.option("--teacher", type=FOLDER, help="Notebooks with outputs and solutions, each checked.", metavar="DIR")
@click.option("--slides", type=FOLDER, help="Each lesson as a talk, in HTML.", metavar="DIR")
@click.option("--nbgrader", type=FOLDER, help="A course for nbgrader, each notebook an assignment.", metavar="DIR")
@click.option("--only", default="", help="Notebooks whose name starts with this, as 02 or N10.", metavar="NN")
def export(only: str, **folders: Path | None) -> None:
    """Write the lessons, the paper's neighbours and the study for a class.

    The folders have to be new or empty. Slides need no network; only lessons have them. For nbgrader (0.9 or newer),
    run `nbgrader generate_assignment NN_NAME` in DIR; an exercise is worth one point.

    \b
    Examples:
      rpm-tutorial export --student handout --teacher solutions
      rpm-tutorial export --slides slides --only 03
    """
    wanted = {kind: folder for kind, folder in folders.items() if folder}
    if not wanted:
        raise click.UsageError("name what to export: --student DIR, --teacher DIR, --slides DIR or --nbgrader DIR.")
    for folder in wanted.values():
        if folder.is_dir() and any(folder.iterdir()):
            raise click.UsageError(f"{folder} is not empty. Remedy: name a new folder.")
    if len({folder.resolve() for folder in wanted.values()}) < len(wanted):
        raise click.UsageError("each export needs a folder of its own.")
    chosen = [path for path in handouts.notebooks() if path.name.startswith(only)]
    if not chosen:
        names = ", ".join(path.stem for path in handouts.notebooks())
        raise click.UsageError(f"no notebook's name starts with {only!r}; there are {names}.")
    for kind, folder in wanted.items():
        if kind == "slides":
            _export_slides(chosen, folder)
            continue
        taken = [path for path in chosen if kind != "nbgrader" or handouts.has_exercises(handouts.read(path))]
        for path in taken:
            target = handouts.place(path, folder, assignment=kind == "nbgrader")
            handouts.write(getattr(handouts, kind)(handouts.read(path)), target)
        click.echo(f"{len(taken)} notebooks for {kind} in {folder}")


def _export_slides(paths: list[Path], folder: Path) -> None:
    talks = {path: notebook for path in paths if slides.has(notebook := handouts.read(path))}
    if not talks:
        raise click.UsageError("none of these notebooks has slides; the lessons 00 to 16 have.")
    try:
        pages = {path: slides.page(notebook, int(path.name[:2])) for path, notebook in talks.items()}
    except ModuleNotFoundError as error:
        remedy = "python -m pip install 'rpm-tutorial[lab]'"
        raise click.ClickException(f"Slides need the package {error.name}. Remedy: {remedy}") from error
    folder.mkdir(parents=True, exist_ok=True)
    slides.add_files(folder)
    for path, page in pages.items():
        (folder / path.with_suffix(".html").name).write_text(page, encoding="utf-8")
    click.echo(f"{len(pages)} talks in {folder}")


def _check_place(checkpoint: Path, resume: bool) -> None:
    if resume and not checkpoint.exists():
        raise click.BadParameter(f"{checkpoint} does not exist. Remedy: start it without --resume.")
    if not resume and checkpoint.exists():
        raise click.BadParameter(f"{checkpoint} exists. Remedy: continue it with --resume, or name another file.")
    if not checkpoint.absolute().parent.is_dir():
        raise click.BadParameter(f"the folder {checkpoint.parent} does not exist. Remedy: make it first.")


def _quoted(path: Path) -> str:
    """As a shell takes it for one word, and for no option."""
    name = f".{os.sep}{path}" if str(path).startswith("-") else str(path)
    return shlex.quote(name) if os.name == "posix" else subprocess.list2cmdline([name])


if __name__ == "__main__":
    main(prog_name="rpm-tutorial")
