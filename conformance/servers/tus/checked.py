"""A tus server that verifies checksums, which the reference server does not, and takes chunks of a megabyte at most.

python checked.py PORT FOLDER
"""

import os, sys
from http.server import ThreadingHTTPServer
from resumable_upload import SQLiteStorage, TusHTTPRequestHandler, TusServer

port, folder = int(sys.argv[1]), sys.argv[2]
storage = SQLiteStorage(db_path=os.path.join(folder, "checked.db"), upload_dir=os.path.join(folder, "checked"))


class Handler(TusHTTPRequestHandler):
    tus_server = TusServer(
        storage=storage, base_path="/files", max_chunk_size=1 << 20, checksum_algorithms=("sha1", "sha256"), enable_downloads=True
    )


ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
