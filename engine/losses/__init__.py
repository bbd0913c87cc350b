"""Losses: what training minimises, of net returns and of portfolios."""
