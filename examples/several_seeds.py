"""Several seeds in parallel: how much of a learned strategy's result is the luck of its seed?"""

from deqfolio import DEQMeanVariance, Training, WalkForward, backtest, load, summary_table
from engine.compute.worker_pool import local_processes


def main():
    panel = load("sp500", start="2012-01-01")
    plan = WalkForward(train="5Y", refit="3Y")
    trainings = {f"seed {seed}": Training(seed=seed, epochs=5) for seed in range(3)}
    trainings["ensemble"] = Training(seed=0, epochs=5, ensemble=3)  # holds their mean
    # One pool for all; a single backtest takes workers=2. Any concurrent.futures executor will do,
    # a Dask client's for a cluster too, and the result is the same to the last bit.
    with local_processes(2) as pool:
        for name, training in trainings.items():
            results = backtest(DEQMeanVariance(), panel, plan, training=training, executor=pool)
            sharpe = summary_table(results).loc["DEQMeanVariance", "Sharpe"]
            print(f"{name:8s} net Sharpe {sharpe:.3f}")


if __name__ == "__main__":  # needed where processes are started
    main()
