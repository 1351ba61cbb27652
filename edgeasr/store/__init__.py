"""The persistent memory: what was heard and said, searchable by text and by sound, in one SQLite file.

    with MemoryStore.open(path) as store:
        for hit in search_text(store, "the old house"):
            print(hit.start_s, hit.text)

Start at memory_store.py. Everything below needs the packages of edgeasr[memory], except paths.py and records.py.
"""
