"""Accounting: what holdings earn and cost, drift, and the order-level simulation."""
