"""What the report says in sentences."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from reports.facts import Facts
from reports.formats import chance, number, percent
from reports.statistics import verdict


def headline(facts: Facts) -> Markup:
    """In plain words: how the subject did after costs, and how likely it is by luck."""
    subject, benchmark = facts.subject, facts.benchmark
    periods = len(facts.first.net_returns)
    years = periods / facts.periods_per_year
    span = f"{years:.1f} years" if years >= 1 else f"{periods} periods ({years:.2f} years)"
    who = Markup("Over {} <bdi>{}</bdi>").format(span, subject)
    row = facts.metrics.loc[subject]
    if row["annual return"] == -1:
        return who + " lost everything: at some point its value after costs was 0."
    alone = who + f" returned {percent(row['annual return'])} a year after costs"
    if benchmark is None:
        return alone + (
            f", a Sharpe ratio of {number(row['Sharpe'])} \N{PLUS-MINUS SIGN} "
            f"{number(row['Sharpe s.e.'])}; there is no other strategy to compare it with."
        )
    difference, p = facts.luck.loc[subject, ["difference", "p"]]
    if not np.isfinite(difference):
        return alone + Markup(
            "; its Sharpe ratio and that of <bdi>{}</bdi> cannot be compared, as returns without "
            "spread have none."
        ).format(benchmark)
    size = number(abs(difference)) if abs(difference) >= 0.005 else "less than 0.01"
    more = "more" if difference > 0 else "less"
    earned = Markup(" earned {} {} Sharpe than <bdi>{}</bdi> after costs; ").format(
        size, more, benchmark
    )
    quiet = Markup('<span class="quiet">{}</span>')
    if not np.isfinite(p):
        reason = "the history is too short to say how likely that is by chance."
        return who + earned + quiet.format(reason)
    return who + earned + quiet.format(verdict(difference, p))


def selection_sentence(facts: Facts) -> str:
    """What having tried several strategies does to the evidence; empty without a number."""
    deflated = facts.luck.loc[facts.subject, "deflated"]
    said = ""
    if facts.benchmark and np.isfinite(deflated):
        in_words = chance(deflated).replace("<", "below ").replace(">", "above ")
        tried = "One configuration was"
        if facts.trials > 1:
            tried = f"{facts.trials:,} configurations were"
        said += (
            f"{tried} tried: the probability that the active return beats what the luckiest of "
            f"as many without skill earns is {in_words} (deflated Sharpe ratio). "
        )
    if np.isfinite(facts.overfitting.probability):
        said += (
            f"The best of {facts.overfitting.configurations} in one half of the history is in "
            f"the lower half in the other in {percent(facts.overfitting.probability, 0)} of "
            f"{facts.overfitting.splits:,} splits (probability of backtest overfitting; 50% is "
            "pure chance). "
        )
    if np.isfinite(facts.superior):
        said += (
            "That no strategy beats the benchmark at the same volatility has a p-value "
            f"{'below 0.01' if facts.superior < 0.005 else f'of {number(facts.superior)}'} "
            "(test for superior predictive ability)."
        )
    return said.strip()


def not_shown(facts: Facts) -> list[str]:
    """What the report would show with more data, and which."""
    missing = []
    if not len(facts.capacity):
        missing.append(
            "Capacity: the value at which market impact takes the gain needs the volume of each "
            'asset, the asset feature "volume" of the panel.'
        )
    if not len(facts.limits):
        missing.append(
            "Shadow prices: no strategy solves an optimisation of ours, or the run is from before "
            "they were recorded."
        )
    if not len(facts.sensitivity):
        missing.append("Sensitivity to features: no learned strategy, or none was recorded.")
    if facts.assets["return"].isna().all():
        missing.append(
            "Contributions of the assets to return and risk: the run has no returns of the assets "
            "that add up to those of the portfolio."
        )
    if not len(facts.groups):
        missing.append("Contributions by group: no groups of assets were given.")
    if not len(facts.factors):
        missing.append("Regression on factors: no factors were given.")
    if facts.sweep.empty:
        missing.append("Sharpe ratio by cost: nothing was traded, or returns have no spread.")
    return missing
