"""A chosen setting at the size one plans for: the corpus padded to it, the real index built and measured."""
