"""Losses: what training minimises, of net returns, of portfolios and of risk."""
