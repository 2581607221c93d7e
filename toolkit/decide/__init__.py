"""From a results folder to a choice: what a setting costs, and the cheapest one that keeps the quality."""
