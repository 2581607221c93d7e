"""Time, money and storage of a corpus that is not there yet, from measured rates. Measures and opens nothing."""
