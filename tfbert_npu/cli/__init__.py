"""The `tfbert-npu` command. Each subcommand lives in a module of its own, imported when it is called."""

from __future__ import annotations

import difflib
import importlib
import os
import sys

import click

from tfbert_npu import __version__
from tfbert_npu.cli.quiet import import_quietly
from tfbert_npu.cli.stopping import clean_up_when_terminated, exit_code
from tfbert_npu.errors import TfbertNpuError

# name -> (module, attribute, one line of help). The help stands here so that `--help` imports no command.
_COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("tfbert_npu.cli.demo", "demo", "Show what the package does, on real weights."),
    "doctor": ("tfbert_npu.cli.doctor", "doctor", "Report on NPU, driver, runtime and an artifact."),
    "embed": ("tfbert_npu.cli.embed", "embed", "Turn texts into vectors, one line each."),
    "rerank": ("tfbert_npu.cli.rerank", "rerank", "Order texts by how well they answer a query."),
    "fill-mask": ("tfbert_npu.cli.ask", "fill_mask", "Fill in the words behind [MASK]."),
    "classify": ("tfbert_npu.cli.ask", "classify", "Label texts."),
    "ner": ("tfbert_npu.cli.ask", "ner", "Find named entities in texts."),
    "qa": ("tfbert_npu.cli.ask", "qa", "Answer a question from a text."),
    "evaluate": ("tfbert_npu.cli.evaluate", "evaluate", "Score models on labeled data, side by side."),
    "benchmark": ("tfbert_npu.cli.benchmark", "benchmark", "Time models and backends, in turns."),
    "export": ("tfbert_npu.cli.export", "export", "Write a SavedModel, ONNX, or a directory for the NPU."),
    "push": ("tfbert_npu.cli.push", "push", "Upload a model's directory to a hub repository."),
    "serve": ("tfbert_npu.cli.serve", "serve", "Serve sentence vectors over HTTP."),
    "toolchain": ("tfbert_npu.cli.toolchain", "toolchain", "Install and find rknn-toolkit2."),
    "verify": ("tfbert_npu.cli.verify", "verify", "Check that this machine computes an artifact right."),
    "profile": (
        "tfbert_npu.cli.profile",
        "profile",
        "Time an artifact on this board, beside the prediction.",
    ),
    "inspect": ("tfbert_npu.cli.inspect", "inspect", "Show an exported directory or a .rknn file."),
    "vocab": ("tfbert_npu.cli.vocab", "vocab", "Train a WordPiece vocabulary on a text file."),
    "train": ("tfbert_npu.cli.train", "train", "Fine-tune a model on a task, or pre-train it on text."),
}


class SuggestingGroup(click.Group):
    """A command group that says of a mistyped subcommand what may have been meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """A subcommand and its arguments."""
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], known, 1, 0.5)
            meant = f" Did you mean {near[0]}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{meant}")
        return super().resolve_command(ctx, args)


class _LazyGroup(SuggestingGroup):
    """A command group that imports a subcommand's module only when that subcommand runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tfbert-npu")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """BERT from a checkpoint to a Keras layer that trains in TensorFlow and runs on a Rockchip NPU."""
    if not debug:
        # On a machine without a GPU, TensorFlow logs as an error that it found none.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import_quietly("tensorflow")


def main() -> None:
    """Run the command line: exit code 0 for success, 2 for bad usage, 1 for failed work.

    130 stands for Ctrl-C and 143 for SIGTERM; both clean up.

    A failure prints one line; `--debug`, before the subcommand, prints the traceback as well.
    """
    debug = "--debug" in sys.argv[1:]
    clean_up_when_terminated()
    try:
        sys.exit(cli(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        click.echo("tfbert-npu: stopped", err=True)
        sys.exit(exit_code(error))
    except (TfbertNpuError, ValueError, OSError) as error:
        if debug:
            raise
        if isinstance(error, BrokenPipeError):
            # The reader of our output has gone (`| head`); Python would complain once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        click.echo(f"tfbert-npu: {' '.join(_sentence(error).split())}", err=True)
        sys.exit(1)


def _sentence(error: Exception) -> str:
    """An error's message; Python's own of a file begins with its number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}; check the name and who may read it"
    return str(error)
