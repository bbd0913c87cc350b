"""deqfolio orders, fills, refit: what to trade today, from a finished run; what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from deqfolio.experiments import make_strategy, where_it_ran
from deqfolio.options import Trust, in_panel
from deqfolio.trust import check_trust

if TYPE_CHECKING:
    import pandas as pd

    from data_loaders import Panel
    from engine import BacktestResult
    from engine.trading.orders import OrderRules
    from strategies import Strategy

NOT_TODAY, BUSY = 3, 4  # exit codes: no decision at the last close; another process is at it


_money = partial(in_panel, "The account")
_refused = partial(in_panel, "What is refused, unless")


def orders(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a finished run; or: verify FILE.")
    ],
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="After verify: orders in JSON.")
    ] = None,
    cash: Annotated[float | None, _money("Money beside the shares held.")] = None,
    capital: Annotated[
        float | None, _money("Instead of --cash: all money, the value of the shares included.")
    ] = None,
    deposit: Annotated[
        float, _money("New money on top of either; negative: to be taken out, like -5000.")
    ] = 0.0,
    holdings: Annotated[
        Path | None, _money("CSV file of current holdings, with the columns asset and shares.")
    ] = None,
    job: Annotated[
        Path | None,
        _money(
            "Ledger of a daily job, an SQLite file: the account is carried in it from day to day, "
            "and a day that is run twice gives the same orders."
        ),
    ] = None,
    prices: Annotated[
        str | None,
        typer.Option(
            help="Source of prices up to the last close. [default: that of the run, updated]"
        ),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="A strategy of the run. [default: the first]")
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Also write the orders to a file: .json, .csv or .txt. Repeatable."),
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option(help="Day of trading; later prices are not looked at. [default: today]"),
    ] = None,
    fractions: Annotated[
        bool, typer.Option("--fractions", help="Trade fractions of shares.")
    ] = False,
    lot: Annotated[float, typer.Option(min=0, help="Shares that are traded together.")] = 1.0,
    minimum_order: Annotated[
        float, typer.Option(min=0, help="Money, below which nothing is ordered.")
    ] = 0.0,
    holidays: Annotated[
        Path | None,
        typer.Option(
            help="File of days without a session, one a line, beside the holidays that the prices "
            "show."
        ),
    ] = None,
    max_age: Annotated[
        str | None,
        _refused("Allow prices as old as this, like 5D. [default: the last session's]"),
    ] = None,
    allow_stale: Annotated[
        list[str] | None,
        _refused("Keep the position in an asset whose price is older, as it is. Repeatable."),
    ] = None,
    anyway: Annotated[
        bool, _refused("Decide on a day on which the plan does not.", "--anyway")
    ] = False,
    accept_changes: Annotated[
        bool,
        _refused("Accept changed code, packages, past prices: recorded.", "--accept-changes"),
    ] = False,
    trust: Trust = False,
) -> None:
    """List the orders that bring the current holdings to a strategy's weights at the last close.

    Example: deqfolio orders runs/backtest --cash 5000 --holdings holdings.csv --out orders.json

    No order is sent anywhere. Nothing is written where anything is refused: prices that are not of
    the last session, assets that are suspended, delisted, split or rewritten since the run, a
    learned strategy that is due for a refit. Exit code 3: the plan does not decide today. Exit
    code 4: another process works on the same --job.

    deqfolio orders verify FILE makes the orders of a JSON file again, and compares.
    """
    import pandas as pd

    from engine.trading.account import Account, read_holdings
    from engine.trading.job import JobBusy
    from engine.trading.order_files import as_text, form_of, write_orders
    from engine.trading.orders import OrderRules
    from engine.trading.todays_decision import NoDecision

    if str(run) == "verify" and file is not None:
        verify(file, prices, trust)
        return
    if file is not None:
        raise typer.BadParameter(f"unexpected argument {file}")
    if (cash is not None and capital is not None) or (cash is capital is job is None):
        raise typer.BadParameter("give --cash, the money beside the shares, or --capital")
    if job is not None and (capital is not None or (cash is None and holdings is not None)):
        raise typer.BadParameter("with --job, --cash states the account, beside --holdings")
    for path in out or []:
        form_of(path)
    rules = OrderRules(
        max_age=_age(max_age),
        allow_stale=tuple(allow_stale or ()),
        accept_changes=accept_changes,
        anyway=anyway,
        lot=0.0 if fractions else lot,
        minimum_order=minimum_order,
        closed=_days(holidays),
    )
    shares = read_holdings(holdings) if holdings is not None else pd.Series(dtype=float)
    account = Account(shares, cash, capital, deposit)
    today = pd.Timestamp(as_of) if as_of else pd.Timestamp.now().normalize()
    try:
        with _chosen(run, strategy, prices, trust, accept_changes) as (chosen, place):
            if job is None:
                found = _document(chosen, account, rules, today)
            else:
                found = _of_the_day(place(job), chosen, account, rules, today)
    except NoDecision as error:
        typer.echo(str(error))
        raise typer.Exit(NOT_TODAY) from None
    except JobBusy as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(BUSY) from None
    for path in out or []:
        write_orders(found, path)
    typer.echo(as_text(found))


def verify(file: Path, prices: str | None = None, trust: bool = False) -> None:
    """Make the orders of a document again, and say what differs."""
    from engine.trading.order_files import differences, given_in, read_document

    before = read_document(file)
    account, rules, today, earlier, last = given_in(before)
    run, name = Path(before["run"]["folder"]), before["run"]["strategy"]
    accepting = replace(rules, accept_changes=True)  # a change is a difference, and named
    with _chosen(run, name, prices, trust, changed=True) as (chosen, _):
        again = _document(chosen, account, accepting, today, earlier, last)
    if found := differences(before, again):
        typer.echo("\n".join([*found, f"{file}: {len(found)} differences"]))
        raise typer.Exit(1)
    typer.echo(f"{file}: the same orders, from the same prices and code")


def _of_the_day(
    path: Path, chosen: Chosen, given: Any, rules: OrderRules, today: pd.Timestamp
) -> dict[str, Any]:
    """The orders of a job on a day: those of before, where the day was run already."""
    from engine.trading.job import Job
    from engine.trading.todays_decision import NoDecision

    date = str(today.date())
    no_day: NoDecision | None = None
    with Job(path).day() as job:
        known = chosen.panel.until(date if today == today.normalize() else today)
        if len(known) and (before := job.orders_of(known.dates[-1])) is not None:
            return before
        if given.deposit:
            job.note_deposit(date, given.deposit)
        if given.cash is not None:
            job.state_account(given, date)
        try:
            what = job.account(), rules, today, job.earlier(), job.last_prices(), job.accepted()
            found = _document(chosen, *what)
            job.add_orders(found)
        except NoDecision as error:
            no_day = error  # the account and the deposit are noted all the same
    if no_day is not None:
        raise no_day
    return found


def fills(
    job: Annotated[Path, typer.Argument(metavar="JOB", help="Ledger of orders --job.")],
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="CSV file of what was traded: asset, shares (negative: sold), price, fees.",
        ),
    ] = None,
    as_planned: Annotated[
        bool, typer.Option("--as-planned", help="All was filled at the planned prices and costs.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the comparison to CSV.")] = None,
) -> None:
    """Note what became of the last orders of a job, and compare planned with realised.

    Example: deqfolio fills state/job.sqlite3 fills.csv

    Without a file it only compares. What was ordered and is not in the file was missed: the account
    continues without it.
    """
    from data_loaders.writing import safe_csv, write_text
    from engine.trading.job import Job, compared, read_fills

    if file is not None and as_planned:
        raise typer.BadParameter("give a file, or --as-planned")
    if not job.is_file():
        raise ValueError(f"there is no ledger {job}: deqfolio orders --job {job} begins one")
    with Job(job).day() as ledger:
        if file is not None or as_planned:
            ledger.fill(None if file is None else read_fills(file))
        orders, periods = compared(ledger)
    if out is not None:
        write_text(out, safe_csv(orders, index=False))
    if orders.empty:
        typer.echo("no orders yet")
        return
    typer.echo(orders.to_string(index=False, float_format=lambda x: f"{x:,.2f}", na_rep="-"))
    traded = orders["filled"] * orders["planned"]
    missed = orders[orders["filled"].abs() < orders["ordered"].abs() - 1e-9]
    typer.echo(
        f"slippage {orders['slippage'].sum():,.2f}, fees {orders['fees'].sum():,.2f} (expected "
        f"{orders['expected'].sum():,.2f}) on {traded.abs().sum():,.2f} traded; "
        f"{len(missed)} of {len(orders)} orders missed, in whole or in part"
    )
    if len(periods):
        apart = periods["realised"] - periods["paper"]
        typer.echo(
            f"realised less paper portfolio: {apart.sum():+.4%} over "
            f"{len(periods)} period{'s' * (len(periods) > 1)}, at most "
            f"{apart.abs().max():.4%} in one"
        )


def refit(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    strategy: Annotated[
        str | None, typer.Option(help="A learned strategy of the run. [default: the first]")
    ] = None,
    prices: Annotated[
        str | None,
        typer.Option(help="Source of prices up to now. [default: that of the run, updated]"),
    ] = None,
    trust: Trust = False,
) -> None:
    """Train the fold of a learned strategy that is due, on new prices, and say what moved.

    Example: deqfolio refit runs/live && deqfolio orders runs/live --job job.sqlite3

    It is trained as the backtest would train it, on what was known at the plan's refit date. What
    was trained before is kept; orders decide with the fit of their date. Where none is due, nothing
    is done.
    """
    from engine.runs.experiment import experiment_of, read_simulation, read_training
    from engine.trading.refit import moved_words, save_refit, states_of
    from engine.trading.refit import refit as train_due

    with _chosen(run, strategy, prices, trust, False) as (chosen, _):
        run, trained, result, panel = chosen
        asked = experiment_of(run)
        lookback = max(make_strategy(each).lookback for each in asked["strategies"])
        states, rates = states_of(run, result), read_simulation(asked["simulation"]).rates
        training = read_training(asked["training"])
        made = train_due(trained, result, panel, training, lookback, states, rates)
        if made is None:
            typer.echo(f"{result.name}: no refit is due")
            return
        folder = save_refit(run, trained, result, made)
    typer.echo(f"{result.name}: fold {made.fold}, fitted on {made.date.date()}: {folder}")
    typer.echo(f"weights at the last close, from before: {moved_words(made.moved)}")


class Chosen(NamedTuple):
    """A strategy of a run, and prices for it."""

    run: Path
    strategy: Strategy
    result: BacktestResult
    panel: Panel


@contextmanager
def _chosen(
    run: Path, name: str | None, prices: str | None, trust: bool, changed: bool
) -> Iterator[tuple[Chosen, Callable[[Path], Path]]]:
    """A strategy of a run by name, or the first, and the prices that are asked for, or its own.

    Inside, the working directory is that in which the run was started; what is yielded beside them
    gives the place of a path that was meant from the one before.
    """
    from data_loaders import load
    from data_loaders.files import is_file_name
    from engine import load_run
    from engine.runs.experiment import experiment_of

    asked = experiment_of(run)
    is_file = prices is not None and is_file_name(prices)
    with where_it_ran(run, asked) as place:
        run = place(run)
        results = load_run(run)
        name = name or next(iter(results))
        if name not in results:
            raise ValueError(
                f"{run} has no strategy {name!r}; expected one of {', '.join(results)}"
            )
        data = {key: value for key, value in asked["data"].items() if key not in ("end", "as_of")}
        if prices:
            del data["source"]
        check_trust(run, asked | {"data": data}, trust, place(Path()), changed)
        strategy = make_strategy(asked["strategies"][list(results).index(name)])
        if prices:
            data["source"] = str(place(Path(prices))) if is_file else prices
        if data["source"].startswith("yahoo:"):
            data["update"] = True
        yield Chosen(run, strategy, results[name], load(**data)), place


def _document(
    chosen: Chosen,
    account: Any,
    rules: OrderRules,
    today: pd.Timestamp,
    earlier: Any = (),
    last: Mapping[str, tuple[float, str]] | None = None,
    accepted: Any = (),
) -> dict[str, Any]:
    from engine.trading.order_files import document
    from engine.trading.orders import todays_orders
    from engine.trading.refit import states_of
    from strategies.strategy_constraints import binding

    run, strategy, result, panel = chosen
    given = rules, earlier, accepted, last, states_of(run, result)
    found = todays_orders(strategy, result, panel, account, today, *given)
    words = binding(strategy, found.table["weight"], found.holdings, found.date)
    return document(
        found, strategy, result, panel, account, rules, today,
        str(run.resolve()), earlier, last, words,
    )  # fmt: skip


def _age(text: str | None) -> pd.Timedelta | None:
    import pandas as pd

    if text is None:
        return None
    try:
        found = pd.Timedelta(text)
    except ValueError:
        found = pd.NaT
    if not found >= pd.Timedelta(0):
        raise typer.BadParameter(f"--max-age {text}: write it like 5D or 12h")
    return found


def _days(path: Path | None) -> tuple[str, ...]:
    """The days of a file, one a line."""
    import pandas as pd

    if path is None:
        return ()
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.partition("#")[0].strip()
        try:
            found += [str(pd.Timestamp(text).date())] if text else []
        except ValueError:
            raise ValueError(
                f"{path}, line {number}: {text!r} is not a date like 2024-12-25"
            ) from None
    return tuple(found)
