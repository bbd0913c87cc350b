"""Walking forward: the fits and the decisions of each fold."""
