"""What only Hopper GPUs run: long-text attention, and a whole pass over few tokens as one kernel."""
