"""Beyond one process: corpora of any size into shards, and the exact search over them, on Ray workers.

corpus.py       a corpus file or folder into a folder of shards, in this process
ray_workers.py  Ray, started here or found by address
ray_encode.py   what `corpus.py` does, on its workers
ray_search.py   the exact search at every dimension on its workers
corpus_rows.py  where each of them has its rows from
"""
