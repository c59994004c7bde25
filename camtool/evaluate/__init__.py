"""How well maps locate objects: data sets, metrics, baselines, and pages of them."""
