"""Planning: when a strategy is fitted, when it decides, and when orders are filled."""
