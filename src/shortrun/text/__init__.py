"""Where titles come from, how they are cleaned and split."""
