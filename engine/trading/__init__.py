"""Trading: today's orders from a finished run, the daily job, and what its fills came to."""
