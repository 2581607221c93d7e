"""From neighbours and clocks to figures: quality, paired statistics, timing, storage."""
