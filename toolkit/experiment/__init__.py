"""From a plan to a results folder: validation, the resumable sweep, derived measurements."""
