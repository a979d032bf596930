"""Makes small.sqlite and small.sqlite-wal, the seeds of the fuzz test: run it here, with Python 3."""
import os, shutil, sqlite3, tempfile

work = tempfile.mkdtemp()
db = sqlite3.connect(os.path.join(work, "a"), isolation_level=None)
for statement in (
    "PRAGMA page_size=512", "PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0",
    "CREATE TABLE auth_profile_store (store_key TEXT NOT NULL PRIMARY KEY, store_json TEXT NOT NULL, updated_at INTEGER NOT NULL)",
    "INSERT INTO auth_profile_store VALUES ('other', '{}', 1), ('primary', '" + "x" * 1200 + "', 2)",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "UPDATE auth_profile_store SET store_json='" + "y" * 900 + "', updated_at=3 WHERE store_key='primary'",
):
    db.execute(statement).fetchall()
for end in ("", "-wal"):
    shutil.copy(os.path.join(work, "a" + end), "small.sqlite" + end)
db.close()
shutil.rmtree(work)
