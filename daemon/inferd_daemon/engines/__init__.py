"""How one runtime is started, probed, stopped and described: one file for each engine."""
