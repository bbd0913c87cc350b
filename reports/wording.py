"""The sentences of the report, for page and terminal alike, and its summary for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup

from engine.accounting.risk_free import risk_free_in
from reports.formats import DASH, chance, number, percent, written
from reports.metrics.catalogue import METRICS
from reports.report_data import ReportData

IN_TERMINAL = (
    "annual return",
    "volatility",
    "Sharpe",
    "Sharpe s.e.",
    "max drawdown",
    "turnover/year",
    "cost drag/year",
    "effective assets",
    "beta",
    "information ratio",
)
WIDTH = 100
MARK = "\N{DAGGER}"  # of figures that cannot be compared between runs


def headline(data: ReportData) -> Markup:
    """How many finished, where some did not, how the subject did, what its training was worth."""
    done, asked = data.finished
    counted = "" if done == asked else f"{done} of {asked} strategies finished. "
    rows = data.trained
    rows = rows[rows["strategy"] == data.subject] if len(rows) else rows
    said = ""
    for row in rows.to_dict("records")[:1]:
        said = f" In {row['nothing']} of {row['fits']} fits nothing was learned."
        if np.isfinite(row["difference"]) and row["nothing"] < row["fits"]:
            said += (
                f" Training changed the Sharpe ratio by {number(row['difference'])} (95% interval "
                f"{number(row['low'])} to {number(row['high'])}, p = {number(row['p'])})."
            )
    learned = Markup('<span class="quiet">{}</span>').format(said) if said else Markup("")
    return counted + _about_subject(data) + learned


def _about_subject(data: ReportData) -> Markup:
    """How the subject did after costs, and how likely that is by luck."""
    subject, benchmark = data.subject, data.benchmark
    periods = len(data.first.net_returns)
    years = periods / data.first.rows_per_year
    span = f"{years:.1f} years" if years >= 1 else f"{periods:,} periods ({years:.2f} years)"
    net = " after costs" if data.held else ""
    who = Markup("Over {} <bdi>{}</bdi>").format(span, subject)
    row = data.metrics.loc[subject]
    if row["annual return"] == -1:
        return who + f" lost everything: at some point its value{net} was 0."
    alone = who + f" returned {percent(row['annual return'])} per year{net}"
    if benchmark is None:
        return alone + (
            f", a Sharpe ratio of {number(row['Sharpe'])} \N{PLUS-MINUS SIGN} "
            f"{number(row['Sharpe s.e.'])}; there is no other strategy to compare it with."
        )
    difference, p = data.luck.loc[subject, ["difference", "p"]]
    if not np.isfinite(difference):
        return alone + Markup(
            "; its Sharpe ratio and that of <bdi>{}</bdi> cannot be compared, as returns without "
            "spread have none."
        ).format(benchmark)
    size = number(abs(difference)) if abs(difference) >= 0.005 else "less than 0.01"
    other = data.metrics.loc[benchmark]
    compared = Markup(" earned {} a year{} against {} of <bdi>{}</bdi>, at a Sharpe ratio {} {}: ")
    compared = compared.format(
        percent(row["annual return"]),
        net,
        percent(other["annual return"]),
        benchmark,
        size,
        "higher" if difference > 0 else "lower",
    )
    reason = "the history is too short to say how likely that is by chance."
    if np.isfinite(p):
        reason = verdict(difference, p)
    runs = {data.results[name].settings.get("run") for name in data.pair}
    if data.runs and "Sharpe" in data.runs.incomparable and len(runs) > 1:
        reason += (
            f" The two are from runs that differ in {listed(data.runs.incomparable['Sharpe'])}, "
            "which the difference includes."
        )
    return who + compared + Markup('<span class="quiet">{}</span>').format(reason)


def listed(words: Sequence[str]) -> str:
    """As in a sentence: "a, b and c"."""
    return " and ".join([part for part in (", ".join(words[:-1]), *words[-1:]) if part])


def run_sentences(data: ReportData) -> list[str]:
    """What several runs differ and agree in, and what cannot be compared; empty of one run."""
    if data.runs is None:
        return []
    differing, agreeing = data.runs.differing, listed(data.runs.agreeing)
    if not differing:
        return [f"The runs agree in {agreeing}."]
    said = [f"The runs differ in {listed(differing)}; they agree in {agreeing}."]
    if data.runs.reasons:
        said.append(
            f"Figures marked {MARK} cannot be compared between the runs, which differ in "
            f"{listed(data.runs.reasons)}."
        )
    return said


def verdict(difference: float, p: float) -> str:
    """What a Sharpe difference with this two-sided p-value is evidence of."""
    share = "less than 1%" if p < 0.01 else f"{p:.0%}"
    said = f"a difference at least this large arises by chance in {share} of cases: "
    if p >= 0.1:
        return said + f"this is not evidence of {'skill' if difference > 0 else 'a difference'}."
    if p >= 0.05:
        return said + "this is weak evidence at best."
    if difference < 0:
        return said + "it did worse, and luck alone is an unlikely reason."
    return (
        said + "luck alone is an unlikely reason, unless many variants were tried before. A "
        "strategy with look-ahead looks like this, too: test it with deqfolio check."
    )


def selection_sentence(data: ReportData) -> str:
    """What having tried several strategies does to the evidence; empty without a number."""
    deflated, overfitting = data.luck.loc[data.subject, "deflated"], data.overfitting
    said = []
    if data.benchmark and np.isfinite(deflated):
        probability = chance(deflated).replace("<", "below ").replace(">", "above ")
        tried = "One configuration was"
        if data.trials > 1:
            tried = f"{data.trials:,} configurations were"
        said.append(
            f"{tried} tried. The luckiest of as many without skill would show an edge, too: the "
            f"probability that the true edge is larger than that is {probability} (deflated "
            "Sharpe ratio)."
        )
    if np.isfinite(overfitting.probability):
        said.append(
            f"The best of {overfitting.configurations} in one half of the history is in the lower "
            f"half of the ranking in the other half in {percent(overfitting.probability, 0)} of "
            f"{overfitting.splits:,} splits (probability of backtest overfitting; 50% is pure "
            "chance)."
        )
    if np.isfinite(data.superior):
        size = "below 0.01" if data.superior < 0.005 else f"of {number(data.superior)}"
        said.append(
            "The hypothesis that no strategy beats the benchmark at the same volatility has a "
            f"p-value {size} (test for superior predictive ability)."
        )
    return " ".join(said)


def ladder(data: ReportData) -> list[list[str]]:
    """What the statistics answer, from the plain question to the strict one, about the subject:
    question, answer, and the term with what it means. Without a benchmark there is no question.
    """
    if data.benchmark is None:
        return []
    own, other = data.metrics.loc[data.subject], data.metrics.loc[data.benchmark]
    luck, found = data.luck.loc[data.subject], data.overfitting
    interval = f"{number(luck['difference low'])} to {number(luck['difference high'])}"
    often = "Easily" if luck["p"] >= 0.1 else "Hardly" if luck["p"] < 0.05 else "Perhaps"
    tried = "one configuration was" if data.trials == 1 else f"{data.trials:,} were"
    size = "below 0.01" if data.superior < 0.005 else number(data.superior)
    steps = [
        (
            0.0,
            "Did it earn more?",
            f"{percent(own['annual return'])} a year against {percent(other['annual return'])}.",
            "Annual return, compounded.",
        ),
        (
            0.0,
            "Did it earn more for its risk?",
            f"{number(own['Sharpe'])} against {number(other['Sharpe'])}.",
            "Sharpe ratio: return in excess of the risk-free rate over its volatility, annual.",
        ),
        (
            luck["p"],
            "Could chance alone make a difference of this size?",
            f"{often}: in {_spelled(luck['p'])} of cases. The true difference is {interval} with "
            "95% confidence.",
            "p-value: how often two strategies that are equally good differ by as much, in either "
            "direction.",
        ),
        (
            luck["active"],
            "Is there an edge over the benchmark at all?",
            f"With a probability of {_spelled(luck['active'])}.",
            "Probabilistic Sharpe ratio: that the true Sharpe ratio of the active return, the "
            "return less that of the benchmark, is above 0.",
        ),
        (
            luck["deflated"],
            "Is it more than the luckiest of all that was tried?",
            f"With a probability of {_spelled(luck['deflated'])}; {tried} tried.",
            "Deflated Sharpe ratio: the same, above the ratio that the best of so many "
            "configurations without skill reaches by luck.",
        ),
        (
            found.probability,
            "Would the best of the past have been the best later?",
            f"In {percent(found.probability, 0)} of {found.splits:,} splits of the history it "
            f"ended in the lower half of the {found.configurations}.",
            "Probability of backtest overfitting; 50% is pure chance.",
        ),
        (
            data.superior,
            "Does any strategy of this page beat the benchmark?",
            f"{'Probably' if data.superior < 0.05 else 'Not shown'}: p-value {size}.",
            "Test for superior predictive ability, at equal volatility, of all together.",
        ),
    ]
    return [words for value, *words in steps if np.isfinite(value)]


def _spelled(value: float) -> str:
    return chance(value).replace("<", "less than ").replace(">", "more than ")


def risk_free(data: ReportData) -> str:
    """What ratios are in excess of, and whether cash alone earned more."""
    settings = data.first.settings
    found = risk_free_in(settings)
    cash_rate = (settings.get("costs") or {}).get("cash_rate", 0.0)
    rate, over = (found["mean"], " on average") if isinstance(found, Mapping) else (found, "")
    said = (
        "Sharpe, Sortino and Omega ratios, alpha and beta are of returns in excess of the "
        f"risk-free rate, {percent(rate, 2)} a year{over}."
        if found
        else "The risk-free rate is 0."
    )
    if cash_rate > rate:
        said += (
            f" Cash earned {percent(cash_rate, 2)}: what it earned above the risk-free rate counts "
            "as skill in all ratios."
        )
    return said


def not_shown(data: ReportData) -> list[str]:
    """What the report would show with more data, and which data."""
    missing = {
        "Weights, turnover, costs, orders and training: only returns were given.": not data.held,
        "Capacity: the portfolio value at which market impact takes the gain needs the volume of "
        'each asset, the asset feature "volume" of the panel.': data.capacity.empty,
        "Shadow prices: no strategy solves an optimisation of this package, or the run is from a "
        "version that did not record them.": data.limits.empty,
        "Sensitivity to features: there is no learned strategy, or none was recorded.": (
            data.sensitivity.empty
        ),
        "Contributions of the assets to return and risk: the run has no returns of the assets "
        "that add up to those of the portfolio.": data.assets["return"].isna().all(),
        "Contributions by group: no groups of assets were given.": data.groups.empty,
        "Turnover and costs: No trade was made.": bool(data.held)
        and not any(len(result.turnover) for result in data.held.values()),
        "Results by fold: nothing was refitted, so there are no folds.": (
            bool(data.held) and data.folds.empty
        ),
        "Training: None of the strategies is trained.": bool(data.held) and data.epochs.empty,
        "Regression on factors: no factors were given.": data.factors.empty,
        "Sharpe ratio by cost: nothing was traded, or the returns have no spread.": (
            data.sweep.empty
        ),
    }
    return [sentence for sentence, lacking in missing.items() if lacking]


def terminal_summary(data: ReportData) -> str:
    """The report as plain text, at most 100 columns of prose."""
    marked = data.runs.incomparable if data.runs else {}
    metrics = {
        f"{name} {MARK}" if name in marked else name: [
            written(value, METRICS[name].unit) for value in data.metrics[name]
        ]
        for name in IN_TERMINAL
        if data.metrics[name].notna().any()
    }
    said = [*run_sentences(data), headline(data).striptags(), *data.notes]
    parts = [*(textwrap.fill(each, WIDTH) for each in said), _table(data.metrics.index, metrics)]
    if data.benchmark:
        luck = data.luck.drop(index=data.benchmark)
        intervals = [
            f"{number(low)} to {number(high)}" if low == low else DASH
            for low, high in luck[["difference low", "difference high"]].to_numpy()
        ]
        columns = {
            "Sharpe difference": [number(value) for value in luck["difference"]],
            "95% interval": intervals,
            "p-value (no difference)": [chance(value) for value in luck["p"]],
            "deflated Sharpe ratio": [chance(value) for value in luck["deflated"]],
        }
        parts.append(_table(luck.index, columns))
    parts.append(textwrap.fill(selection_sentence(data), WIDTH))
    if data.first.risk_free.any():
        parts.append(textwrap.fill(risk_free(data), WIDTH))
    return "\n\n".join(part for part in parts if part)


def _table(names: pd.Index, rows: dict[str, list[str]]) -> str:
    """One column a strategy, as there are few; names are printable and at most 32 long."""
    clean = ["".join(c if c.isprintable() else "?" for c in name) for name in names]
    short = [name if len(name) <= 32 else f"{name[:31]}\N{HORIZONTAL ELLIPSIS}" for name in clean]
    return pd.DataFrame(rows, index=short).T.to_string()
