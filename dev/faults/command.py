"""Commands, the first of which is sound; each of the others has the fault its docstring names."""

from pathlib import Path

import click


@click.command()
@click.option("--times", default=1, help="How often.")
def sound(times):
    """Says aye."""
    click.echo("Aye. " * times)


def no_command(times):
    """Is a plain function."""


class _CrashesOnHelp(click.Command):
    def get_help(self, ctx):
        raise KeyError("help")


@click.command(cls=_CrashesOnHelp)
def crashes_on_help():
    """Fails when it is asked for help."""


class _LeavesLog(click.Command):
    def parse_args(self, ctx, args):
        Path("aye.log").write_text("Asked.", encoding="utf-8")
        return super().parse_args(ctx, args)


@click.command(cls=_LeavesLog)
def leaves_log():
    """Writes a log wherever it is asked."""


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("rest", nargs=-1)
def takes_anything(rest):
    """Passes over flags that it does not know."""


class _Careless(click.Command):
    def parse_args(self, ctx, args):
        unknown = [argument for argument in args if argument.startswith("--no-such")]
        assert not unknown
        return super().parse_args(ctx, args)


@click.command(cls=_Careless)
def careless():
    """Ends with an error of the program at a flag that it does not know."""


@click.command()
@click.option("--debug", is_flag=True, help="Tell more.")
def takes_debug(debug):
    """Has a flag of lmflow's own."""


class _HidesFlags(click.Command):
    def format_options(self, ctx, formatter):
        pass


@click.command(cls=_HidesFlags)
@click.option("--times", default=1, help="How often.")
def hides_flags(times):
    """Does not name its flags."""


class _Talks(click.Command):
    def get_help(self, ctx):
        click.echo("Loading …", err=True)
        return super().get_help(ctx)


@click.command(cls=_Talks)
def talks():
    """Writes more than its help."""


def chats_alone(open_model):
    """Does not take its options."""


UNKNOWN_VALUE = {"objective": "sft", "learning_speed": 3}
WRONG_VALUE = {"objective": "sft", "lr": "fast"}
NO_SUCH_TUNER = {"tuner": "nobody"}
