"""Beyond one process: corpora of any size into shards, Ray workers, several devices, exact search over shards.

corpus.py      a corpus file or folder into a folder of shards, in this process
ray_encode.py  the same on Ray workers
"""
