"""The tables of the SQLite file of a loop."""

from __future__ import annotations

VERSION = 1

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS rounds (round INTEGER PRIMARY KEY, phase TEXT NOT NULL, result TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS walkers (round INTEGER, walker INTEGER, state BLOB NOT NULL, checksum TEXT NOT NULL, "
    "event TEXT NOT NULL, UNIQUE (round, walker))",
    "CREATE TABLE IF NOT EXISTS trace (round INTEGER, walker INTEGER, step INTEGER, uncertainty REAL, energy REAL, "
    "variables TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY, round INTEGER, kind TEXT, walker INTEGER, step INTEGER, "
    "geometry BLOB, geometry_checksum TEXT, uncertainty REAL, variables TEXT, status TEXT, "
    "attempts INTEGER, reason TEXT, seconds REAL, label TEXT, label_checksum TEXT)",
    "CREATE TABLE IF NOT EXISTS hills (round INTEGER, walker INTEGER, hills TEXT NOT NULL, checksum TEXT NOT NULL, "
    "UNIQUE (round, walker))",
    "CREATE TABLE IF NOT EXISTS times (round INTEGER, kind TEXT, seconds REAL)",
)
TABLES = ("meta", "rounds", "walkers", "trace", "jobs", "hills", "times")
